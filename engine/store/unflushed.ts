// What was acknowledged, but not durable in the journal, when the last daemon was killed. The data
// path keeps these records in memory that outlives its process (native/src/unflushed_log.h);
// recovery replays them after the journal's.
//
// They count only if the machine has not been started anew since: after a power cut what they map
// may not have reached the device.
//
//   header  0x00 "PDUNSLF1" | epoch u64 | pool UUID | 0x20 boot id, 40 bytes | 0x48 capacity u64
//           0x50 head u64 | 0x58 tail u64 | 0x60 durable ordinal u64; the ring begins at 0x1000
//   entry   size u32 (0: go on at the ring's start) | crc32c of what follows u32 | ordinal u64 |
//           record
import { native } from "../../native/native.js";
import { PandoError } from "../base/errors.js";
import { decodeRecord, type MappingRecord, readU64 } from "./journal.js";
import { uuidFromBytes } from "./uuid.js";

export interface UnflushedPlace {
  uuid: string;
  /** As the store has it: that of the daemon that was killed. */
  epoch: number;
  /** Of the machine as it runs now. */
  bootId: string;
}

export interface UnflushedRecord {
  ordinal: number;
  record: MappingRecord;
}

const MAGIC = "PDUNSLF1";
const HEADER_BYTES = 4096;
const BOOT_ID_BYTES = 40;
const ENTRY_HEADER_BYTES = 16;

/**
 * In the order in which they were acknowledged; none if the memory is of another pool, epoch or
 * boot.
 */
export function readUnflushed(bytes: Uint8Array, place: UnflushedPlace): UnflushedRecord[] {
  const memory = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (memory.length <= HEADER_BYTES || memory.toString("latin1", 0, 8) !== MAGIC) return [];
  const bootId = memory.toString("latin1", 0x20, 0x20 + BOOT_ID_BYTES).replace(/\0+$/, "");
  const uuid = uuidFromBytes(memory.subarray(0x10, 0x20));
  if (uuid !== place.uuid || bootId !== place.bootId) return [];
  if (readU64(memory, 0x08, "epoch") !== place.epoch) return [];

  const capacity = readU64(memory, 0x48, "capacity");
  const head = readU64(memory, 0x50, "head");
  const tail = readU64(memory, 0x58, "tail");
  const durable = readU64(memory, 0x60, "durable ordinal");
  if (capacity !== memory.length - HEADER_BYTES || tail > head || head - tail > capacity) {
    throw corrupt("its header contradicts itself");
  }
  const found: UnflushedRecord[] = [];
  for (let at = tail; at < head; ) {
    const start = HEADER_BYTES + (at % capacity);
    const size = memory.readUInt32LE(start);
    if (size === 0) {
      at += capacity - (at % capacity);
      continue;
    }
    const end = start + size;
    if (size <= ENTRY_HEADER_BYTES || end > memory.length) throw corrupt("an entry is cut");
    if (memory.readUInt32LE(start + 4) !== native.crc32c(memory.subarray(start + 8, end))) {
      throw corrupt("an entry's checksum is wrong");
    }
    const ordinal = readU64(memory, start + 8, "ordinal");
    if (ordinal > durable) {
      const record = decodeRecord(memory, start + ENTRY_HEADER_BYTES, end, ordinal);
      found.push({ ordinal, record });
    }
    at += size;
  }
  return found;
}

function corrupt(what: string): PandoError {
  return new PandoError("ECORRUPT", `unflushed records: ${what}`, { field: "unflushed" });
}
