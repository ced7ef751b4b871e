// The socket that kubelet and the sidecars reach the driver by. A driver that was killed leaves its
// own behind: what is no socket is never removed.
import { lstatSync, mkdirSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { PandoError } from "../engine/base/errors.js";

/** Makes `path` free to bind; what it gives removes the socket. */
export function prepareCsiSocket(path: string): () => void {
  mkdirSync(dirname(path), { recursive: true });
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats !== undefined && !stats.isSocket()) {
    throw new PandoError("EEXIST", `${path} is there already and is not a socket`, {
      path,
      hint: "choose another place with --endpoint",
    });
  }
  rmSync(path, { force: true });
  return () => rmSync(path, { force: true });
}
