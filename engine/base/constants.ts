// Every limit of the engine, by name, with the relations between them asserted at load.
import { assert } from "./assert.js";

/** The unit in which volumes are addressed, bytes. */
export const SECTOR_BYTES = 4096;
export const SLOTS_PER_SPAN = 512;
/** One index block as it crosses the native boundary: 512 u32 blocks, then 64 bytes of own bits. */
export const INDEX_BLOCK_BYTES = SLOTS_PER_SPAN * 4 + SLOTS_PER_SPAN / 8;
export const SPANS_PER_PIECE = 4096;
export const BLOCKS_PER_CHUNK = 8192;

export const BLOCK_SIZES = [4096, 8192, 16384, 32768, 65536] as const;
export const DEFAULT_BLOCK_SIZE = 4096;
export const MAX_BLOCKS = 2 ** 32 - 2;

export const SUPERBLOCK_BYTES = 4096;
export const SUPERBLOCK_A_OFFSET = 0;
export const SUPERBLOCK_B_OFFSET = 64 * 1024;
export const JOURNAL_BLOCK_BYTES = 4096;
export const JOURNAL_OFFSET = 1024 * 1024;
export const DEFAULT_JOURNAL_BYTES = 64 * 1024 * 1024;
export const MAX_JOURNAL_BYTES = 1024 * 1024 * 1024;
export const MIN_JOURNAL_BLOCKS = 64;

export const FORMAT_VERSION = 1;
/** Largest volume: its spans must fit a u32 with room to spare. */
export const MAX_VOLUME_BYTES = 2 ** 50;
export const MAX_NAME_LENGTH = 128;
/** A volume's limits; slower than the least, a single request would outlast a host's patience. */
export const MAX_LIMIT_IOPS = 100_000_000;
export const MIN_LIMIT_BYTES_PER_SECOND = 64 * 1024;
/** Volumes that stand still together for one instant: a database's data, log and tablespaces. */
export const MAX_GROUP_SNAPSHOTS = 64;

assert(INDEX_BLOCK_BYTES === 2112, "the native side hands over index blocks of 2,112 bytes");
assert(BLOCKS_PER_CHUNK % 8 === 0 && SPANS_PER_PIECE % 8 === 0, "bitmaps are whole bytes");
assert(
  JOURNAL_OFFSET >= SUPERBLOCK_B_OFFSET + SUPERBLOCK_BYTES,
  "the journal is after superblock B",
);
