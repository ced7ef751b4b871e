// QEMU's storage daemon as a subject: the same protocol (NBD on a Unix socket), the same kind of
// file, the same client. Its monitor takes snapshots and makes clones, in QMP: a JSON object a line
// each way, events in between.
import { execFileSync } from "node:child_process";
import { truncateSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ServerProcess } from "./server-process.js";

export type QemuFormat = "raw" | "qcow2";

const CALL_TIMEOUT_MS = 60_000;

let servers = 0;

/** A file of its full size, to be written in full before anything is measured. */
export function makeRaw(path: string, sizeBytes: number): void {
  writeFileSync(path, "");
  truncateSync(path, sizeBytes);
}

export function makeQcow2(path: string, sizeBytes: number): void {
  execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", path, `${sizeBytes}`]);
}

export class QemuServer {
  #jobs = 0;

  private constructor(
    readonly process: ServerProcess,
    private readonly monitor: Monitor,
    private readonly sockets: { nbd: string; monitor: string },
  ) {}

  static async start(): Promise<QemuServer> {
    servers += 1;
    const base = join(tmpdir(), `pando-bench-${process.pid}-qemu-${servers}`);
    const sockets = { nbd: `${base}.nbd`, monitor: `${base}.qmp` };
    const server = await ServerProcess.start({
      name: "qemu-storage-daemon",
      command: "qemu-storage-daemon",
      args: [
        ...["--chardev", `socket,path=${sockets.monitor},server=on,wait=off,id=monitor`],
        ...["--monitor", "chardev=monitor"],
        ...["--nbd-server", `addr.type=unix,addr.path=${sockets.nbd}`],
      ],
      sockets: [sockets.nbd],
      // It takes one connection at a time, and that one is ours. The daemon goes by the order of
      // its options, so the monitor listens when NBD does.
      others: [sockets.monitor],
    });
    return new QemuServer(server, await Monitor.connect(sockets.monitor), sockets);
  }

  uri(name: string): string {
    return `nbd+unix:///${name}?socket=${this.sockets.nbd}`;
  }

  nothing(): Promise<void> {
    return this.monitor.call("query-version", {});
  }

  /** Opens an image, around the page cache and with io_uring, and exports it by the name. */
  async serve(name: string, format: QemuFormat, path: string, backing?: string): Promise<void> {
    const below = backing === undefined ? {} : { backing: image("qcow2", backing) };
    const options = { ...image(format, path), "node-name": name, ...below };
    await this.monitor.call("blockdev-add", { ...options, discard: "unmap" });
    await this.monitor.call("block-export-add", {
      type: "nbd",
      id: `export-${name}`,
      "node-name": name,
      name,
      writable: true,
    });
  }

  /** What serve() gave is let go, once its clients have gone; the file stays. */
  async withdraw(name: string): Promise<void> {
    const gone = this.monitor.event("BLOCK_EXPORT_DELETED");
    await this.monitor.call("block-export-del", { id: `export-${name}`, mode: "hard" });
    await gone;
    await this.monitor.call("blockdev-del", { "node-name": name });
  }

  /** What is written to `node` from now on goes to a new file; the old one stays as it is. */
  async snapshot(node: string, snapshotNode: string, path: string): Promise<void> {
    await this.monitor.call("blockdev-snapshot-sync", {
      "node-name": node,
      "snapshot-file": path,
      "snapshot-node-name": snapshotNode,
      format: "qcow2",
    });
  }

  /** A qcow2 image that differs in nothing yet from `backing`, to which nobody may write. */
  async makeOverlay(path: string, backing: string, sizeBytes: number): Promise<void> {
    await this.#job("blockdev-create", { driver: "file", filename: path, size: 0 });
    await this.monitor.call("blockdev-add", { ...file(path), "node-name": "new-file" });
    await this.#job("blockdev-create", {
      driver: "qcow2",
      file: "new-file",
      size: sizeBytes,
      "backing-file": backing,
      "backing-fmt": "qcow2",
    });
    await this.monitor.call("blockdev-del", { "node-name": "new-file" });
  }

  async #job(command: string, options: Record<string, unknown>): Promise<void> {
    this.#jobs += 1;
    const id = `job${this.#jobs}`;
    const concluded = this.monitor.event("JOB_STATUS_CHANGE", { id, status: "concluded" });
    await this.monitor.call(command, { "job-id": id, options });
    await concluded;
    await this.monitor.call("job-dismiss", { id });
  }

  async stop(): Promise<void> {
    this.monitor.close();
    await this.process.stop();
  }
}

function image(format: QemuFormat, path: string): Record<string, unknown> {
  return { driver: format, file: { ...file(path), discard: "unmap" } };
}

function file(path: string): Record<string, unknown> {
  return { driver: "file", filename: path, cache: { direct: true }, aio: "io_uring" };
}

type Message = Record<string, unknown>;

class Monitor {
  readonly #listeners = new Set<(message: Message) => boolean>();
  #rest = "";

  private constructor(private readonly socket: Socket) {
    socket.setEncoding("utf8").on("data", (text: string) => {
      const lines = (this.#rest + text).split("\n");
      this.#rest = lines.pop() ?? "";
      for (const line of lines.filter((each) => each.trim() !== "")) {
        const message = JSON.parse(line) as Message;
        for (const listener of this.#listeners) {
          if (listener(message)) this.#listeners.delete(listener);
        }
      }
    });
    socket.on("error", () => socket.destroy());
  }

  static async connect(path: string): Promise<Monitor> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    const monitor = new Monitor(socket);
    await monitor.call("qmp_capabilities", {});
    return monitor;
  }

  /** One at a time. */
  async call(command: string, options: Message): Promise<void> {
    const answer = this.#next(command, (message) => "return" in message || "error" in message);
    this.socket.write(`${JSON.stringify({ execute: command, arguments: options })}\n`);
    const { error } = await answer;
    if (error === undefined) return;
    throw new Error(`qemu-storage-daemon: ${command}: ${JSON.stringify(error)}`);
  }

  /** The next event of that name whose data has these values. */
  async event(name: string, data: Message = {}): Promise<void> {
    await this.#next(name, (message) => {
      const told = (message.data ?? {}) as Message;
      const wanted = Object.entries(data);
      return message.event === name && wanted.every(([key, value]) => told[key] === value);
    });
  }

  close(): void {
    this.socket.destroy();
  }

  #next(what: string, fits: (message: Message) => boolean): Promise<Message> {
    return new Promise((resolve, reject) => {
      const listener = (message: Message): boolean => {
        if (!fits(message)) return false;
        settle(() => resolve(message));
        return true;
      };
      const fail = (why: string): void => {
        settle(() => reject(new Error(`qemu-storage-daemon: ${what} ${why}`)));
      };
      const timer = setTimeout(() => fail("is not answered"), CALL_TIMEOUT_MS);
      const closed = (): void => fail("ended with the connection");
      const settle = (end: () => void): void => {
        clearTimeout(timer);
        this.socket.off("close", closed);
        this.#listeners.delete(listener);
        end();
      };
      this.socket.once("close", closed);
      this.#listeners.add(listener);
    });
  }
}
