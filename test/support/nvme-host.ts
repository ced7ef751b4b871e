// A small NVMe/TCP host, for tests with more hosts than a kernel or a machine has: one object is
// one controller with one I/O queue. What it writes fits into a capsule, and it uses no digests:
// the C++ tests are for the protocol, this is for the daemon behind it.
//
// NVMe TCP Transport 1.0, section 3.6, and NVMe Base 2.0, section 3.3. Integers are little-endian.
import { connect, type Socket } from "node:net";

/** Of one write: what the target takes inside a capsule. */
export const MAX_WRITE_BYTES = 16 * 1024;

const BLOCK_BYTES = 4096;
const IC_REQ = 0x00;
const CAPSULE_CMD = 0x04;
const CAPSULE_RESP = 0x05;
const C2H_DATA = 0x07;
const IC_BYTES = 128;
const HEADER_BYTES = 8;
const CAPSULE_BYTES = 72;
const FLAG_SUCCESS = 1 << 3;
const SGL_IN_CAPSULE = 0x01;
const SGL_TRANSPORT = 0x5a;

const FABRICS = 0x7f;
const FABRICS_CONNECT = 0x01;
const FABRICS_PROPERTY_SET = 0x00;
const CONTROLLER_CONFIGURATION = 0x14;
/** CC: enabled, 64-byte commands, 16-byte completions. */
const ENABLE = 1 | (6 << 16) | (4 << 20);
const KEEP_ALIVE = 0x18;
const FLUSH = 0x00;
const WRITE = 0x01;
const READ = 0x02;
const ANY_CONTROLLER = 0xffff;
const QUEUE_ENTRIES = 32;

export interface HostOptions {
  port: number;
  subsystemNqn: string;
  hostNqn: string;
  /** The target gives the host up when it is silent for longer; never, without one. */
  keepAliveMs?: number;
}

interface Command {
  opcode: number;
  /** The namespace, or a fabrics command's type. */
  nsid: number;
  /** From command dword 10 on. */
  dwords?: number[];
  write?: Buffer;
  readBytes?: number;
}

interface Answer {
  data: Buffer;
  result: number;
}

export class NvmeHost {
  readonly #admin: Queue;
  readonly #io: Queue;

  private constructor(admin: Queue, io: Queue) {
    this.#admin = admin;
    this.#io = io;
  }

  /** Rejects if the target refuses, or the connection ends. */
  static async attach(options: HostOptions): Promise<NvmeHost> {
    const queues: Queue[] = [];
    const open = async (id: number, controller: number): Promise<[Queue, number]> => {
      const queue = await Queue.open(options.port);
      queues.push(queue);
      return [queue, await queue.connect(options, id, controller)];
    };
    try {
      const [admin, controller] = await open(0, ANY_CONTROLLER);
      const dwords = [0, CONTROLLER_CONFIGURATION, ENABLE];
      await admin.run({ opcode: FABRICS, nsid: FABRICS_PROPERTY_SET, dwords });
      const [io] = await open(1, controller);
      return new NvmeHost(admin, io);
    } catch (error) {
      for (const queue of queues) queue.close();
      throw error;
    }
  }

  async write(offsetBytes: number, data: Buffer): Promise<void> {
    const dwords = range(offsetBytes, data.length);
    await this.#io.run({ opcode: WRITE, nsid: 1, dwords, write: data });
  }

  async read(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    const dwords = range(offsetBytes, lengthBytes);
    return (await this.#io.run({ opcode: READ, nsid: 1, dwords, readBytes: lengthBytes })).data;
  }

  async flush(): Promise<void> {
    await this.#io.run({ opcode: FLUSH, nsid: 1 });
  }

  async keepAlive(): Promise<void> {
    await this.#admin.run({ opcode: KEEP_ALIVE, nsid: 0 });
  }

  close(): void {
    this.#io.close();
    this.#admin.close();
  }
}

interface Waiting {
  data: Buffer[];
  resolve(answer: Answer): void;
  reject(error: Error): void;
}

class Queue {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  #received = Buffer.alloc(0);
  #initialized: (() => void) | null = null;
  #error: Error | null = null;
  #cid = 0;
  #fail: (error: Error) => void = () => {};

  private constructor(port: number) {
    this.#socket = connect({ port, host: "127.0.0.1", noDelay: true });
    this.#socket.on("data", (chunk) => this.#take(chunk));
    this.#socket.on("error", (error) => this.#end(error));
    this.#socket.on("close", () => this.#end(new Error("the target closed the connection")));
  }

