// Programs of the system: the one place that runs them, without a shell and for a bounded time.
// Tests pass in another one.
import { execFile } from "node:child_process";
import { PandoError } from "../engine/base/errors.js";

export interface CommandOptions {
  timeoutMs?: number;
  /** Exit codes that are answers; else only 0 is. */
  accept?: number[];
  /** Arguments that no message may hold. */
  hide?: string[];
}

export interface CommandResult {
  code: number;
  stdout: string;
}

export type RunCommand = (
  program: string,
  args: string[],
  options?: CommandOptions,
) => Promise<CommandResult>;

const TIMEOUT_MS = 60_000;
const MAX_OUTPUT_BYTES = 1024 * 1024;
const MAX_SAID_CHARACTERS = 300;
const HIDDEN = "…";

export const runCommand: RunCommand = (program, args, options = {}) => {
  const { timeoutMs = TIMEOUT_MS, accept = [0], hide = [] } = options;
  const hidden = (text: string) =>
    hide.reduce((left, secret) => left.replaceAll(secret, HIDDEN), text);
  const what = hidden([program, ...args].join(" "));
  return new Promise((resolve, reject) => {
    // LC_ALL: what is read of the output is English.
    const env = {
      PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      LC_ALL: "C",
    };
    const child = execFile(
      program,
      args,
      { env, maxBuffer: MAX_OUTPUT_BYTES },
      (error, stdout, stderr) => {
        clearTimeout(timer);
        const code = error === null ? 0 : error.code;
        if (typeof code === "number" && accept.includes(code)) return resolve({ code, stdout });
        const said = hidden(`${stderr}${stdout}`)
          .trim()
          .replace(/\s+/g, " ")
          .slice(0, MAX_SAID_CHARACTERS);
        const why = code === "ENOENT" ? "it is not installed" : said || `it ended with ${code}`;
        // Node's own error has the whole command line.
        const cause = hide.length === 0 ? error : undefined;
        reject(new PandoError("EIO", `${what}: ${why}`, {}, { cause }));
      },
    );
    // One that waits for a device in the kernel does not die of the signal: it is not waited for.
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      reject(new PandoError("EIO", `${what}: not done in ${timeoutMs} ms`));
    }, timeoutMs);
  });
};
