// Tells systemd how the daemon is (sd_notify(3)). The message is a datagram on a Unix socket, which
// Node cannot send; systemd-notify can. The unit needs NotifyAccess=all, because the message comes
// from a child. Without systemd nothing is run.
import { spawn } from "node:child_process";
import type { Log } from "../base/log.js";

export type Notify = (state: "READY=1" | "STOPPING=1") => Promise<void>;

const TIMEOUT_MS = 5000;

export function makeNotify(notifySocket: string | undefined, log: Log): Notify {
  if (notifySocket === undefined) return async () => {};
  return (state) =>
    new Promise((resolve) => {
      const child = spawn("systemd-notify", [state], { stdio: "ignore", timeout: TIMEOUT_MS });
      child.once("error", (error) => {
        log.warn({ err: error, state }, "systemd was not told: systemd-notify does not run");
        resolve();
      });
      child.once("exit", (code) => {
        if (code !== 0 && code !== null) log.warn({ code, state }, "systemd-notify failed");
        resolve();
      });
    });
}
