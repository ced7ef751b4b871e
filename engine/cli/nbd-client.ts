// A small NBD client on a Unix socket: one export, any number of requests under way. For what moves
// the contents of volumes from here (send, receive, import, export), and for the tour of `npm
// start`, which writes to a volume the way any client would.
//
// A request ends with its reply; when the connection breaks, each that is under way fails.
//
// The protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, "fixed newstyle
// negotiation" with NBD_OPT_GO, and simple replies. All integers are big-endian.
import { connect, type Socket } from "node:net";
import { PandoError } from "../base/errors.js";

const INIT_MAGIC = Buffer.from("NBDMAGIC");
const OPTION_MAGIC = Buffer.from("IHAVEOPT");
const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
const REQUEST_MAGIC = 0x25609513;
const SIMPLE_REPLY_MAGIC = 0x67446698;

/** NBD_FLAG_C_FIXED_NEWSTYLE and NBD_FLAG_C_NO_ZEROES. */
const CLIENT_FLAGS = 0b11;
const OPT_GO = 7;
const REP_ACK = 1;
const REP_INFO = 3;
/** Bit 31 of a reply's type: an error, with a text. */
const REP_ERROR = 2 ** 31;
const INFO_EXPORT = 0;
/** More than any reply here has; a server that claims more is not believed. */
const MAX_OPTION_REPLY_BYTES = 64 * 1024;

const CMD_READ = 0;
const CMD_WRITE = 1;
const CMD_DISC = 2;
const CMD_FLUSH = 3;
const CMD_WRITE_ZEROES = 6;

const NBD_EINVAL = 22;
const NBD_ENOSPC = 28;
const NBD_EPERM = 1;
/** Zeroes have no data to carry, but their length is a u32. */
const MAX_ZERO_BYTES = 2 ** 30;

interface Waiting {
  /** Bytes that follow a reply without an error. */
  readBytes: number;
  resolve(data: Buffer): void;
  reject(error: Error): void;
}

