// Runs a command of `pando` in this process: what it prints and how it ends are the same as in one
// of its own, without the half second that Node needs to load it.
import { run } from "../../engine/cli/cli.js";
import type { LoadEngine } from "../../engine/cli/context.js";
import type { CommandResult } from "./pando.js";

/** One at a time: output and environment are the process'. */
let before: Promise<unknown> = Promise.resolve();

/** With this environment, and nothing of the process' own but its search path and home. */
export function runPandoHere(
  loadEngine: LoadEngine,
  args: string[],
  environment: Record<string, string> = {},
): Promise<CommandResult> {
  const result = before.then(() => runNow(loadEngine, args, environment));
  before = result.catch(() => undefined);
  return result;
}

async function runNow(
  loadEngine: LoadEngine,
  args: string[],
  environment: Record<string, string>,
): Promise<CommandResult> {
  const { env, stdout, stderr } = process;
  const writers = { stdout: stdout.write, stderr: stderr.write };
  const printed = { stdout: "", stderr: "" };
  const keep = (name: "stdout" | "stderr") => (text: string | Uint8Array) => {
    printed[name] += text.toString();
    return true;
  };
  const { PATH = "", HOME = "/" } = env;
  process.env = { PATH, HOME, ...environment };
  stdout.write = keep("stdout");
  stderr.write = keep("stderr");
  try {
    return { code: await run(args, loadEngine), ...printed };
  } finally {
    process.env = env;
    stdout.write = writers.stdout;
    stderr.write = writers.stderr;
  }
}