  static open(port: number): Promise<Queue> {
    return new Promise((resolve, reject) => {
      const queue = new Queue(port);
      queue.#fail = reject;
      queue.#initialized = () => resolve(queue);
      const request = Buffer.alloc(IC_BYTES);
      request.writeUInt8(IC_REQ, 0);
      request.writeUInt8(IC_BYTES, 2);
      request.writeUInt32LE(IC_BYTES, 4);
      queue.#socket.write(request);
    });
  }

  /** The id of the controller that the queue belongs to. */
  async connect(options: HostOptions, id: number, controller: number): Promise<number> {
    const data = Buffer.alloc(1024);
    data.fill(7, 0, 16); // the host's identifier
    data.writeUInt16LE(controller, 16);
    data.write(options.subsystemNqn, 256);
    data.write(options.hostNqn, 512);
    const dwords = [id << 16, QUEUE_ENTRIES - 1, id === 0 ? (options.keepAliveMs ?? 0) : 0];
    const answer = await this.run({ opcode: FABRICS, nsid: FABRICS_CONNECT, dwords, write: data });
    return answer.result & 0xffff;
  }

  run(command: Command): Promise<Answer> {
    if (this.#error !== null) return Promise.reject(this.#error);
    const { write } = command;
    const cid = this.#cid;
    this.#cid = (cid + 1) % QUEUE_ENTRIES;
    const capsule = Buffer.alloc(CAPSULE_BYTES);
    capsule.writeUInt8(CAPSULE_CMD, 0);
    capsule.writeUInt8(CAPSULE_BYTES, 2);
    capsule.writeUInt8(write === undefined ? 0 : CAPSULE_BYTES, 3);
    capsule.writeUInt32LE(CAPSULE_BYTES + (write?.length ?? 0), 4);
    const entry = capsule.subarray(HEADER_BYTES);
    entry.writeUInt8(command.opcode, 0);
    entry.writeUInt8(0x40, 1); // data is described by an SGL
    entry.writeUInt16LE(cid, 2);
    entry.writeUInt32LE(command.nsid, 4);
    entry.writeUInt32LE(write?.length ?? command.readBytes ?? 0, 32);
    entry.writeUInt8(write === undefined ? SGL_TRANSPORT : SGL_IN_CAPSULE, 39);
    for (const [i, dword] of (command.dwords ?? []).entries()) {
      entry.writeUInt32LE(dword, 40 + 4 * i);
    }
    return new Promise((resolve, reject) => {
      this.#waiting.set(cid, { data: [], resolve, reject });
      this.#socket.write(write === undefined ? capsule : Buffer.concat([capsule, write]));
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    this.#received = Buffer.concat([this.#received, chunk]);
    while (this.#received.length >= HEADER_BYTES) {
      const length = this.#received.readUInt32LE(4);
      if (this.#received.length < length) return;
      this.#pdu(this.#received.subarray(0, length));
      this.#received = this.#received.subarray(length);
    }
  }

  #pdu(pdu: Buffer): void {
    if (this.#initialized !== null) {
      this.#initialized();
      this.#initialized = null;
      return;
    }
    const type = pdu.readUInt8(0);
    if (type === C2H_DATA) {
      const cid = pdu.readUInt16LE(8);
      this.#waiting.get(cid)?.data.push(Buffer.from(pdu.subarray(pdu.readUInt8(3))));
      if ((pdu.readUInt8(1) & FLAG_SUCCESS) !== 0) this.#answer(cid, 0, 0);
    } else if (type === CAPSULE_RESP) {
      const entry = pdu.subarray(HEADER_BYTES);
      this.#answer(entry.readUInt16LE(12), entry.readUInt32LE(0), entry.readUInt16LE(14) >> 1);
    } else {
      this.#end(new Error(`the target sent a PDU of type ${type}`));
      this.#socket.destroy();
    }
  }

  #answer(cid: number, result: number, status: number): void {
    const waiting = this.#waiting.get(cid);
    this.#waiting.delete(cid);
    if (status === 0) waiting?.resolve({ data: Buffer.concat(waiting.data), result });
    else waiting?.reject(new StatusError(status & 0x7ff));
  }

  #end(error: Error): void {
    this.#error ??= error;
    this.#fail(this.#error);
    for (const { reject } of this.#waiting.values()) reject(this.#error);
    this.#waiting.clear();
  }
}

/** The target has answered, and said no. */
export class StatusError extends Error {
  constructor(readonly status: number) {
    super(`NVMe status 0x${status.toString(16)}`);
  }
}

function range(offsetBytes: number, lengthBytes: number): number[] {
  return [offsetBytes / BLOCK_BYTES, 0, lengthBytes / BLOCK_BYTES - 1];
}
