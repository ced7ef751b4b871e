// Names in the store: volumes, snapshots, the hosts that may connect, the UUID index, and the
// pool's own few records.
// Operations on plain data inside a caller's transaction; no I/O of its own and no policy: what a
// deletion means for the layers is core's to decide (layers.ts has the steps).
import { assert } from "../base/assert.js";
import { PandoError } from "../base/errors.js";
import type { SnapshotRef } from "../base/name.js";
import {
  decodeSnapshotKey,
  decodeTextKey,
  keyAfter,
  META_GROW,
  META_IDS,
  META_JOURNAL,
  META_POOL,
  META_SHARES,
  META_SPACE,
  snapshotKey,
  snapshotsOf,
  textKey,
} from "./codec-keys.js";
import {
  type GrowRecord,
  growRecord,
  type IdsRecord,
  idsRecord,
  type JournalRecord,
  journalRecord,
  type PoolRecord,
  poolRecord,
  type RecordCodec,
  type SnapshotRecord,
  type SpaceRecord,
  sharesRecord,
  snapshotRecord,
  spaceRecord,
  uuidRecord,
  type VolumeRecord,
  volumeRecord,
} from "./codec-records.js";
import type { Space, StoreReader, StoreTransaction } from "./store.js";

export interface VolumeEntry {
  name: string;
  record: VolumeRecord;
}

export interface SnapshotEntry {
  volume: string;
  name: string;
  record: SnapshotRecord;
}

// The pool's own records.

export function getPoolRecord(reader: StoreReader): PoolRecord {
  return need(reader, META_POOL, poolRecord);
}

export function putPoolRecord(txn: StoreTransaction, record: PoolRecord): void {
  txn.put("meta", META_POOL, poolRecord.encode(META_POOL, record));
}

export function findGrowRecord(reader: StoreReader): GrowRecord | undefined {
  return find(reader, "meta", META_GROW, growRecord);
}

/** Null: the pool is what its record says. */
export function putGrowRecord(txn: StoreTransaction, record: GrowRecord | null): void {
  if (record === null) txn.remove("meta", META_GROW);
  else txn.put("meta", META_GROW, growRecord.encode(META_GROW, record));
}

export function getJournalRecord(reader: StoreReader): JournalRecord {
  return need(reader, META_JOURNAL, journalRecord);
}

/** Epoch and tail never go back. */
export function putJournalRecord(txn: StoreTransaction, record: JournalRecord): void {
  const value = txn.get("meta", META_JOURNAL);
  if (value !== undefined) {
    const old = journalRecord.decode("meta", META_JOURNAL, value);
    assert(record.tail >= old.tail, `the journal's tail goes back from ${old.tail}`);
    assert(record.epoch >= old.epoch, `the epoch goes back from ${old.epoch}`);
  }
  txn.put("meta", META_JOURNAL, journalRecord.encode(META_JOURNAL, record));
}

export function getSpaceRecord(reader: StoreReader): SpaceRecord {
  return need(reader, META_SPACE, spaceRecord);
}

export function putSpaceRecord(txn: StoreTransaction, record: SpaceRecord): void {
  txn.put("meta", META_SPACE, spaceRecord.encode(META_SPACE, record));
}

export function getIdsRecord(reader: StoreReader): IdsRecord {
  return need(reader, META_IDS, idsRecord);
}

export function putIdsRecord(txn: StoreTransaction, record: IdsRecord): void {
  txn.put("meta", META_IDS, idsRecord.encode(META_IDS, record));
}

/** UUIDs of the volumes that the kernel's NVMe target serves. */
export function getShares(reader: StoreReader): string[] {
  return find(reader, "meta", META_SHARES, sharesRecord)?.nvmet ?? [];
}

/** A pool that shares nothing has no such record. */
export function putShares(txn: StoreTransaction, nvmet: string[]): void {
  if (nvmet.length === 0) txn.remove("meta", META_SHARES);
  else txn.put("meta", META_SHARES, sharesRecord.encode(META_SHARES, { nvmet }));
}

// Volumes.

export function findVolume(reader: StoreReader, name: string): VolumeRecord | undefined {
  return find(reader, "volumes", textKey(name), volumeRecord);
}

export function getVolume(reader: StoreReader, name: string): VolumeRecord {
  const record = findVolume(reader, name);
  if (record !== undefined) return record;
  throw noVolume(name);
}

export function noVolume(name: string): PandoError {
  return new PandoError("ENOTFOUND", `there is no volume ${name}`, { volume: name });
}

/** A part of a list, by names: those after `after`, at most `limit` of them. */
export interface Page<Place> {
  after: Place | null;
  limit: number;
}

export function listVolumes(reader: StoreReader, page?: Page<string>): VolumeEntry[] {
  const start = page?.after == null ? {} : { start: keyAfter(textKey(page.after)) };
  const range = page === undefined ? {} : { ...start, limit: page.limit };
  return reader.range("volumes", range).map(({ key, value }) => ({
    name: decodeTextKey(key),
    record: volumeRecord.decode("volumes", key, value),
  }));
}

/** VOLUME, or VOLUME@SNAPSHOT, or undefined. */
export function findNameByUuid(reader: StoreReader, uuid: string): string | undefined {
  return find(reader, "uuids", textKey(uuid), uuidRecord)?.name;
}

export function createVolume(txn: StoreTransaction, name: string, record: VolumeRecord): void {
  if (findVolume(txn, name) !== undefined) {
    throw new PandoError("EEXIST", `volume ${name} exists already`, { volume: name });
  }
  indexUuid(txn, record.uuid, name);
  writeVolume(txn, name, record);
}

