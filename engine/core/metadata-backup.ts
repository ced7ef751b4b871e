// A copy of a pool's store in one file: every entry as it is, its own checksum included, in frames
// whose checksums hang together, so that a file that is cut, changed or put together from two is
// told from a whole one before anything is made of it.
//
//   file   0x00 "PANDOMB1" | header length u32 | crc32c of the header u32 | header (JSON) | frames
//   frame  bytes u32 | crc32c u32 of them, begun with the frame's before (at first the header's)
//          entries: space u8 | key length u8 | value length u32 | key | value
//   end    0 u32 | crc32c u32 of what follows, begun likewise | entries u64
//
// When such a copy may be put beside its device again: restore-pool.ts.
import { native } from "../../native/native.js";
import { PandoError } from "../base/errors.js";
import { entriesOf } from "../store/entries.js";
import { readU64 } from "../store/journal.js";
import { type Entry, SPACES, type Space, type StoreReader } from "../store/store.js";
import type { DeviceReader } from "./recovery.js";

export interface BackupHeader {
  uuid: string;
  /** Of the superblock, when it was made. */
  reclaims: number;
}

export interface BackupEntry extends Entry {
  space: Space;
}

export interface BackupContents {
  header: BackupHeader;
  /** Batch by batch; ECORRUPT where one is not what was written, and at the end if it is cut. */
  batches(): Generator<BackupEntry[]>;
}

type Source = Pick<DeviceReader, "sizeBytes" | "read">;

const MAGIC = Buffer.from("PANDOMB1");
const HEAD_BYTES = 16;
const FRAME_HEAD_BYTES = 8;
const ENTRY_HEAD_BYTES = 6;
const END_BYTES = 16;
const FRAME_BYTES = 256 * 1024;
const MAX_FRAME_BYTES = 4 * FRAME_BYTES;
const MAX_HEADER_BYTES = 4096;

/** `store` must not change meanwhile. */
export function* encodeBackup(store: StoreReader, header: BackupHeader): Generator<Uint8Array> {
  const json = Buffer.from(JSON.stringify(header), "utf8");
  const head = Buffer.alloc(HEAD_BYTES);
  let crc = native.crc32c(json);
  head.set(MAGIC, 0);
  head.writeUInt32LE(json.length, 8);
  head.writeUInt32LE(crc, 12);
  yield Buffer.concat([head, json]);
  let count = 0;
  for (const payload of payloads(store, () => count++)) {
    const frame = Buffer.alloc(FRAME_HEAD_BYTES);
    crc = native.crc32c(payload, crc);
    frame.writeUInt32LE(payload.length, 0);
    frame.writeUInt32LE(crc, 4);
    yield Buffer.concat([frame, payload]);
  }
  const end = Buffer.alloc(END_BYTES);
  end.writeBigUInt64LE(BigInt(count), 8);
  end.writeUInt32LE(native.crc32c(end.subarray(8), crc), 4);
  yield end;
}

function* payloads(store: StoreReader, counted: () => void): Generator<Uint8Array> {
  let parts: Uint8Array[] = [];
  let bytes = 0;
  for (const [at, space] of SPACES.entries()) {
    for (const { key, value } of entriesOf(store, space)) {
      const head = Buffer.alloc(ENTRY_HEAD_BYTES);
      head.writeUInt8(at, 0);
      head.writeUInt8(key.length, 1);
      head.writeUInt32LE(value.length, 2);
      parts.push(head, key, value);
      bytes += head.length + key.length + value.length;
      counted();
      if (bytes < FRAME_BYTES) continue;
      yield Buffer.concat(parts);
      parts = [];
      bytes = 0;
    }
  }
  if (bytes > 0) yield Buffer.concat(parts);
}

export function openBackup(path: string, source: Source): BackupContents {
  const fail = (what: string): never => {
    throw new PandoError("ECORRUPT", `${path}: ${what}`, { path });
  };
  const read = (offset: number, length: number): Buffer => {
    if (offset + length > source.sizeBytes) fail("it is cut");
    const bytes = source.read(offset, length);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  };
  const head = source.sizeBytes < HEAD_BYTES ? Buffer.alloc(HEAD_BYTES) : read(0, HEAD_BYTES);
  if (!head.subarray(0, MAGIC.length).equals(MAGIC)) fail("it is no backup of a pool's metadata");
  const headerBytes = head.readUInt32LE(8);
  if (headerBytes > MAX_HEADER_BYTES) fail("its header is damaged");
  const json = read(HEAD_BYTES, headerBytes);
  const headerCrc = head.readUInt32LE(12);
  if (native.crc32c(json) !== headerCrc) fail("its header is damaged");
  return {
    header: JSON.parse(json.toString("utf8")) as BackupHeader,
    *batches() {
      let crc = headerCrc;
      let count = 0;
      for (let at = HEAD_BYTES + headerBytes; ; ) {
        const frame = read(at, FRAME_HEAD_BYTES);
        const length = frame.readUInt32LE(0);
        if (length > MAX_FRAME_BYTES) fail(`it is damaged at ${at}`);
        const payload = read(at + FRAME_HEAD_BYTES, length === 0 ? 8 : length);
        crc = native.crc32c(payload, crc);
        if (crc !== frame.readUInt32LE(4)) fail(`it is damaged at ${at}`);
        at += FRAME_HEAD_BYTES + payload.length;
        if (length === 0) {
          const whole = readU64(payload, 0, "entries") === count && at === source.sizeBytes;
          if (!whole) fail("it has more or less than was written");
          return;
        }
        const entries = [...entriesIn(payload, () => fail(`it is damaged before ${at}`))];
        count += entries.length;
        yield entries;
      }
    },
  };
}

function* entriesIn(payload: Buffer, fail: () => never): Generator<BackupEntry> {
  for (let at = 0; at < payload.length; ) {
    if (at + ENTRY_HEAD_BYTES > payload.length) fail();
    const space = SPACES[payload.readUInt8(at)];
    const keyEnd = at + ENTRY_HEAD_BYTES + payload.readUInt8(at + 1);
    const end = keyEnd + payload.readUInt32LE(at + 2);
    if (space === undefined || end > payload.length) fail();
    else {
      const key = payload.subarray(at + ENTRY_HEAD_BYTES, keyEnd);
      yield { space, key, value: payload.subarray(keyEnd, end) };
    }
    at = end;
  }
}
