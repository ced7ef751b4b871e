// Layers in the store: their records, the tree they form, and which of them are waiting to be
// reclaimed. Operations on plain data inside a caller's transaction; what they change together
// (record, children, reclaim) is in step afterwards.
//
// Invariants: only frozen and hidden layers have children; a dead layer has none; `reclaim` names
// exactly the hidden and the dead; a parent's id is below its children's, so that walking up ends;
// ids and storage keys are never used again, but for the key of a parent, which its child may take
// over when it absorbs it.
import { assert } from "../base/assert.js";
import { PandoError } from "../base/errors.js";
import {
  childKey,
  decodeChildKey,
  decodeLayerKey,
  layerKey,
  META_IDS,
  META_LINEAGE,
  rangeOf,
} from "./codec-keys.js";
import {
  idsRecord,
  type LayerRecord,
  layerRecord,
  lineageRecord,
  type ReclaimRecord,
  reclaimRecord,
} from "./codec-records.js";
import { Decoded } from "./decoded.js";
import type { StoreReader, StoreTransaction } from "./store.js";

export interface LayerEntry {
  id: number;
  record: LayerRecord;
}

const EMPTY = new Uint8Array(0);
const decoded = new Decoded(layerRecord, "layers");

export function findLayer(reader: StoreReader, id: number): Readonly<LayerRecord> | undefined {
  const key = layerKey(id);
  const value = reader.get("layers", key);
  return value === undefined ? undefined : decoded.decode(id, key, value);
}

/** ECORRUPT if it is not there: whoever names a layer keeps it alive. */
export function getLayer(reader: StoreReader, id: number): Readonly<LayerRecord> {
  const record = findLayer(reader, id);
  if (record !== undefined) return record;
  throw new PandoError("ECORRUPT", `store: layer ${id} has no record`, { layer: id });
}

export function listLayers(reader: StoreReader): LayerEntry[] {
  return reader.range("layers", {}).map(({ key, value }) => ({
    id: decodeLayerKey(key),
    record: layerRecord.decode("layers", key, value),
  }));
}

export function putLayer(txn: StoreTransaction, id: number, record: LayerRecord): void {
  const key = layerKey(id);
  const old = findLayer(txn, id);
  const moved = old !== undefined && (old.parent !== record.parent || old.key !== record.key);
  if (moved) countLineageChange(txn);
  txn.put("layers", key, layerRecord.encode(key, record));
}

/** Up to `limit` of them, if it is given. */
export function listChildren(reader: StoreReader, id: number, limit?: number): number[] {
  const range = limit === undefined ? rangeOf(id) : { ...rangeOf(id), limit };
  return reader.range("children", range).map(({ key }) => decodeChildKey(key).child);
}

export function hasChildren(reader: StoreReader, id: number): boolean {
  return reader.range("children", { ...rangeOf(id), limit: 1 }).length > 0;
}

/** A new live layer without index blocks, on a frozen or hidden parent or on none. */
export function createLayer(txn: StoreTransaction, parent: number | null): LayerEntry {
  const id = takeLayerId(txn);
  if (parent !== null) {
    const state = getLayer(txn, parent).state;
    assert(state === "frozen" || state === "hidden", `layer ${parent} is ${state}: no children`);
    assert(parent < id, "a parent's id is below its children's");
    txn.put("children", childKey(parent, id), EMPTY);
  }
  const record: LayerRecord = {
    parent,
    state: "live",
    key: id,
    indexBlocks: 0,
    ownedBlocks: 0,
    mappedDelta: 0,
  };
  putLayer(txn, id, record);
  return { id, record };
}

/** A live layer becomes a snapshot's: it takes no more writes and may have children. */
export function freezeLayer(txn: StoreTransaction, id: number): void {
  const record = getLayer(txn, id);
  assert(record.state === "live", `layer ${id} is ${record.state}, not live`);
  putLayer(txn, id, { ...record, state: "frozen" });
}

/**
 * Nobody's any more (its volume or snapshot was deleted): hidden if it has children, else dead.
 * `since` is the time of it.
 */
export function abandonLayer(txn: StoreTransaction, id: number, since: string): void {
  const record = getLayer(txn, id);
  assert(record.state === "live" || record.state === "frozen", `layer ${id} is ${record.state}`);
  const state = hasChildren(txn, id) ? "hidden" : "dead";
  putLayer(txn, id, { ...record, state });
  const key = layerKey(id);
  txn.put("reclaim", key, reclaimRecord.encode(key, { since }));
}

/**
 * Removes the record of a dead layer, after verifying that no index block is left under its key.
 * Its parent dies with its last child if it is hidden; the parent's id is returned then.
 */
