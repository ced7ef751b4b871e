// A pool whose volumes have everything mapped and nothing written: index blocks, made in the store
// itself, over a data file that is one hole. What the size of an index costs is measured, and
// neither what it took to get there nor the device.
//
// Physical numbers are spread over the pool, as years of random writes would leave them: in
// sequence an index shrinks to nothing. Each span's index block is in one of the layers of the
// volume's line, all over it.
import { rmSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { BLOCKS_PER_CHUNK, SLOTS_PER_SPAN } from "../../engine/base/constants.js";
import { newUuid } from "../../engine/base/random.js";
import { createPool, poolPaths } from "../../engine/core/format.js";
import { createSnapshot, createVolume, putSpaceRecord } from "../../engine/store/catalogue.js";
import { CHUNK_BYTES, encodeBitmap, setBit } from "../../engine/store/codec-bitmaps.js";
import { emptyIndexBlock, setSlot } from "../../engine/store/codec-index-block.js";
import { chunkKey } from "../../engine/store/codec-keys.js";
import { changeIndex } from "../../engine/store/index-changes.js";
import { createLayer, freezeLayer } from "../../engine/store/layers.js";
import { Lineage } from "../../engine/store/lineage.js";
import { openLmdbStore } from "../../engine/store/lmdb-store.js";
import type { StoreTransaction } from "../../engine/store/store.js";

const BLOCK_BYTES = 4096;
const STAT_BLOCK_BYTES = 512;
const PIECE_BYTES = 4 * 1024 * 1024;
export const SPAN_BYTES = SLOTS_PER_SPAN * BLOCK_BYTES;
const SPANS_PER_TRANSACTION = 4096;
const CREATED_AT = "2026-01-01T00:00:00.000Z";
/** Odd, so that it meets every block of a power of two of them. */
const STRIDE = 2_654_435_761;

export interface MappedVolume {
  name: string;
  bytes: number;
  /** Layers on its line, each but the last a snapshot: `${name}@s0` is the oldest. */
  layers: number;
}

export interface MappedPoolOptions {
  inSequence?: boolean;
  /**
   * So much of the free blocks is written beforehand, and there is at least so much: the first
   * write of a hole changes the file system's index, which a device has not.
   */
  writtenBytes?: number;
  progress: (text: string) => void;
}

/** Volumes whose sizes add up to a power of two; as much again is free. */
export async function makeMappedPool(
  path: string,
  volumes: readonly MappedVolume[],
  { inSequence = false, writtenBytes = 0, progress }: MappedPoolOptions,
): Promise<{ storeBytes: number }> {
  rmSync(path, { recursive: true, force: true });
  const mappedBytes = volumes.reduce((sum, { bytes }) => sum + bytes, 0);
  const mapped = mappedBytes / BLOCK_BYTES;
  const sizeBytes = mappedBytes + Math.max(mappedBytes, 2 * writtenBytes);
  const { dataOffsetBytes } = await createPool(path, { sizeBytes, sparse: true });
  const store = openLmdbStore(poolPaths(path).meta);
  const numberOf = (at: number): number => (inSequence ? at + 1 : spread(at, mapped) + 1);
  try {
    let begun = 0;
    for (const volume of volumes) {
      const line = await store.transact((txn) => addVolume(txn, volume));
      const spans = volume.bytes / SPAN_BYTES;
      for (let span = 0; span < spans; span += SPANS_PER_TRANSACTION) {
        const end = Math.min(spans, span + SPANS_PER_TRANSACTION);
        await store.transact((txn) => addSpans(txn, line, { span, end, begun, numberOf }));
        progress(`${volume.name}: ${end} of ${spans} spans`);
      }
      begun += spans * SLOTS_PER_SPAN;
    }
    await store.transact((txn) => allocate(txn, mapped));
  } finally {
    await store.close();
  }
  if (writtenBytes > 0) {
    progress("the free blocks that come first are written");
    await writeRange(poolPaths(path).data, dataOffsetBytes + mappedBytes, writtenBytes);
  }
  // The file has room ahead, as a hole.
  const { blocks } = statSync(join(poolPaths(path).meta, "data.mdb"));
  return { storeBytes: blocks * STAT_BLOCK_BYTES };
}

async function writeRange(path: string, offset: number, length: number): Promise<void> {
  const file = await open(path, "r+");
  try {
    const piece = Buffer.alloc(PIECE_BYTES, 1);
    for (let at = 0; at < length; at += piece.length) await file.write(piece, 0, null, offset + at);
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Of `count` places; each once, if they are a power of two. */
function spread(at: number, count: number): number {
  return (Math.imul(at, STRIDE) >>> 0) % count;
}

/** Its layers, the root first. */
function addVolume(txn: StoreTransaction, { name, bytes, layers }: MappedVolume): number[] {
  const line: number[] = [];
  const uuid = newUuid();
  const common = { sizeBytes: bytes, createdAt: CREATED_AT };
  for (let at = 0; at < layers; at++) {
    const { id } = createLayer(txn, line.at(-1) ?? null);
    line.push(id);
    if (at < layers - 1) freezeLayer(txn, id);
  }
  const live = line.at(-1) as number;
  createVolume(txn, name, { ...common, uuid, layer: live, allowedHosts: [], origin: null });
  for (const [at, layer] of line.slice(0, -1).entries()) {
    createSnapshot(txn, name, `s${at}`, { ...common, uuid: newUuid(), layer, volumeUuid: uuid });
  }
  return line;
}

interface Part {
  span: number;
  end: number;
  /** Blocks that are mapped before the first span of the volume. */
  begun: number;
  numberOf: (at: number) => number;
}

function addSpans(
  txn: StoreTransaction,
  line: number[],
  { span, end, begun, numberOf }: Part,
): void {
  const depth = Math.max(1, line.length - 1);
  changeIndex(txn, new Lineage(), (index) => {
    for (let at = span; at < end; at++) {
      const raw = emptyIndexBlock();
      for (let slot = 0; slot < SLOTS_PER_SPAN; slot++) {
        setSlot(raw, slot, numberOf(begun + at * SLOTS_PER_SPAN + slot), true);
      }
      index.put(line[spread(at, depth)] as number, at, raw);
    }
  });
}

/** Blocks 1 to `count` are taken. */
function allocate(txn: StoreTransaction, count: number): void {
  for (let chunk = 0; chunk * BLOCKS_PER_CHUNK <= count; chunk++) {
    const bits = new Uint8Array(CHUNK_BYTES);
    for (let bit = 0; bit < BLOCKS_PER_CHUNK; bit++) {
      const block = chunk * BLOCKS_PER_CHUNK + bit;
      if (block >= 1 && block <= count) setBit(bits, bit);
    }
    txn.put("free", chunkKey(chunk), encodeBitmap(chunkKey(chunk), bits));
  }
  putSpaceRecord(txn, { allocatedBlocks: count });
}
