// The partition table of a device that is a pool by itself (UEFI Specification 2.10, chapter 5): a
// small partition for the store, the rest for data. Found again by their types, not by their order.
//
//   sector 0 protective MBR | 1 header | 2 … entries | partitions | entries | last sector: header
//
// Both headers and both lists of entries have CRC32s (the one of zlib, not of the engine).
import { assert } from "./base/assert.js";
import { PandoError } from "./base/errors.js";

export interface Partition {
  /** As the kernel counts them: from 1. */
  number: number;
  type: string;
  uuid: string;
  firstSector: number;
  sectors: number;
  name: string;
}

export interface Disk {
  sectorBytes: number;
  sectors: number;
}

export interface Piece {
  offsetBytes: number;
  bytes: Uint8Array;
}

export const META_TYPE = "6e1c2f0a-4f0b-4d43-9a57-7c1d5f1b6a01";
export const DATA_TYPE = "6e1c2f0a-4f0b-4d43-9a57-7c1d5f1b6a02";
export const ALIGNMENT_BYTES = 2 ** 20;

const SIGNATURE = "EFI PART";
const REVISION = 0x00010000;
const HEADER_BYTES = 92;
const ENTRY_BYTES = 128;
const ENTRIES = 128;
const NAME_BYTES = 72;
const NO_TYPE = "00000000-0000-0000-0000-000000000000";
const MAX_U32 = 0xffffffff;

/** All that is to be written, in order: what makes it count comes last. */
export function encodeGpt(disk: Disk, uuid: string, partitions: readonly Partition[]): Piece[] {
  const { sectorBytes, sectors } = disk;
  const entries = Buffer.alloc(ENTRIES * ENTRY_BYTES);
  for (const partition of partitions) encodeEntry(entries, partition);
  const entrySectors = entriesOn(disk);
  const header = (own: number, other: number, list: number): Uint8Array => {
    const bytes = Buffer.alloc(sectorBytes);
    bytes.write(SIGNATURE, 0, "latin1");
    bytes.writeUInt32LE(REVISION, 8);
    bytes.writeUInt32LE(HEADER_BYTES, 12);
    bytes.writeBigUInt64LE(BigInt(own), 24);
    bytes.writeBigUInt64LE(BigInt(other), 32);
    bytes.writeBigUInt64LE(BigInt(2 + entrySectors), 40);
    bytes.writeBigUInt64LE(BigInt(lastUsable(disk)), 48);
    encodeGuid(bytes, 56, uuid);
    bytes.writeBigUInt64LE(BigInt(list), 72);
    bytes.writeUInt32LE(ENTRIES, 80);
    bytes.writeUInt32LE(ENTRY_BYTES, 84);
    bytes.writeUInt32LE(crc32(entries), 88);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, HEADER_BYTES)), 16);
    return bytes;
  };
  const last = sectors - 1;
  const at = (sector: number, bytes: Uint8Array) => ({ offsetBytes: sector * sectorBytes, bytes });
  return [
    at(last - entrySectors, entries),
    at(last, header(last, 1, last - entrySectors)),
    at(2, entries),
    at(1, header(1, last, 2)),
    at(0, protectiveMbr(disk)),
  ];
}

export type ReadDisk = (offsetBytes: number, lengthBytes: number) => Uint8Array;

/** A valid copy of the table, as it lies there. */
export interface RawTable {
  header: Buffer;
  entries: Buffer;
  entryBytes: number;
  isPrimary: boolean;
}

/** The partitions by either copy of the table; null if there is no valid one. */
export function decodeGpt(disk: Disk, read: ReadDisk): Partition[] | null {
  const table = readTable(disk, read);
  return table === null ? null : decodeEntries(table);
}

export function decodeEntries({ entries, entryBytes }: RawTable): Partition[] {
  return Array.from({ length: entries.length / entryBytes }, (_, i) =>
    decodeEntry(entries.subarray(i * entryBytes, (i + 1) * entryBytes), i + 1),
  ).filter(({ type }) => type !== NO_TYPE);
}

