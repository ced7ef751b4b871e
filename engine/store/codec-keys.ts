// Keys of the store. Numbers are big-endian, so that the order of bytes is the order of numbers and
// one range scan visits a layer's index blocks in the order of its spans.
import { assert } from "../base/assert.js";
import { PandoError } from "../base/errors.js";
import type { RangeOptions } from "./store.js";

export const META_POOL = Buffer.from("pool");
export const META_JOURNAL = Buffer.from("journal");
export const META_IDS = Buffer.from("ids");
export const META_SPACE = Buffer.from("space");
export const META_SHARES = Buffer.from("shares");
export const META_GROW = Buffer.from("grow");
export const META_LINEAGE = Buffer.from("lineage");
/** And the host's NQN. */
export const META_HOST_KEYS = "host-keys/";
export const META_TLS_KEYS = "tls-keys/";

const U32_LIMIT = 2 ** 32;

/** A layer, in `layers` and `reclaim`. */
export function layerKey(layer: number): Uint8Array {
  const key = Buffer.allocUnsafe(8);
  writeU64(key, 0, layer);
  return key;
}

export function decodeLayerKey(key: Uint8Array): number {
  requireLength(key, 8, "a layer");
  return readU64(key, 0);
}

/** A child of a layer, in `children`. */
export function childKey(parent: number, child: number): Uint8Array {
  const key = Buffer.allocUnsafe(16);
  writeU64(key, 0, parent);
  writeU64(key, 8, child);
  return key;
}

export function decodeChildKey(key: Uint8Array): { parent: number; child: number } {
  requireLength(key, 16, "a child");
  return { parent: readU64(key, 0), child: readU64(key, 8) };
}

/** A span's index block in `index`, or a piece of a span set in `spans`. */
export function spanKey(storageKey: number, spanOrPiece: number): Uint8Array {
  const key = Buffer.allocUnsafe(12);
  writeU64(key, 0, storageKey);
  key.writeUInt32BE(spanOrPiece, 8);
  return key;
}

export function decodeSpanKey(key: Uint8Array): { storageKey: number; span: number } {
  requireLength(key, 12, "a span");
  return { storageKey: readU64(key, 0), span: viewOf(key).getUint32(8) };
}

/** A chunk of the free map, in `free`. */
export function chunkKey(chunk: number): Uint8Array {
  const key = Buffer.allocUnsafe(4);
  key.writeUInt32BE(chunk, 0);
  return key;
}

export function decodeChunkKey(key: Uint8Array): number {
  requireLength(key, 4, "a chunk of the free map");
  return viewOf(key).getUint32(0);
}

/** A volume's name or a volume's UUID, in `volumes` and `uuids`. */
export function textKey(text: string): Uint8Array {
  assert(text.length > 0 && !text.includes("\0"), "a name is not empty and has no NUL");
  return Buffer.from(text, "utf8");
}

export function decodeTextKey(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.length).toString("utf8");
}

export function snapshotKey(volume: string, snapshot: string): Uint8Array {
  return Buffer.concat([textKey(volume), Buffer.from([0]), textKey(snapshot)]);
}

export function decodeSnapshotKey(key: Uint8Array): { volume: string; snapshot: string } {
  const text = decodeTextKey(key);
  const split = text.indexOf("\0");
  if (split <= 0 || split === text.length - 1) throw impossible(key, "a snapshot");
  return { volume: text.slice(0, split), snapshot: text.slice(split + 1) };
}

/** All snapshots of one volume. */
export function snapshotsOf(volume: string): RangeOptions {
  const name = textKey(volume);
  return {
    start: Buffer.concat([name, Buffer.from([0])]),
    end: Buffer.concat([name, Buffer.from([1])]),
  };
}

/** The lowest key above this one. */
export function keyAfter(key: Uint8Array): Uint8Array {
  return Buffer.concat([key, Buffer.from([0])]);
}

/** All keys whose first u64 is `id`: a parent's children, a storage key's spans. */
export function rangeOf(id: number): RangeOptions {
  return { start: layerKey(id), end: layerKey(id + 1) };
}

function writeU64(target: Buffer, offset: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, `${value} is not an id`);
  target.writeUInt32BE(Math.floor(value / U32_LIMIT), offset);
  target.writeUInt32BE(value % U32_LIMIT, offset + 4);
}

function readU64(source: Uint8Array, offset: number): number {
  const view = viewOf(source);
  const value = view.getUint32(offset) * U32_LIMIT + view.getUint32(offset + 4);
  if (!Number.isSafeInteger(value)) throw impossible(source, "an id below 2^53");
  return value;
}

/** Keys are read from a store that may be damaged. */
function requireLength(key: Uint8Array, bytes: number, what: string): void {
  if (key.length !== bytes) throw impossible(key, what);
}

function impossible(key: Uint8Array, what: string): PandoError {
  const hex = Buffer.from(key.buffer, key.byteOffset, key.length).toString("hex");
  return new PandoError("ECORRUPT", `store: 0x${hex} is not the key of ${what}`);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
