// The bytes of a stream of a volume's contents: docs/stream-format.md. A header, records in the
// order of their offsets, and an end that says how much there was; each with a CRC32C, each record
// with its number, so that nothing can be left out, come twice or change places unseen.
//
// What is decoded here was written by anybody: everything is checked before it is used.
import { assert } from "./assert.js";
import { MAX_NAME_LENGTH, SECTOR_BYTES } from "./constants.js";
import { PandoError } from "./errors.js";

export const STREAM_VERSION = 1;
export const STREAM_HEADER_BYTES = 256;
export const STREAM_RECORD_BYTES = 32;
/** The most data in one record. */
export const STREAM_DATA_BYTES = 1024 * 1024;

const MAGIC = Buffer.from("PANDOSTR");
const TYPES = ["data", "zero", "end"] as const;

/** CRC32C of the bytes, going on from another. */
export type Checksum = (data: Uint8Array, seed?: number) => number;

export interface StreamHeader {
  /** Identity of the snapshot's contents. */
  contents: string;
  /** Identity of the contents that it begins at; null: nothing. */
  base: string | null;
  sizeBytes: number;
  /** What is before was sent earlier. */
  startBytes: number;
  /** The name of the snapshot that was sent. */
  snapshot: string;
}

export interface StreamRecord {
  type: (typeof TYPES)[number];
  /** Of this record, from 0. */
  number: number;
  /** Where in the volume. The end: bytes of all data records. */
  offsetBytes: number;
  /** How much of the volume. The end: bytes of all zero records. */
  lengthBytes: number;
}

export function encodeStreamHeader(header: StreamHeader, checksum: Checksum): Buffer {
  const bytes = Buffer.alloc(STREAM_HEADER_BYTES);
  MAGIC.copy(bytes, 0);
  bytes.writeUInt32LE(STREAM_VERSION, 8);
  bytes.writeUInt32LE(STREAM_HEADER_BYTES, 12);
  writeUuid(bytes, 16, header.contents);
  if (header.base !== null) writeUuid(bytes, 32, header.base);
  bytes.writeBigUInt64LE(BigInt(header.sizeBytes), 48);
  bytes.writeBigUInt64LE(BigInt(header.startBytes), 56);
  assert(header.snapshot.length <= MAX_NAME_LENGTH, "a name has at most 128 characters");
  bytes.write(header.snapshot, 64, "latin1");
  bytes.writeUInt32LE(checksum(bytes.subarray(0, 252)), 252);
  return bytes;
}

export function decodeStreamHeader(bytes: Buffer, checksum: Checksum): StreamHeader {
  assert(bytes.length === STREAM_HEADER_BYTES, "a stream's header has 256 bytes");
  if (!bytes.subarray(0, 8).equals(MAGIC)) {
    throw new PandoError("EINVAL", "this is not a stream of Pando's", { field: "magic" });
  }
  const version = bytes.readUInt32LE(8);
  if (version !== STREAM_VERSION) {
    throw new PandoError("EVERSION", `the stream has version ${version}, not ${STREAM_VERSION}`, {
      field: "version",
      hint: "use the pando that wrote it, or a newer one",
    });
  }
  if (bytes.readUInt32LE(252) !== checksum(bytes.subarray(0, 252))) throw damaged("header");
  const header = {
    contents: readUuid(bytes, 16),
    base: bytes.subarray(32, 48).every((byte) => byte === 0) ? null : readUuid(bytes, 32),
    sizeBytes: readCount(bytes, 48, "size"),
    startBytes: readCount(bytes, 56, "start"),
    snapshot: bytes.toString("latin1", 64, 64 + MAX_NAME_LENGTH).replace(/\0+$/, ""),
  };
  const { sizeBytes, startBytes } = header;
  const valid = isWhole(sizeBytes) && isWhole(startBytes) && startBytes <= sizeBytes;
  if (!valid || bytes.readUInt32LE(12) !== STREAM_HEADER_BYTES) throw damaged("header");
  return header;
}

/** The record's head; its data comes after. */
export function encodeStreamRecord(
  record: StreamRecord,
  data: Uint8Array,
  checksum: Checksum,
): Buffer {
  const bytes = Buffer.alloc(STREAM_RECORD_BYTES);
  bytes.writeUInt32LE(TYPES.indexOf(record.type) + 1, 0);
  bytes.writeUInt32LE(data.length, 4);
  bytes.writeBigUInt64LE(BigInt(record.offsetBytes), 8);
  bytes.writeBigUInt64LE(BigInt(record.lengthBytes), 16);
  bytes.writeUInt32LE(record.number % 2 ** 32, 24);
  bytes.writeUInt32LE(checksum(data, checksum(bytes.subarray(0, 28))), 28);
  return bytes;
}

/** How much data follows this head; nothing else of it is to be believed before its checksum. */
export function streamDataBytes(bytes: Buffer): number {
  const length = bytes.readUInt32LE(4);
  if (length > STREAM_DATA_BYTES) throw damaged("record");
  return length;
}

export function decodeStreamRecord(
  bytes: Buffer,
  data: Uint8Array,
  expected: { number: number; checksum: Checksum },
): StreamRecord {
  const { number, checksum } = expected;
  assert(bytes.length === STREAM_RECORD_BYTES, "a record's head has 32 bytes");
  const type = TYPES[bytes.readUInt32LE(0) - 1];
  const sealed = bytes.readUInt32LE(28) === checksum(data, checksum(bytes.subarray(0, 28)));
  if (!sealed || type === undefined) throw damaged(`record ${number}`);
  const offsetBytes = readCount(bytes, 8, "offset");
  const lengthBytes = readCount(bytes, 16, "length");
  if (bytes.readUInt32LE(24) !== number % 2 ** 32) {
    throw new PandoError("ECORRUPT", `the stream has another record where ${number} should be`, {
      field: "number",
    });
  }
  const whole = isWhole(offsetBytes) && isWhole(lengthBytes);
  const fits = type === "data" ? lengthBytes === data.length : data.length === 0;
  if (!whole || !fits || (type !== "end" && lengthBytes === 0)) throw damaged(`record ${number}`);
  return { type, number, offsetBytes, lengthBytes };
}

function damaged(what: string): PandoError {
  return new PandoError("ECORRUPT", `the stream is damaged: its ${what} is not what was written`, {
    field: what,
  });
}

function isWhole(bytes: number): boolean {
  return bytes % SECTOR_BYTES === 0;
}

function readCount(bytes: Buffer, at: number, what: string): number {
  const value = bytes.readBigUInt64LE(at);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw damaged(what);
  return Number(value);
}

function writeUuid(bytes: Buffer, at: number, uuid: string): void {
  bytes.write(uuid.replaceAll("-", ""), at, "hex");
}

function readUuid(bytes: Buffer, at: number): string {
  const hex = bytes.toString("hex", at, at + 16);
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
