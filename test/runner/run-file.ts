// Runs one test file in a process group of its own, with an empty temporary directory, and ends the
// whole group: neither a hang nor a daemon left behind outlives its file.
import { spawn } from "node:child_process";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestFile } from "./discover.js";
import { type Ending, judgeNative, judgeUvu, type Outcome } from "./outcome.js";

export interface FileResult extends Outcome {
  name: string;
  output: string;
  elapsedMs: number;
}

const MAX_OUTPUT_BYTES = 16 * 1024 * 1024;
const running = new Set<number>();

export async function runFile(file: TestFile): Promise<FileResult> {
  const started = performance.now();
  const ending = await runProcess(file);
  const outcome = file.language === "native" ? judgeNative(ending) : judgeUvu(ending);
  const elapsedMs = performance.now() - started;
  return { ...outcome, name: file.name, output: ending.output, elapsedMs };
}

/** Children are in groups of their own, so Ctrl-C does not reach them. */
export function killAll(): void {
  for (const pid of running) killGroup(pid);
}

async function runProcess(file: TestFile): Promise<Ending> {
  const directory = await mkdtemp(join(tmpdir(), "pando-"));
  await chmod(directory, 0o711); // who is not root in a test passes through it
  const { FORCE_COLOR: _, ...inherited } = process.env;
  const child = spawn(file.command, file.args, {
    cwd: file.root,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...inherited,
      NO_COLOR: "1",
      TMPDIR: directory,
      UBSAN_OPTIONS: "print_stacktrace=1",
      TSAN_OPTIONS: "halt_on_error=1",
    },
  });
  const { pid } = child;
  if (pid !== undefined) running.add(pid);
  const chunks: Buffer[] = [];
  let size = 0;
  let timedOut = false;
  const collect = (chunk: Buffer): void => {
    size += chunk.length;
    if (size <= MAX_OUTPUT_BYTES) chunks.push(chunk);
  };
  child.stdout.on("data", collect);
  child.stderr.on("data", collect);
  const timer = setTimeout(() => {
    timedOut = true;
    if (pid !== undefined) killGroup(pid);
  }, file.timeoutMs);

  const { exitCode, signal } = await new Promise<Pick<Ending, "exitCode" | "signal">>((resolve) => {
    child.on("error", (error) => {
      chunks.push(Buffer.from(`${error.message}\n`));
      resolve({ exitCode: 127, signal: null });
    });
    child.on("exit", (code, signal) => {
      // Whatever the file left behind may hold the pipes open: end it now, or "close" never comes.
      if (pid !== undefined) killGroup(pid);
      child.on("close", () => resolve({ exitCode: code, signal }));
    });
  });
  clearTimeout(timer);
  if (pid !== undefined) running.delete(pid);
  await rm(directory, { recursive: true, force: true });
  return { output: Buffer.concat(chunks).toString("utf8"), exitCode, signal, timedOut };
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // No such group: everything in it has ended by itself.
  }
}
