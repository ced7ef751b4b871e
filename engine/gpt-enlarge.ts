// A partition takes what has come free behind it: the device has become larger. All else that the
// table says stays, other people's partitions and their attributes too.
//
// The table has two copies, the second at the device's end, which is now another place. Each is
// written and flushed by itself, that one first of which nothing depends: a cut at any moment
// leaves a valid copy where one is looked for, of the partition as it was or as it is to be. A copy
// that a cut has left torn is written before the other is touched.
import { assert } from "./base/assert.js";
import {
  ALIGNMENT_BYTES,
  crc32,
  type Disk,
  decodeEntries,
  type Piece,
  type RawTable,
  type ReadDisk,
  readTable,
} from "./gpt.js";

export interface Enlarged {
  /** The partition is to have so many. */
  sectors: number;
  /** What is to be written: a flush after each of these. Empty: it is so already. */
  steps: Piece[][];
}

const MBR_ENTRIES = [446, 462, 478, 494];
const PROTECTIVE = 0xee;
const MAX_U32 = 0xffffffff;

/** Null: there is no valid table, or no such partition. */
export function enlargePartition(disk: Disk, read: ReadDisk, type: string): Enlarged | null {
  const table = readTable(disk, read);
  if (table === null) return null;
  const partitions = decodeEntries(table);
  const found = partitions.find((each) => each.type === type);
  if (found === undefined) return null;
  const { sectorBytes, sectors } = disk;
  const listSectors = Math.ceil(table.entries.length / sectorBytes);
  const lastUsable = sectors - 2 - listSectors;
  const behind = partitions
    .map(({ firstSector }) => firstSector)
    .filter((first) => first > found.firstSector);
  const unit = ALIGNMENT_BYTES / sectorBytes;
  const end = Math.floor(Math.min(lastUsable + 1, ...behind) / unit) * unit;
  const enlarged = Math.max(end - found.firstSector, found.sectors);
  if (enlarged === found.sectors && table.isPrimary) return { sectors: enlarged, steps: [] };

  const entries = Buffer.from(table.entries);
  const place = (found.number - 1) * table.entryBytes;
  entries.writeBigUInt64LE(BigInt(found.firstSector + enlarged - 1), place + 40);
  const copy = (own: number, other: number, list: number): Piece[] => [
    { offsetBytes: list * sectorBytes, bytes: entries },
    {
      offsetBytes: own * sectorBytes,
      bytes: header(table, entries, { own, other, list, lastUsable }),
    },
  ];
  const last = sectors - 1;
  const list = table.isPrimary ? Number(table.header.readBigUInt64LE(72)) : 2;
  const primary = copy(1, last, list);
  const backup = copy(last, 1, last - listSectors);
  const copies = table.isPrimary ? [backup, primary] : [primary, backup];
  const first = Buffer.from(read(0, sectorBytes));
  for (const at of MBR_ENTRIES) {
    if (first[at + 4] === PROTECTIVE) first.writeUInt32LE(Math.min(last, MAX_U32), at + 12);
  }
  return { sectors: enlarged, steps: [...copies, [{ offsetBytes: 0, bytes: first }]] };
}

interface Places {
  own: number;
  other: number;
  list: number;
  lastUsable: number;
}

function header(
  table: RawTable,
  entries: Buffer,
  { own, other, list, lastUsable }: Places,
): Buffer {
  const bytes = Buffer.from(table.header);
  const headerBytes = bytes.readUInt32LE(12);
  assert(headerBytes <= bytes.length, "a header has its sector");
  bytes.writeBigUInt64LE(BigInt(own), 24);
  bytes.writeBigUInt64LE(BigInt(other), 32);
  bytes.writeBigUInt64LE(BigInt(lastUsable), 48);
  bytes.writeBigUInt64LE(BigInt(list), 72);
  bytes.writeUInt32LE(crc32(entries), 88);
  bytes.writeUInt32LE(0, 16);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, headerBytes)), 16);
  return bytes;
}
