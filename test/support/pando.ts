// Runs `pando` as its users do, as a process of its own, and starts daemons that are stopped at the
// end.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as assert from "uvu/assert";

export interface CommandResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface DaemonProcess {
  readonly pid: number;
  /** What it has logged so far. */
  log(): string;
  /** Resolves with the exit code, or the signal's name. */
  stop(signal?: NodeJS.Signals): Promise<number | string>;
}

const START_TIMEOUT_MS = 30_000;
/** Among them daemons that have to refuse to start: one that starts after all must end too. */
const COMMAND_TIMEOUT_MS = 30_000;
/** Node's arguments with which what nobody closed is seen in what a command prints. */
const COLLECTING = [
  ...["--expose-gc", "--import"],
  new URL("./collect-garbage.js", import.meta.url).href,
];
const daemons = new Set<ChildProcess>();
process.once("exit", killDaemons);

/** For `after`: ends what a test that failed has left running. */
export function killDaemons(): void {
  for (const child of daemons) child.kill("SIGKILL");
}

/** The real command, or the one with an engine that has no pool behind it. */
export function pandoCommand(which: "real" | "fake"): string {
  const real = new URL("../../engine/cli/main.js", import.meta.url);
  const fake = new URL("./fake-pando.js", import.meta.url);
  return fileURLToPath(which === "real" ? real : fake);
}

export function runPando(
  command: string,
  args: string[],
  environment: Record<string, string> = {},
): Promise<CommandResult> {
  const child = start(COLLECTING, [command, ...args], environment);
  const output = collect(child);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => child.kill("SIGKILL"), COMMAND_TIMEOUT_MS);
    child.once("error", reject);
    child.once("close", (code) => {
      clearTimeout(timer);
      resolve({ code, stdout: output.stdout(), stderr: output.stderr() });
    });
  });
}

/** Resolves when the daemon says that it serves; rejects with its log if it ends before. */
export function startPandoDaemon(
  command: string,
  args: string[],
  environment: Record<string, string> = {},
): Promise<DaemonProcess> {
  const child = start([], [command, "daemon", ...args], environment);
  // One that a failed test has left behind would keep the test's process from ending.
  daemons.add(child);
  child.once("exit", () => daemons.delete(child));
  const output = collect(child);
  const ended = new Promise<number | string>((resolve) => {
    child.once("close", (code, signal) => resolve(code ?? signal ?? "unknown"));
  });
  return new Promise((resolve, reject) => {
    const fail = (why: string) => {
      child.kill("SIGKILL");
      reject(new Error(`the daemon ${why}:\n${output.stderr()}`));
    };
    const timer = setTimeout(() => fail("does not serve in time"), START_TIMEOUT_MS);
    ended.then((how) => fail(`ended with ${how}`));
    child.stderr?.on("data", () => {
      if (!output.stderr().includes('"msg":"serving"')) return;
      clearTimeout(timer);
      resolve({
        pid: child.pid ?? 0,
        log: output.stderr,
        stop(signal = "SIGTERM") {
          child.kill(signal);
          return ended;
        },
      });
    });
  });
}

/** That a command refused with one line, and at most one more that helps. Returns what it said. */
export function failed(result: CommandResult, code: 1 | 2, message: RegExp): string {
  const [first = "", ...more] = result.stderr.trimEnd().split("\n");
  assert.match(first, message);
  assert.match(first, /^error: /);
  assert.ok(more.length <= 1, result.stderr);
  if (more[0] !== undefined) assert.match(more[0], /^ {2}try: /);
  assert.is(result.stdout, "");
  assert.is(result.code, code);
  return result.stderr;
}

/** That nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (typeof address !== "object" || address === null) throw new Error("no port");
  return address.port;
}

/** A folder of its own, with a path short enough for sockets, and what removes it. */
export function temporaryFolder(): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), "pando-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

function start(
  node: readonly string[],
  args: readonly string[],
  environment: Record<string, string>,
): ChildProcess {
  // Nothing of the developer's own configuration may reach a test.
  const { PATH = "", HOME = "/" } = process.env;
  const env: Record<string, string> = { PATH, HOME };
  // A sanitized addon (scripts/test-addon.mjs) needs its runtime in every process.
  for (const name of ["TMPDIR", "LD_PRELOAD", "ASAN_OPTIONS"]) {
    const value = process.env[name];
    if (value !== undefined) env[name] = value;
  }
  Object.assign(env, environment);
  const all = [...node, ...args];
  return spawn(process.execPath, all, { env, stdio: ["ignore", "pipe", "pipe"] });
}

function collect(child: ChildProcess): { stdout(): string; stderr(): string } {
  let stdout = "";
  let stderr = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  return { stdout: () => stdout, stderr: () => stderr };
}
