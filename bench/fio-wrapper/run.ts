// Runs fio once: job file, output and logs in a folder of the run, which is gone afterwards,
// whatever happened, unless the caller gave one to keep them in.
//
// The result goes to a file (`--output`): on standard output it would come after whatever fio's
// engines print there. What is left there are the status lines.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { FioError } from "./error.js";
import { type FioJob, jobFile } from "./job.js";
import { type FioProgress, parseProgress } from "./progress.js";
import { type FioResult, parseResult } from "./result.js";
import { parseSamples } from "./samples.js";

export interface FioRunOptions {
  /** Ends fio; the promise is rejected with the signal's reason. */
  signal?: AbortSignal;
  /** The program; default "fio", from the PATH. */
  program?: string;
  /** Where jobs.fio, result.json and logs stay, whatever happens; made if there is none. */
  keepIn?: string;
  /** Called about once a second. */
  onProgress?: (progress: FioProgress) => void;
}

/** What is kept of what fio says. */
const MAX_MESSAGE_CHARACTERS = 16_384;
/** How long an aborted fio may take to end by itself. */
const ABORT_GRACE_MS = 5_000;

/** Rejects with FioError, or with the reason of the abort. */
export async function runFio(
  jobs: readonly FioJob[],
  options: FioRunOptions = {},
): Promise<FioResult> {
  const { signal, program = "fio", keepIn } = options;
  const text = jobFile(jobs);
  signal?.throwIfAborted();
  const folder = await makeFolder(keepIn);
  try {
    const input = join(folder, "jobs.fio");
    const output = join(folder, "result.json");
    // What an earlier run left must not pass for this one's.
    await rm(output, { force: true });
    await writeFile(input, text);
    const args = [`--output=${output}`, "--output-format=json", ...statusArgs(options), input];
    const ending = await execute(program, args, folder, options);
    signal?.throwIfAborted();
    if (ending.code !== 0) throw failure(ending);
    const result = check(jobs, parseResult(await readOutput(output)), ending);
    return await withSamples(jobs, result, folder);
  } finally {
    if (keepIn === undefined) await rm(folder, { recursive: true, force: true });
  }
}

async function makeFolder(keepIn: string | undefined): Promise<string> {
  if (keepIn === undefined) return mkdtemp(join(tmpdir(), "fio-wrapper-"));
  try {
    await mkdir(keepIn, { recursive: true });
  } catch (cause) {
    throw new FioError("options", `keepIn: ${keepIn} cannot be made`, { cause });
  }
  return resolve(keepIn);
}

function statusArgs({ onProgress }: FioRunOptions): string[] {
  return onProgress === undefined ? ["--eta=never"] : ["--eta=always"];
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
  { signal, onProgress }: FioRunOptions,
): Promise<Ending> {
  return new Promise((resolve, reject) => {
    const wants = onProgress === undefined ? "ignore" : "pipe";
    const child = spawn(program, args, { cwd, stdio: ["ignore", wants, "pipe"] });
    let messages = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      messages = (messages + text).slice(0, MAX_MESSAGE_CHARACTERS);
    });
    if (onProgress !== undefined) reportProgress(child, onProgress);
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

/** Status lines end with a carriage return. */
function reportProgress(child: ChildProcess, onProgress: (progress: FioProgress) => void): void {
  let rest = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    const lines = (rest + text).split(/[\r\n]/);
    rest = (lines.pop() ?? "").slice(0, MAX_MESSAGE_CHARACTERS);
    for (const line of lines) {
      const progress = parseProgress(line);
      if (progress !== null) onProgress(progress);
    }
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

async function withSamples(
  jobs: readonly FioJob[],
  result: FioResult,
  folder: string,
): Promise<FioResult> {
  for (const [index, { name, sampleEveryMs }] of jobs.entries()) {
    const job = result.jobs[index];
    if (sampleEveryMs === undefined || job === undefined) continue;
    const iops = await readOutput(join(folder, `${name}_iops.log`));
    const latency = await readOutput(join(folder, `${name}_lat.log`));
    job.samples = parseSamples({ iops, latency }, sampleEveryMs);
  }
  return result;
}
