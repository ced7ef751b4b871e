// Visible skips. A test that cannot run here says what it needs; the runner counts it, shows the
// reason, and on CI accepts it only if test/allowed-skips.json lists it.
//
//   const missing = needsCommands("qemu-system-x86_64", "fio");
//   if (missing !== null) skip(missing);                            // the whole file
//   testUnless(missing, test)("boots a kernel", async () => { … }); // one test
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import type { Callback, Test } from "uvu";

/** Ends this process: none of the file's tests can run. Call it before the first test runs. */
export function skip(reason: string): never {
  console.log(`skip: ${reason}`);
  process.exit(0);
}

/** `test`, or, if there is a reason, something that skips the test that it is given. */
export function testUnless<T>(
  reason: string | null,
  test: Test<T>,
): (name: string, body: Callback<T>) => void {
  if (reason === null) return (name, body) => test(name, body);
  return (name) => {
    console.log(`skip: ${reason} (test "${name}")`);
    test.skip(name);
  };
}

/** Null if all of these are on the PATH, else the reason to skip. */
export function needsCommands(...names: string[]): string | null {
  // Debian keeps administration tools out of an ordinary user's PATH.
  const places = [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin", "/sbin"];
  const missing = names.filter((name) => !places.some((place) => isExecutable(join(place, name))));
  return missing.length === 0 ? null : `needs ${missing.join(", ")}`;
}

export function needsRoot(): string | null {
  return process.getuid?.() === 0 ? null : "needs root";
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
