// QEMU's storage daemon as a subject: the same protocol (NBD on a Unix socket), the same kind of
// file, the same client. Its monitor takes snapshots and makes clones, in QMP: a JSON object a line
// each way, events in between.
import { execFileSync } from "node:child_process";
import { rmSync, truncateSync, writeFileSync } from "node:fs";
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

/** A clone of an image that nobody writes to. */
export function cloneQcow2(origin: string, path: string): void {
  const backing = ["-b", origin, "-F", "qcow2"];
  execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", ...backing, path]);
}

export class QemuServer {
  #exports = 0;

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
        ...["--nbd-server", `addr.type=unix,addr.path=${sockets.nbd}`],
        ...["--chardev", `socket,path=${sockets.monitor},server=on,wait=off,id=monitor`],
        ...["--monitor", "chardev=monitor"],
      ],
      // Its monitor takes one connection at a time, and that one is ours.
      sockets: [sockets.nbd],
    });
    return new QemuServer(server, await Monitor.connect(sockets.monitor), sockets);
  }

  uri(name: string): string {
    return `nbd+unix:///${name}?socket=${this.sockets.nbd}`;
  }

  /** Opens an image, around the page cache and with io_uring, and exports it by the name. */
  async serve(name: string, format: QemuFormat, path: string): Promise<void> {
    const file = { driver: "file", filename: path, cache: { direct: true }, aio: "io_uring" };
    await this.monitor.call("blockdev-add", {
      driver: format,
      "node-name": name,
      discard: "unmap",
      file: { ...file, discard: "unmap" },
    });
    this.#exports += 1;
    await this.monitor.call("block-export-add", {
      type: "nbd",
      id: `export${this.#exports}`,
      "node-name": name,
      name,
      writable: true,
    });
  }

  /** What is written to `name` from now on goes to a new file; the old one stays as it is. */
  async snapshot(name: string, path: string): Promise<void> {
    this.#exports += 1;
    await this.monitor.call("blockdev-snapshot-sync", {
      "node-name": name,
      "snapshot-file": path,
      "snapshot-node-name": `snapshot${this.#exports}`,
      format: "qcow2",
    });
  }

  async stop(): Promise<void> {
    this.monitor.close();
    await this.process.stop();
    for (const socket of Object.values(this.sockets)) rmSync(socket, { force: true });
  }
}

class Monitor {
  #waiting: ((answer: Record<string, unknown>) => void) | null = null;
  #rest = "";

  private constructor(private readonly socket: Socket) {
    socket.setEncoding("utf8").on("data", (text: string) => {
      const lines = (this.#rest + text).split("\n");
      this.#rest = lines.pop() ?? "";
      for (const line of lines.filter((each) => each.trim() !== "")) {
        const message = JSON.parse(line) as Record<string, unknown>;
        if ("return" in message || "error" in message) this.#waiting?.(message);
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
  async call(command: string, options: Record<string, unknown>): Promise<void> {
    const answer = await new Promise<Record<string, unknown>>((resolve, reject) => {
      const fail = (why: string): void =>
        reject(new Error(`qemu-storage-daemon: ${command} ${why}`));
      const timer = setTimeout(() => fail("is not answered"), CALL_TIMEOUT_MS);
      const closed = (): void => fail("ended with the connection");
      this.socket.once("close", closed);
      this.#waiting = (message) => {
        clearTimeout(timer);
        this.socket.off("close", closed);
        resolve(message);
      };
      this.socket.write(`${JSON.stringify({ execute: command, arguments: options })}\n`);
    });
    this.#waiting = null;
    if ("error" in answer) {
      throw new Error(`qemu-storage-daemon: ${command}: ${JSON.stringify(answer.error)}`);
    }
  }

  close(): void {
    this.socket.destroy();
  }
}