/** Name and UUID stay as they are. */
export function updateVolume(txn: StoreTransaction, name: string, record: VolumeRecord): void {
  assert(getVolume(txn, name).uuid === record.uuid, `the UUID of volume ${name} never changes`);
  writeVolume(txn, name, record);
}

/** Forgets the name; gives the record, whose layer is the caller's to abandon. */
export function deleteVolume(txn: StoreTransaction, name: string): VolumeRecord {
  const record = getVolume(txn, name);
  txn.remove("volumes", textKey(name));
  forgetUuid(txn, record.uuid);
  return record;
}

/** Adds the host to those that may connect; harmless if it is there. */
export function allowHost(txn: StoreTransaction, name: string, hostNqn: string): VolumeRecord {
  const record = getVolume(txn, name);
  if (record.allowedHosts.includes(hostNqn)) return record;
  const changed = { ...record, allowedHosts: [...record.allowedHosts, hostNqn].sort() };
  writeVolume(txn, name, changed);
  return changed;
}

/** Harmless if it was not allowed. */
export function denyHost(txn: StoreTransaction, name: string, hostNqn: string): VolumeRecord {
  const record = getVolume(txn, name);
  const allowedHosts = record.allowedHosts.filter((host) => host !== hostNqn);
  const changed = { ...record, allowedHosts };
  writeVolume(txn, name, changed);
  return changed;
}

// Snapshots.

export function findSnapshot(
  reader: StoreReader,
  volume: string,
  name: string,
): SnapshotRecord | undefined {
  return find(reader, "snapshots", snapshotKey(volume, name), snapshotRecord);
}

export function getSnapshot(reader: StoreReader, volume: string, name: string): SnapshotRecord {
  const record = findSnapshot(reader, volume, name);
  if (record !== undefined) return record;
  throw noSnapshot(volume, name);
}

export function noSnapshot(volume: string, name: string): PandoError {
  return new PandoError("ENOTFOUND", `there is no snapshot ${volume}@${name}`, {
    volume,
    snapshot: name,
  });
}

/** Identity of what is in a snapshot, the same in every pool that it was sent to. */
export function contentsOf(record: SnapshotRecord): string {
  return record.contents ?? record.uuid;
}

/** All snapshots, or those of one volume. */
export function listSnapshots(
  reader: StoreReader,
  volume?: string,
  page?: Page<SnapshotRef>,
): SnapshotEntry[] {
  const all = volume === undefined ? {} : snapshotsOf(volume);
  const after = page?.after ?? null;
  const start =
    after === null ? {} : { start: keyAfter(snapshotKey(after.volume, after.snapshot)) };
  const range = page === undefined ? all : { ...all, ...start, limit: page.limit };
  return reader.range("snapshots", range).map(({ key, value }) => {
    const names = decodeSnapshotKey(key);
    const record = snapshotRecord.decode("snapshots", key, value);
    return { volume: names.volume, name: names.snapshot, record };
  });
}

export function createSnapshot(
  txn: StoreTransaction,
  volume: string,
  name: string,
  record: SnapshotRecord,
): void {
  if (findSnapshot(txn, volume, name) !== undefined) {
    const context = { volume, snapshot: name };
    throw new PandoError("EEXIST", `snapshot ${volume}@${name} exists already`, context);
  }
  const key = snapshotKey(volume, name);
  indexUuid(txn, record.uuid, `${volume}@${name}`);
  txn.put("snapshots", key, snapshotRecord.encode(key, record));
}

/** Forgets the name; gives the record, whose layer is the caller's to abandon. */
export function deleteSnapshot(
  txn: StoreTransaction,
  volume: string,
  name: string,
): SnapshotRecord {
  const record = getSnapshot(txn, volume, name);
  txn.remove("snapshots", snapshotKey(volume, name));
  forgetUuid(txn, record.uuid);
  return record;
}

function indexUuid(txn: StoreTransaction, uuid: string, name: string): void {
  const key = textKey(uuid);
  assert(txn.get("uuids", key) === undefined, `the UUID ${uuid} is taken`);
  txn.put("uuids", key, uuidRecord.encode(key, { name }));
}

/**
 * The first pools had only volumes in `uuids`: their snapshots get their entries here. In one that
 * has all of them this is a comparison of counts.
 */
export function indexOldSnapshots(txn: StoreTransaction): void {
  if (txn.count("uuids") === txn.count("volumes") + txn.count("snapshots")) return;
  for (const { volume, name, record } of listSnapshots(txn)) {
    if (txn.get("uuids", textKey(record.uuid)) === undefined) {
      indexUuid(txn, record.uuid, `${volume}@${name}`);
    }
  }
}

function forgetUuid(txn: StoreTransaction, uuid: string): void {
  assert(txn.remove("uuids", textKey(uuid)), `the UUID ${uuid} was not indexed`);
}

function writeVolume(txn: StoreTransaction, name: string, record: VolumeRecord): void {
  const key = textKey(name);
  txn.put("volumes", key, volumeRecord.encode(key, record));
}

function find<T>(
  reader: StoreReader,
  space: Space,
  key: Uint8Array,
  codec: RecordCodec<T>,
): T | undefined {
  const value = reader.get(space, key);
  return value === undefined ? undefined : codec.decode(space, key, value);
}

function need<T>(reader: StoreReader, key: Uint8Array, codec: RecordCodec<T>): T {
  const record = find(reader, "meta", key, codec);
  if (record !== undefined) return record;
  const name = Buffer.from(key).toString("utf8");
  throw new PandoError("ECORRUPT", `store: meta has no record "${name}"`, { field: name });
}
