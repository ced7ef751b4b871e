// Runs fio once: job file and output in a folder of its own, which is gone afterwards, whatever
// happened.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FioError } from "./error.js";
import { type FioJob, jobFile } from "./job.js";
import { type FioResult, parseResult } from "./result.js";

export interface FioRunOptions {
  /** Ends fio; the promise is rejected with the signal's reason. */
  signal?: AbortSignal;
  /** The program; default "fio", from the PATH. */
  program?: string;
}

/** What is kept of what fio says. */
const MAX_MESSAGE_CHARACTERS = 16_384;
/** How long an aborted fio may take to end by itself. */
const ABORT_GRACE_MS = 5_000;

/** Rejects with FioError, or with the reason of the abort. */
export async function runFio(
  jobs: readonly FioJob[],
  { signal, program = "fio" }: FioRunOptions = {},
): Promise<FioResult> {
  const text = jobFile(jobs);
  signal?.throwIfAborted();
  const folder = await mkdtemp(join(tmpdir(), "fio-wrapper-"));
  try {
    const input = join(folder, "jobs.fio");
    const output = join(folder, "result.json");
    await writeFile(input, text);
    const args = [`--output=${output}`, "--output-format=json", input];
    const ending = await execute(program, args, folder, signal);
    signal?.throwIfAborted();
    if (ending.code !== 0) throw failure(ending);
    return check(jobs, parseResult(await readOutput(output)), ending);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

interface Ending {
  code: number | null;
  killedBy: NodeJS.Signals | null;
  messages: string;
}

function execute(
  program: string,
  args: string[],
  cwd: string,
  signal: AbortSignal | undefined,
): Promise<Ending> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, stdio: ["ignore", "ignore", "pipe"] });
    let messages = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      messages = (messages + text).slice(0, MAX_MESSAGE_CHARACTERS);
    });
    const release = killOnAbort(child, signal);
    child.on("error", (cause: NodeJS.ErrnoException) => {
      release();
      const why = cause.code === "ENOENT" ? "it is not installed" : cause.message;
      reject(new FioError("missing", `cannot run ${program}: ${why}`, { cause }));
    });
    child.on("close", (code, killedBy) => {
      release();
      resolve({ code, killedBy, messages });
    });
  });
}

/** fio ends its jobs when it is asked to; one that hangs in the kernel's hands is killed. */
function killOnAbort(child: ChildProcess, signal: AbortSignal | undefined): () => void {
  let grace: NodeJS.Timeout | undefined;
  const abort = (): void => {
    child.kill("SIGTERM");
    grace = setTimeout(() => child.kill("SIGKILL"), ABORT_GRACE_MS);
  };
  signal?.addEventListener("abort", abort, { once: true });
  return () => {
    signal?.removeEventListener("abort", abort);
    clearTimeout(grace);
  };
}

function failure({ code, killedBy, messages }: Ending): FioError {
  const how = killedBy === null ? `exit code ${code}` : `killed by ${killedBy}`;
  // fio says some things twice.
  const lines = [...new Set(messages.split("\n").map((line) => line.trim()))].filter(Boolean);
  return new FioError("failed", [`fio failed (${how})`, ...lines].join("\n  "));
}

async function readOutput(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new FioError("output", "fio wrote no result", { cause });
  }
}

/** One result per job, in the order of the jobs. */
function check(jobs: readonly FioJob[], result: FioResult, ending: Ending): FioResult {
  const names = result.jobs.map((job) => job.name);
  if (names.length === jobs.length && jobs.every((job, index) => job.name === names[index])) {
    return result;
  }
  const detail = ending.messages === "" ? "" : `\n  ${ending.messages.trim()}`;
  throw new FioError("output", `fio gave results of ${names.join(", ") || "no job"}${detail}`);
}
