// The library that lets one call of a process fail (native/test/fail_nth_call.cc), compiled where
// it is needed: it is loaded into programs that know nothing of it.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { assert } from "../../engine/base/assert.js";

const SOURCE = new URL("../../../native/test/fail_nth_call.cc", import.meta.url);

/** Into `folder`. Returns the environment of a process whose call fails; `call` as it reads it. */
export function failingCalls(folder: string): (call: string) => Record<string, string> {
  const library = join(folder, "fail-nth-call.so");
  const flags = ["-std=c++20", "-O1", "-shared", "-fPIC", fileURLToPath(SOURCE), "-o", library];
  const { status, stderr } = spawnSync("c++", flags, { encoding: "utf8" });
  assert(status === 0, stderr);
  return (call) => ({ LD_PRELOAD: library, PANDO_FAIL_CALL: call });
}

/**
 * What such a process says about its calls: how many there were, by kind, if it ended by itself.
 */
export function callsIn(log: string): Map<string, number> {
  const lines = log.matchAll(/^calls: ([\w-]+) (\d+)$/gm);
  return new Map([...lines].map(([, name = "", count]) => [name, Number(count)]));
}

/** Whether the call that was to fail was made. */
export function hasFailed(log: string): boolean {
  return /^fails: /m.test(log);
}
