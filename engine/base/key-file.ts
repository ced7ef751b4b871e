// A secret comes from a file, never from the command line, where every user of the machine could
// read it; and the file is not for everybody either.
import { readFileSync, statSync } from "node:fs";
import { PandoError } from "./errors.js";

/** Readable for the group, or for all. */
const OTHERS_MAY_READ = 0o044;
const MAX_KEY_FILE_BYTES = 1024;

/**
 * Its text, which `parse` has to take; an error names the file and `field`, never what is in it.
 */
export function readKeyFile(
  path: string,
  field: string,
  parse: (text: string, field: string) => unknown,
): string {
  let text: string;
  try {
    const { mode, size } = statSync(path);
    if ((mode & OTHERS_MAY_READ) !== 0) {
      throw new PandoError("EPERM", `${path} is readable for others`, {
        path,
        field,
        hint: `chmod 600 ${path}`,
      });
    }
    text = size > MAX_KEY_FILE_BYTES ? "" : readFileSync(path, "utf8").trim();
  } catch (cause) {
    if (cause instanceof PandoError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PandoError("EINVAL", `cannot read the ${field}: ${why}`, { path, field }, { cause });
  }
  parse(text, field);
  return text;
}
