// Reads the log of the kernel's dm-log-writes target: every write, flush and discard that a device
// completed, in the order in which it did, and the marks that were set between them. Applied up to
// any flush, it is the device as a power cut there would leave it.
//
// The format is the kernel's (Documentation/admin-guide/device-mapper/log-writes.rst and
// drivers/md/dm-log-writes.c). All numbers are little-endian; sectors are of the size that the
// first one names.
//
//   sector 0   magic u64 | version u64 | entries u64 | sector size u32
//   entry      sector u64 | sectors u64 | flags u64 | bytes of the mark u64 | the mark, to the end
//              of the sector; then the data, unless it is a discard
import { openSync, readSync } from "node:fs";
import { assert } from "../../engine/base/assert.js";

const MAGIC = 0x6a736677736872n;
const VERSION = 1n;
const HEADER_BYTES = 28;
const ENTRY_BYTES = 32;

const FLUSH = 1 << 0;
const FUA = 1 << 1;
const DISCARD = 1 << 2;
const MARK = 1 << 3;

export interface LogEntry {
  kind: "write" | "discard" | "mark";
  /** What was completed before is on the media from here on. */
  flush: boolean;
  fua: boolean;
  offsetBytes: number;
  lengthBytes: number;
  /** Empty but for marks. */
  mark: string;
  /** Of a write. */
  data(): Buffer;
}

export function* readLog(path: string): Generator<LogEntry> {
  const file = openSync(path, "r");
  const at = (offset: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length);
    assert(readSync(file, bytes, 0, length, offset) === length, `the log ends at ${offset}`);
    return bytes;
  };
  const header = at(0, HEADER_BYTES);
  assert(header.readBigUInt64LE(0) === MAGIC, "it is a log of dm-log-writes");
  assert(header.readBigUInt64LE(8) === VERSION, "the log is of version 1");
  const entries = Number(header.readBigUInt64LE(16));
  const sectorBytes = header.readUInt32LE(24);
  let next = sectorBytes;
  for (let i = 0; i < entries; i++) {
    const entry = at(next, sectorBytes);
    const flags = Number(entry.readBigUInt64LE(16));
    const markBytes = Number(entry.readBigUInt64LE(24));
    const lengthBytes = Number(entry.readBigUInt64LE(8)) * sectorBytes;
    const start = next + sectorBytes;
    const kind = flags & MARK ? "mark" : flags & DISCARD ? "discard" : "write";
    yield {
      kind,
      flush: (flags & FLUSH) !== 0,
      fua: (flags & FUA) !== 0,
      offsetBytes: Number(entry.readBigUInt64LE(0)) * sectorBytes,
      lengthBytes,
      mark: entry.toString("latin1", ENTRY_BYTES, ENTRY_BYTES + markBytes).replace(/\0+$/, ""),
      data: () => at(start, kind === "write" ? lengthBytes : 0),
    };
    next = start + (kind === "write" ? lengthBytes : 0);
  }
}
