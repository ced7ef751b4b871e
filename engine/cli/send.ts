// Writes a snapshot, or what changed since an earlier one, as a stream: docs/stream-format.md. The
// daemon says which ranges there are, and they are read over NBD, some ahead of what is written.
import { once } from "node:events";
import type { Writable } from "node:stream";
import { PandoError } from "../base/errors.js";
import type { SnapshotRef } from "../base/name.js";
import {
  type Checksum,
  encodeStreamHeader,
  encodeStreamRecord,
  STREAM_DATA_BYTES,
} from "../base/stream-format.js";
import type { ChangedRange, PandoClient } from "../serve/client.js";
import { NbdClient } from "./nbd-client.js";
import { needNbd } from "./partial-volume.js";
import { Progress } from "./progress.js";

const READS_AHEAD = 16;

export interface SendOptions {
  target: SnapshotRef;
  base: SnapshotRef | null;
  /** What is before was sent earlier. */
  startBytes: number;
  out: Writable;
  checksum: Checksum;
}

interface Piece {
  range: ChangedRange;
  data: Promise<Buffer>;
}

const NOTHING = Promise.resolve(Buffer.alloc(0));

export async function sendSnapshot(client: PandoClient, options: SendOptions): Promise<void> {
  const { target, base, startBytes, out, checksum } = options;
  const snapshot = await client.getSnapshot(target.volume, target.snapshot);
  const origin = base === null ? null : await client.getSnapshot(base.volume, base.snapshot);
  const { sizeBytes, contents } = snapshot;
  if (!Number.isSafeInteger(startBytes) || startBytes > sizeBytes || startBytes % 4096 !== 0) {
    throw new PandoError("EINVAL", `${startBytes} is no place to go on from`, {
      field: "resume",
      hint: "the number that the receiver names",
    });
  }
  const nbd = await NbdClient.openUri(needNbd(snapshot));
  const progress = new Progress(sizeBytes);
  const stream = new Records(out, checksum, progress);
  try {
    const batches = client.diff({ base, target, startBytes })[Symbol.asyncIterator]();
    // What the daemon refuses is refused before the first byte is out.
    let next = await batches.next();
    const header = { contents, base: origin?.contents ?? null, sizeBytes, startBytes };
    await stream.header({ ...header, snapshot: target.snapshot });
    const ahead: Piece[] = [];
    for (; next.done !== true; next = await batches.next()) {
      for (const range of pieces(next.value, startBytes)) {
        const { offsetBytes, lengthBytes, zero } = range;
        const data = zero ? NOTHING : nbd.read(offsetBytes, lengthBytes);
        // It is waited for in its turn; a failure before that is not forgotten, only not news.
        data.catch(() => undefined);
        ahead.push({ range, data });
        const first = ahead.length > READS_AHEAD ? ahead.shift() : undefined;
        if (first !== undefined) await stream.record(first);
      }
    }
    for (const piece of ahead) await stream.record(piece);
    await stream.end();
  } finally {
    progress.end();
    await nbd.close();
  }
}

/** Records: of data at most as much as one may have; of zeroes as they are. */
function* pieces(ranges: ChangedRange[], startBytes: number): Generator<ChangedRange> {
  for (const { offsetBytes, lengthBytes, zero } of ranges) {
    const end = offsetBytes + lengthBytes;
    const most = zero ? lengthBytes : STREAM_DATA_BYTES;
    // A block may begin before the offset at which the last stream ended.
    for (let at = Math.max(offsetBytes, startBytes); at < end; at += most) {
      yield { offsetBytes: at, lengthBytes: Math.min(most, end - at), zero };
    }
  }
}

class Records {
  readonly #out: Writable;
  readonly #checksum: Checksum;
  readonly #progress: Progress;
  #number = 0;
  #dataBytes = 0;
  #zeroBytes = 0;

  constructor(out: Writable, checksum: Checksum, progress: Progress) {
    this.#out = out;
    this.#checksum = checksum;
    this.#progress = progress;
  }

  header(header: Parameters<typeof encodeStreamHeader>[0]): Promise<void> {
    return this.#write(encodeStreamHeader(header, this.#checksum));
  }

  async record({ range, data }: Piece): Promise<void> {
    const { offsetBytes, lengthBytes, zero } = range;
    const bytes = await data;
    const record = { type: zero ? "zero" : "data", number: this.#number++ } as const;
    const place = { offsetBytes, lengthBytes };
    await this.#write(encodeStreamRecord({ ...record, ...place }, bytes, this.#checksum));
    if (bytes.length > 0) await this.#write(bytes);
    if (zero) this.#zeroBytes += lengthBytes;
    else this.#dataBytes += lengthBytes;
    this.#progress.show(offsetBytes + lengthBytes, bytes.length);
  }

  async end(): Promise<void> {
    const totals = { offsetBytes: this.#dataBytes, lengthBytes: this.#zeroBytes };
    const record = { type: "end", number: this.#number, ...totals } as const;
    await this.#write(encodeStreamRecord(record, new Uint8Array(0), this.#checksum));
  }

  async #write(bytes: Uint8Array): Promise<void> {
    if (!this.#out.write(bytes)) await once(this.#out, "drain");
  }
}
