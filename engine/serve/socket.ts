// A Unix socket that only its owner can use: its folder made with mode 0700, the socket with 0600,
// and what a daemon that was killed left behind cleared away, but never the socket of one that
// still answers.
import { chmodSync, lstatSync, mkdirSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { dirname } from "node:path";
import { PandoError } from "../base/errors.js";

const SOCKET_UMASK = 0o177;

/** Makes `path` free to bind. EBUSY if somebody answers there. */
export async function prepareSocket(path: string): Promise<void> {
  const folder = dirname(path);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new PandoError(
      "EPERM",
      `cannot make the folder ${folder} for the socket`,
      { path, hint: "choose another place with --socket, or make that folder" },
      { cause },
    );
  }
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return;
  if (!stats.isSocket()) {
    throw new PandoError("EEXIST", `${path} is there already and is not a socket`, {
      path,
      hint: "choose another place with --socket",
    });
  }
  if (await answers(path)) {
    throw new PandoError("EBUSY", `another daemon answers on ${path}`, {
      path,
      hint: "stop it, or give this one its own --socket",
    });
  }
  rmSync(path, { force: true });
}

/** Runs `bind` so that the socket is never, not for a moment, open to others. */
export async function bindPrivately(path: string, bind: () => Promise<void>): Promise<void> {
  const before = process.umask(SOCKET_UMASK);
  try {
    await bind();
  } finally {
    process.umask(before);
  }
  chmodSync(path, 0o600);
}

export function removeSocket(path: string): void {
  rmSync(path, { force: true });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    // Refused: nobody has it bound. Anything else (no permission, a full backlog) means that
    // somebody does.
    socket.once("error", (error: NodeJS.ErrnoException) => {
      resolve(error.code !== "ECONNREFUSED" && error.code !== "ENOENT");
    });
  });
}
