// What the harness takes from the machine it runs on: external programs, the cache directory, the
// repository's own folder.
//
// Programs are looked for in the administrator's directories too, since an ordinary user's PATH on
// Debian has no /sbin.
import { execFile } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** The tests run from dist/test/system/vm; shell files stay where they were written. */
export const repositoryRoot = resolve(fileURLToPath(new URL("../../../../", import.meta.url)));
export const vmSourceDir = join(repositoryRoot, "test/system/vm");

const searchPath = [...(process.env.PATH ?? "").split(":"), "/usr/sbin", "/sbin"];
const programEnv = { ...process.env, PATH: searchPath.join(":"), LC_ALL: "C" };
const execFilePromise = promisify(execFile);

/** Outside the repository, so that a fresh clone does not fetch the kernels again. */
export function vmCacheDir(): string {
  return (
    process.env.PANDO_VM_CACHE ??
    join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "pando-vm")
  );
}

/** The path of a program, which may be given by its path. */
export function findProgram(name: string): string | null {
  for (const dir of isAbsolute(name) ? [""] : searchPath) {
    const path = join(dir, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not in this directory: look in the next.
    }
  }
  return null;
}

/** Standard output of a program; rejects with its last line of complaint. */
export async function runProgram(
  name: string,
  args: string[],
  options: { cwd?: string; timeoutMs?: number } = {},
): Promise<string> {
  try {
    const { stdout } = await execFilePromise(name, args, {
      cwd: options.cwd,
      env: programEnv,
      timeout: options.timeoutMs ?? 60_000,
      killSignal: "SIGKILL",
      maxBuffer: 64 * 1024 * 1024,
    });
    return stdout;
  } catch (error) {
    const { stderr = "", message } = error as Error & { stderr?: string };
    const complaint = stderr.trim().split("\n").at(-1) || message;
    throw new Error(`${name}: ${complaint}`, { cause: error });
  }
}