export class NbdClient {
  readonly #socket: Socket;
  readonly #chunks: Buffer[] = [];
  #error: Error | null = null;
  #wake: () => void = () => {};
  #cookie = 0n;
  readonly #waiting = new Map<bigint, Waiting>();
  sizeBytes = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk) => {
      this.#chunks.push(chunk);
      this.#wake();
    });
    socket.on("error", (error) => this.#end(error));
    socket.on("close", () => this.#end(new Error("the server closed the connection")));
  }

  static async open(options: { socket: string; name: string }): Promise<NbdClient> {
    const client = new NbdClient(connect(options.socket));
    try {
      await client.#negotiate(options.name);
      void client.#replies();
    } catch (error) {
      client.#socket.destroy();
      throw error;
    }
    return client;
  }

  /** As the daemon names an export. */
  static openUri(uri: string): Promise<NbdClient> {
    const { pathname, searchParams } = new URL(uri);
    const name = decodeURIComponent(pathname.slice(1));
    return NbdClient.open({ socket: searchParams.get("socket") ?? "", name });
  }

  read(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    return this.#request(CMD_READ, { offsetBytes, lengthBytes }, lengthBytes);
  }

  async write(offsetBytes: number, data: Uint8Array): Promise<void> {
    await this.#request(CMD_WRITE, { offsetBytes, lengthBytes: data.length, data });
  }

  /** The range becomes a hole. */
  async zero(offsetBytes: number, lengthBytes: number): Promise<void> {
    for (let at = 0; at < lengthBytes; at += MAX_ZERO_BYTES) {
      const length = Math.min(MAX_ZERO_BYTES, lengthBytes - at);
      await this.#request(CMD_WRITE_ZEROES, {
        offsetBytes: offsetBytes + at,
        lengthBytes: length,
      });
    }
  }

  async flush(): Promise<void> {
    await this.#request(CMD_FLUSH, { offsetBytes: 0, lengthBytes: 0 });
  }

  /** Says goodbye; there is no answer to that but the end of the connection. */
  close(): Promise<void> {
    if (this.#socket.closed) return Promise.resolve();
    return new Promise((resolve) => {
      this.#socket.once("close", () => resolve());
      this.#send(CMD_DISC, { offsetBytes: 0, lengthBytes: 0 });
      this.#socket.end();
    });
  }

  async #negotiate(name: string): Promise<void> {
    const greeting = await this.#take(18);
    const expected = Buffer.concat([INIT_MAGIC, OPTION_MAGIC]);
    if (!greeting.subarray(0, 16).equals(expected)) throw confused("its greeting");
    const bytes = Buffer.from(name);
    const header = Buffer.alloc(4 + 8 + 4 + 4 + 4);
    header.writeUInt32BE(CLIENT_FLAGS, 0);
    OPTION_MAGIC.copy(header, 4);
    header.writeUInt32BE(OPT_GO, 12);
    header.writeUInt32BE(4 + bytes.length + 2, 16);
    header.writeUInt32BE(bytes.length, 20);
    // No information is asked for beyond what is always given.
    this.#socket.write(Buffer.concat([header, bytes, Buffer.alloc(2)]));
    for (;;) {
      const { type, data } = await this.#optionReply();
      if (type === REP_ACK) return;
      if (type >= REP_ERROR) {
        const why = data.toString("utf8") || `NBD error ${type - REP_ERROR}`;
        throw new PandoError("EBUSY", `the export ${name} does not open: ${why}`, {
          volume: name,
        });
      }
      const isSize = type === REP_INFO && data.length >= 10 && data.readUInt16BE(0) === INFO_EXPORT;
      if (isSize) this.sizeBytes = Number(data.readBigUInt64BE(2));
    }
  }

  async #optionReply(): Promise<{ type: number; data: Buffer }> {
    const header = await this.#take(20);
    const length = header.readUInt32BE(16);
    const valid =
      header.readBigUInt64BE(0) === OPTION_REPLY_MAGIC && length <= MAX_OPTION_REPLY_BYTES;
    if (!valid) throw confused("its answer to GO");
    return { type: header.readUInt32BE(12), data: await this.#take(length) };
  }

  #request(type: number, request: Request, readBytes = 0): Promise<Buffer> {
    if (this.#error !== null) return Promise.reject(this.#broken(this.#error));
    return new Promise((resolve, reject) => {
      const cookie = this.#send(type, request);
      this.#waiting.set(cookie, { readBytes, resolve, reject });
    });
  }

  /** Hands out replies, which come in any order, until the connection ends. */
  async #replies(): Promise<void> {
    try {
      for (;;) {
        const reply = await this.#take(16);
        const waiting = this.#waiting.get(reply.readBigUInt64BE(8));
        if (reply.readUInt32BE(0) !== SIMPLE_REPLY_MAGIC || waiting === undefined) {
          throw confused("its reply");
        }
        const error = reply.readUInt32BE(4);
        // It waits until its bytes are here too: the connection may break in between.
        if (error === 0) waiting.resolve(await this.#take(waiting.readBytes));
        else waiting.reject(refusal(error));
        this.#waiting.delete(reply.readBigUInt64BE(8));
      }
    } catch (error) {
      this.#socket.destroy();
      for (const { reject } of this.#waiting.values()) reject(error as Error);
      this.#waiting.clear();
    }
  }

  #send(type: number, request: Request): bigint {
    this.#cookie += 1n;
    const header = Buffer.alloc(28);
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(type, 6);
    header.writeBigUInt64BE(this.#cookie, 8);
    header.writeBigUInt64BE(BigInt(request.offsetBytes), 16);
    header.writeUInt32BE(request.lengthBytes, 24);
    this.#socket.write(header);
    if (request.data !== undefined) this.#socket.write(request.data);
    return this.#cookie;
  }

  /** The next `length` bytes that the server sends. */
  async #take(length: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let missing = length; missing > 0; ) {
      const chunk = this.#chunks.shift();
      if (chunk === undefined) {
        if (this.#error !== null) throw this.#broken(this.#error);
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        continue;
      }
      const part = chunk.subarray(0, missing);
      if (part.length < chunk.length) this.#chunks.unshift(chunk.subarray(part.length));
      parts.push(part);
      missing -= part.length;
    }
    return Buffer.concat(parts, length);
  }

  #broken(cause: Error): PandoError {
    return new PandoError("EIO", `the NBD connection broke: ${cause.message}`, {}, { cause });
  }

  #end(error: Error): void {
    this.#error ??= error;
    this.#wake();
  }
}

interface Request {
  offsetBytes: number;
  lengthBytes: number;
  data?: Uint8Array;
}

function refusal(error: number): PandoError {
  if (error === NBD_ENOSPC) return new PandoError("ENOSPC", "the pool is full");
  if (error === NBD_EPERM) return new PandoError("EPERM", "the export is read-only");
  if (error === NBD_EINVAL) return new PandoError("EINVAL", "the request is not inside the export");
  return new PandoError("EIO", `the server answers with NBD error ${error}`);
}

function confused(what: string): PandoError {
  return new PandoError("EVERSION", `this is not an NBD server that is understood here: ${what}`);
}
