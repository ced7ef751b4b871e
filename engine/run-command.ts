// Programs of the system that the engine runs: without a shell, with words of its own, for a
// bounded time.
import { execFile } from "node:child_process";
import { PandoError } from "./base/errors.js";

const TIMEOUT_MS = 120_000;
const MAX_SAID_CHARACTERS = 300;
const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Its exit code, if it is one of `accept`, and what it said. */
export function runCommand(
  program: string,
  args: string[],
  accept: readonly number[] = [0],
): Promise<{ code: number; stdout: string }> {
  return new Promise((resolve, reject) => {
    // LC_ALL: what is read of the output is English.
    const options = { env: { PATH, LC_ALL: "C" }, timeout: TIMEOUT_MS };
    execFile(program, args, options, (error, stdout, stderr) => {
      const code = error === null ? 0 : error.code;
      if (typeof code === "number" && accept.includes(code)) return resolve({ code, stdout });
      const said = `${stderr}${stdout}`.trim().replace(/\s+/g, " ").slice(0, MAX_SAID_CHARACTERS);
      const why = String(code) === "ENOENT" ? "it is not installed" : said || `ended with ${code}`;
      const what = [program, ...args].join(" ");
      reject(new PandoError("EIO", `${what}: ${why}`, {}, { cause: error }));
    });
  });
}