export function readTable(disk: Disk, read: ReadDisk): RawTable | null {
  for (const sector of [1, disk.sectors - 1]) {
    const header = Buffer.from(read(sector * disk.sectorBytes, disk.sectorBytes));
    if (header.toString("latin1", 0, 8) !== SIGNATURE) continue;
    const headerBytes = header.readUInt32LE(12);
    if (headerBytes < HEADER_BYTES || headerBytes > disk.sectorBytes) continue;
    const crc = header.readUInt32LE(16);
    header.writeUInt32LE(0, 16);
    if (crc32(header.subarray(0, headerBytes)) !== crc) continue;
    const count = header.readUInt32LE(80);
    const each = header.readUInt32LE(84);
    const list = Number(header.readBigUInt64LE(72));
    if (each < ENTRY_BYTES || count * each > 2 ** 20 || list >= disk.sectors) continue;
    const entries = Buffer.from(read(list * disk.sectorBytes, count * each));
    if (crc32(entries) !== header.readUInt32LE(88)) continue;
    return { header, entries, entryBytes: each, isPrimary: sector === 1 };
  }
  return null;
}

/** The two partitions of a pool; EINVAL if there is no room for them. */
export function planPartitions(
  disk: Disk,
  metaBytes: number,
  newUuid: () => string,
): { meta: Partition; data: Partition } {
  const unit = ALIGNMENT_BYTES / disk.sectorBytes;
  const metaUnits = Math.ceil(metaBytes / ALIGNMENT_BYTES);
  const end = Math.floor((lastUsable(disk) + 1) / unit);
  const dataUnits = end - 1 - metaUnits;
  if (dataUnits < 1) {
    throw new PandoError(
      "EINVAL",
      `${disk.sectors * disk.sectorBytes} bytes have no room for ${metaBytes} of metadata and data`,
      { field: "metaSizeBytes" },
    );
  }
  const partition = (number: number, type: string, name: string, first: number, units: number) => ({
    ...{ number, type, name, uuid: newUuid() },
    firstSector: first * unit,
    sectors: units * unit,
  });
  return {
    meta: partition(1, META_TYPE, "pando-meta", 1, metaUnits),
    data: partition(2, DATA_TYPE, "pando-data", 1 + metaUnits, dataUnits),
  };
}

function entriesOn({ sectorBytes }: Disk): number {
  return Math.ceil((ENTRIES * ENTRY_BYTES) / sectorBytes);
}

function lastUsable(disk: Disk): number {
  return disk.sectors - 2 - entriesOn(disk);
}

function encodeEntry(entries: Buffer, partition: Partition): void {
  const { number, type, uuid, firstSector, sectors, name } = partition;
  assert(number >= 1 && number <= ENTRIES && sectors > 0, "a partition has its place");
  const entry = entries.subarray((number - 1) * ENTRY_BYTES, number * ENTRY_BYTES);
  encodeGuid(entry, 0, type);
  encodeGuid(entry, 16, uuid);
  entry.writeBigUInt64LE(BigInt(firstSector), 32);
  entry.writeBigUInt64LE(BigInt(firstSector + sectors - 1), 40);
  entry.write(name, 56, NAME_BYTES, "utf16le");
}

function decodeEntry(entry: Buffer, number: number): Partition {
  const first = Number(entry.readBigUInt64LE(32));
  return {
    number,
    type: decodeGuid(entry, 0),
    uuid: decodeGuid(entry, 16),
    firstSector: first,
    sectors: Number(entry.readBigUInt64LE(40)) - first + 1,
    name: entry.toString("utf16le", 56, 56 + NAME_BYTES).replace(/\0.*$/s, ""),
  };
}

function protectiveMbr({ sectorBytes, sectors }: Disk): Uint8Array {
  const bytes = Buffer.alloc(sectorBytes);
  bytes.set([0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff], 446);
  bytes.writeUInt32LE(1, 454);
  bytes.writeUInt32LE(Math.min(sectors - 1, MAX_U32), 458);
  bytes.set([0x55, 0xaa], 510);
  return bytes;
}

/** Its first three fields are little-endian, the rest is as it is read. */
const GUID_ORDER = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

function encodeGuid(target: Buffer, offset: number, uuid: string): void {
  const bytes = Buffer.from(uuid.replaceAll("-", ""), "hex");
  assert(bytes.length === GUID_ORDER.length, "a GUID has 16 bytes");
  target.set(
    GUID_ORDER.map((from) => bytes[from] as number),
    offset,
  );
}

function decodeGuid(source: Buffer, offset: number): string {
  const hex = Buffer.from(GUID_ORDER.map((from) => source[offset + from] as number)).toString(
    "hex",
  );
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  return crc;
});

/** Of IEEE 802.3. */
export function crc32(bytes: Uint8Array): number {
  let crc = MAX_U32;
  for (const byte of bytes) crc = (crc >>> 8) ^ (CRC_TABLE[(crc ^ byte) & 0xff] as number);
  return (crc ^ MAX_U32) >>> 0;
}
