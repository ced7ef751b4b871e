// Mounts of its own for a daemon that serves block devices; see nvmf/own-mounts.ts. A file by
// itself, because the program begins anew with it: what was loaded by then is loaded twice.
import { native } from "../native/native.js";
import { takeOwnMounts } from "../nvmf/own-mounts.js";
import type { Environment } from "./base/config.js";
import { PandoError } from "./base/errors.js";

/** This process begins anew with mounts of its own, unless it has them. */
export async function separateMounts(environment: Environment): Promise<void> {
  try {
    await takeOwnMounts({
      calls: native,
      root: "/",
      processId: process.pid,
      marker: environment.ownMounts,
      arguments: [process.execPath, ...process.execArgv, ...process.argv.slice(1)],
    });
  } catch (cause) {
    throw new PandoError(
      "EPERM",
      `a daemon with an address for nvmet needs mounts of its own: ${(cause as Error).message}`,
      { field: "nvmet", hint: "run it as root, or without --nvmet" },
      { cause },
    );
  }
}
