// What is mounted where, as the kernel says it (proc(5), /proc/self/mountinfo), and mounting
// itself.
import { readFile, realpath } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { RunCommand } from "./command.js";

export interface Mount {
  path: string;
  /** MAJOR:MINOR of the file system's device. */
  number: string;
  /** What of the file system is here: "/" is all of it. */
  root: string;
  fileSystem: string;
  /** /dev/…, for a file system that is on one. */
  source: string;
  readonly: boolean;
}

export function parseMountTable(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    const [, , number, root, path, options] = before.split(" ");
    const [fileSystem, source] = after.split(" ");
    if (number === undefined || root === undefined || path === undefined) continue;
    mounts.push({
      path: unescapeOctal(path),
      number,
      root: unescapeOctal(root),
      fileSystem: fileSystem ?? "",
      source: unescapeOctal(source ?? ""),
      readonly: (options ?? "").split(",").includes("ro"),
    });
  }
  return mounts;
}

export class MountTable {
  readonly #run: RunCommand;
  readonly #path: string;

  constructor(run: RunCommand, path = "/proc/self/mountinfo") {
    this.#run = run;
    this.#path = path;
  }

  async list(): Promise<Mount[]> {
    return parseMountTable(await readFile(this.#path, "utf8"));
  }

  /** The topmost mount at this very path. */
  async at(path: string): Promise<Mount | null> {
    const real = await realPath(path);
    return (await this.list()).filter((mount) => mount.path === real).at(-1) ?? null;
  }

  async mount(options: {
    source: string;
    target: string;
    fileSystem: string;
    flags: string[];
  }): Promise<void> {
    const { source, target, fileSystem, flags } = options;
    const flagArgs = flags.length === 0 ? [] : ["-o", flags.join(",")];
    const args = ["-t", fileSystem, ...flagArgs, "--", source, target];
    await this.#run("mount", args, { hide: secretsOf(flags) });
  }

  /** `source` again at `target`. */
  async bind(source: string, target: string, { readonly }: { readonly: boolean }): Promise<void> {
    if (!readonly) return void (await this.#run("mount", ["--bind", "--", source, target]));
    try {
      // By one program: a driver that dies between two would leave it writable.
      await this.#run("mount", ["-o", "bind,ro", "--", source, target]);
    } catch (error) {
      // Half of it must not be taken for the whole at the next try.
      await this.unmount(target);
      throw error;
    }
  }

  /** Everything that is mounted at this path, one on top of the other. */
  async unmount(path: string): Promise<void> {
    const real = await realPath(path);
    const layers = (await this.list()).filter((mount) => mount.path === real);
    for (const _ of layers) await this.#run("umount", ["--", real]);
  }
}

/** A flag with a value may be a secret of Kubernetes': no message holds it. */
function secretsOf(flags: string[]): string[] {
  return flags.some((flag) => flag.includes("=")) ? [flags.join(","), ...flags] : [];
}

/** The path as the kernel knows it; its last part may be a device that is gone, or absent. */
async function realPath(path: string): Promise<string> {
  try {
    return join(await realpath(dirname(path)), basename(path));
  } catch {
    return path;
  }
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}