export function removeLayer(txn: StoreTransaction, id: number): { parentDied: number | null } {
  const record = getLayer(txn, id);
  assert(record.state === "dead", `layer ${id} is ${record.state}, not dead`);
  assert(!hasChildren(txn, id), `layer ${id} has children`);
  assertEmpty(txn, id, record);
  txn.remove("layers", layerKey(id));
  txn.remove("reclaim", layerKey(id));
  const parent = record.parent;
  if (parent === null) return { parentDied: null };
  assert(txn.remove("children", childKey(parent, id)), `layer ${id} was not its parent's child`);
  const parentRecord = getLayer(txn, parent);
  if (parentRecord.state !== "hidden" || hasChildren(txn, parent)) return { parentDied: null };
  putLayer(txn, parent, { ...parentRecord, state: "dead" });
  return { parentDied: parent };
}

/** The only child of a hidden layer; null if it has others, or is not hidden. */
export function onlyChild(reader: StoreReader, id: number): number | null {
  if (findLayer(reader, id)?.state !== "hidden") return null;
  const children = reader.range("children", { ...rangeOf(id), limit: 2 });
  const [first] = children;
  return first === undefined || children.length > 1 ? null : decodeChildKey(first.key).child;
}

/**
 * Removes the record of a hidden layer whose index blocks have all gone to its only child, after
 * verifying that; the child goes on above the layer's own parent.
 */
export function removeFoldedLayer(txn: StoreTransaction, id: number, child: number): void {
  const record = getLayer(txn, id);
  assert(onlyChild(txn, id) === child, `layer ${id} is hidden, and layer ${child} its only child`);
  assertEmpty(txn, id, record);
  assert(record.mappedDelta === 0, `layer ${id} still adds to what its child sees`);
  txn.remove("layers", layerKey(id));
  txn.remove("reclaim", layerKey(id));
  txn.remove("children", childKey(id, child));
  const { parent } = record;
  if (parent !== null) {
    assert(txn.remove("children", childKey(parent, id)), `layer ${id} was its parent's child`);
    txn.put("children", childKey(parent, child), EMPTY);
  }
  putLayer(txn, child, { ...getLayer(txn, child), parent });
}

/** Hidden and dead layers, with the time of their deletion. */
export function listReclaim(reader: StoreReader): ({ id: number } & ReclaimRecord)[] {
  return reader.range("reclaim", {}).map(({ key, value }) => ({
    id: decodeLayerKey(key),
    ...reclaimRecord.decode("reclaim", key, value),
  }));
}

/**
 * The number of changes of span sets, parents and storage keys so far. A reader that remembers any
 * of these compares it, in the same read transaction in which it uses them.
 */
export function lineageChanges(reader: StoreReader): number {
  const value = reader.get("meta", META_LINEAGE);
  return value === undefined ? 0 : lineageRecord.decode("meta", META_LINEAGE, value).changes;
}

export function countLineageChange(txn: StoreTransaction): void {
  const changes = lineageChanges(txn) + 1;
  txn.put("meta", META_LINEAGE, lineageRecord.encode(META_LINEAGE, { changes }));
}

export interface KnownTotals {
  /** Of any layer: good for one step. */
  memo?: Map<number, number>;
  /** Of frozen layers: what these see stays the same. */
  frozen?: ReadonlyMap<number, number>;
  /** What a layer adds that the store does not count yet. */
  pending?: ReadonlyMap<number, number>;
  /** Spares what the caller has read already. */
  layerOf?: (id: number) => LayerRecord;
}

/**
 * How many slots the layer sees mapped, inherited ones included: the sum along its line, up to the
 * first layer whose total is known.
 */
export function mappedBlocks(reader: StoreReader, id: number, known: KnownTotals = {}): number {
  const { memo, frozen, pending, layerOf = (layer) => getLayer(reader, layer) } = known;
  const line: LayerEntry[] = [];
  let total = 0;
  for (let at: number | null = id; at !== null; ) {
    const record = layerOf(at);
    // A hidden one sees less when it is swept, and those below it add more then.
    const sum = memo?.get(at) ?? (record.state === "frozen" ? frozen?.get(at) : undefined);
    if (sum !== undefined) {
      total = sum;
      break;
    }
    line.push({ id: at, record });
    at = record.parent;
  }
  for (const entry of line.reverse()) {
    total += entry.record.mappedDelta + (pending?.get(entry.id) ?? 0);
    memo?.set(entry.id, total);
  }
  return total;
}

function assertEmpty(reader: StoreReader, id: number, { key }: LayerRecord): void {
  const left = { ...rangeOf(key), limit: 1 };
  const none = reader.range("index", left).length + reader.range("spans", left).length === 0;
  assert(none, `layer ${id} still has index blocks`);
}

function takeLayerId(txn: StoreTransaction): number {
  const value = txn.get("meta", META_IDS);
  if (value === undefined) throw new PandoError("ECORRUPT", "store: meta has no ids");
  const ids = idsRecord.decode("meta", META_IDS, value);
  const next = { nextLayer: ids.nextLayer + 1 };
  txn.put("meta", META_IDS, idsRecord.encode(META_IDS, next));
  return ids.nextLayer;
}
