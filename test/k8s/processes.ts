// The programs of a cluster, as processes of this one: each with a log of its own, all ended with
// it.
import { type ChildProcess, spawn } from "node:child_process";
import { createWriteStream, mkdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { repositoryRoot } from "../system/vm/host.js";

export interface Running {
  /** All that it has said. */
  log(): string;
  stop(): Promise<void>;
}

const LOGS = join(repositoryRoot, "test-output");
const TAIL_CHARACTERS = 3000;
const STOP_TIMEOUT_MS = 10_000;
const running = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

export function startProcess(program: string, args: string[], name = basename(program)): Running {
  mkdirSync(LOGS, { recursive: true });
  const path = join(LOGS, `k8s-${name}.log`);
  const file = createWriteStream(path);
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: environment() });
  running.add(child);
  child.stdout?.pipe(file, { end: false });
  child.stderr?.pipe(file, { end: false });
  let asked = false;
  const ended = new Promise<void>((resolve) => {
    child.once("error", (error) => console.log(`${name}: ${error.message}`));
    child.once("close", (code, signal) => {
      running.delete(child);
      file.end();
      if (!asked) console.log(`${name} ended with ${signal ?? code}: ${tail(path)}`);
      resolve();
    });
  });
  return {
    log: () => readFileSync(path, "utf8"),
    async stop() {
      asked = true;
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
      await ended;
      clearTimeout(timer);
    },
  };
}

/** Nothing of the developer's own cluster. */
function environment(): Record<string, string> {
  const { PATH = "", TMPDIR } = process.env;
  return { PATH, HOME: "/", ...(TMPDIR !== undefined && { TMPDIR }) };
}

function tail(path: string): string {
  return readFileSync(path, "utf8").slice(-TAIL_CHARACTERS).trim();
}
