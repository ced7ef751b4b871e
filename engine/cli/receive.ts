// Reads a stream (docs/stream-format.md) and makes a volume of it, or a newer state of one. Nothing
// of it is seen before it is whole. What was cut is kept as far as it has come, and goes on from
// there; what is damaged is kept as far as it is right.
import type { Readable } from "node:stream";
import { PandoError } from "../base/errors.js";
import {
  type Checksum,
  decodeStreamHeader,
  decodeStreamRecord,
  STREAM_HEADER_BYTES,
  STREAM_RECORD_BYTES,
  type StreamHeader,
  streamDataBytes,
} from "../base/stream-format.js";
import type { PandoClient, VolumeView } from "../serve/client.js";
import { PartialVolume } from "./partial-volume.js";
import { Progress } from "./progress.js";

/** What a cut loses at most, of what has come. */
const ADVANCE_BYTES = 64 * 1024 * 1024;

export interface ReceiveOptions {
  name: string;
  /** Null: the name that the stream says. */
  snapshot: string | null;
  resume: boolean;
  source: Readable;
  checksum: Checksum;
}

export async function receiveStream(
  client: PandoClient,
  options: ReceiveOptions,
): Promise<VolumeView> {
  const { name, resume, checksum } = options;
  const source = new ByteReader(options.source);
  const header = decodeStreamHeader(await source.take(STREAM_HEADER_BYTES), checksum);
  const { contents, base, sizeBytes } = header;
  if (!resume && header.startBytes > 0) {
    throw new PandoError("EINVAL", "the stream is the rest of one that was cut", {
      field: "start",
      hint: `pando volume receive ${name} --resume`,
    });
  }
  const snapshot = options.snapshot ?? header.snapshot;
  const request = { name, snapshot, contents, base, sizeBytes, resume };
  const partial = await PartialVolume.open(client, request);
  const receiving = new Receiving(partial, source, header, checksum);
  try {
    await receiving.run();
    return await partial.finish();
  } catch (error) {
    throw await receiving.stop(error);
  }
}

class Receiving {
  readonly #partial: PartialVolume;
  readonly #source: ByteReader;
  readonly #header: StreamHeader;
  readonly #checksum: Checksum;
  /** Everything before has come. */
  #atBytes: number;
  #savedBytes: number;

  constructor(
    partial: PartialVolume,
    source: ByteReader,
    header: StreamHeader,
    checksum: Checksum,
  ) {
    this.#partial = partial;
    this.#source = source;
    this.#header = header;
    this.#checksum = checksum;
    this.#atBytes = header.startBytes;
    this.#savedBytes = partial.info.offsetBytes;
  }

  async run(): Promise<void> {
    const { sizeBytes, startBytes } = this.#header;
    if (startBytes > this.#savedBytes) {
      throw new PandoError("EINVAL", `the stream begins after what was received`, {
        field: "start",
      });
    }
    const progress = new Progress(sizeBytes);
    try {
      await this.#records(progress);
    } finally {
      progress.end();
    }
  }

  /** Keeps what is right, if there is any; gives the error with what to do about it. */
  async stop(error: unknown): Promise<unknown> {
    const { name, offsetBytes } = this.#partial.info;
    if (this.#atBytes > this.#savedBytes) {
      try {
        await this.#partial.advance(this.#atBytes);
        this.#savedBytes = this.#atBytes;
      } catch {
        // The first error says more; what had been saved before is there all the same.
      }
    }
    const nothing = this.#savedBytes === 0 && offsetBytes === 0;
    await (nothing ? this.#partial.abort() : this.#partial.keep());
    if (nothing || !(error instanceof PandoError)) return error;
    const hint = `send it with --resume ${this.#savedBytes} into: pando volume receive ${name} --resume`;
    return new PandoError(error.code, error.message, { ...error.context, hint }, { cause: error });
  }

  async #records(progress: Progress): Promise<void> {
    let dataBytes = 0;
    let zeroBytes = 0;
    for (let number = 0; ; number++) {
      const head = await this.#source.take(STREAM_RECORD_BYTES);
      const data = await this.#source.take(streamDataBytes(head));
      const expected = { number, checksum: this.#checksum };
      const { type, offsetBytes, lengthBytes } = decodeStreamRecord(head, data, expected);
      if (type === "end") {
        await this.#end(offsetBytes === dataBytes && lengthBytes === zeroBytes);
        return;
      }
      const end = offsetBytes + lengthBytes;
      if (offsetBytes < this.#atBytes || end > this.#header.sizeBytes) {
        throw new PandoError("ECORRUPT", "the stream is damaged: its records are out of place");
      }
      if (type === "data") {
        dataBytes += lengthBytes;
        await this.#partial.write(offsetBytes, data);
      } else {
        zeroBytes += lengthBytes;
        await this.#partial.zero(offsetBytes, lengthBytes);
      }
      this.#atBytes = end;
      progress.show(end, data.length);
      if (end - this.#savedBytes >= ADVANCE_BYTES) {
        await this.#partial.advance(end);
        this.#savedBytes = end;
      }
    }
  }

  async #end(totalsAgree: boolean): Promise<void> {
    if (!totalsAgree) {
      throw new PandoError("ECORRUPT", "the stream is damaged: its end counts something else");
    }
    if (await this.#source.more()) {
      throw new PandoError("ECORRUPT", "the stream goes on after its end");
    }
  }
}

class ByteReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #left: Buffer = Buffer.alloc(0);

  constructor(source: Readable) {
    this.#chunks = source[Symbol.asyncIterator]();
  }

  async take(length: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let missing = length; missing > 0; ) {
      if (this.#left.length === 0 && !(await this.#next())) {
        throw new PandoError("ECORRUPT", "the stream ends before its end: it was cut");
      }
      const part = this.#left.subarray(0, missing);
      this.#left = this.#left.subarray(part.length);
      parts.push(part);
      missing -= part.length;
    }
    return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts, length);
  }

  async more(): Promise<boolean> {
    return this.#left.length > 0 || (await this.#next());
  }

  async #next(): Promise<boolean> {
    const { done, value } = await this.#chunks.next();
    if (done === true) return false;
    this.#left = value;
    return value.length > 0 || this.#next();
  }
}
