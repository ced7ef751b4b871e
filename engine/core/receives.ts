// Volumes that are on their way in: a stream is received, or a file imported, into a partial volume
// that nobody is served and that becomes a volume, or a newer state of one, in one transaction when
// it is whole.
//
// A partial is a record in the catalogue under a name that no user can give, with what it will be
// and how far it has come; so it survives a crash, and goes on from there. Everything before
// `offsetBytes` is durable. It is written through the NBD front end under the same name.
//
// A stream that begins at a snapshot is received onto that snapshot's layer, and only if the volume
// has not changed since: no change of its users is ever thrown away here.
import { PandoError } from "../base/errors.js";
import { partialName, requireName } from "../base/name.js";
import {
  contentsOf,
  createSnapshot,
  createVolume,
  deleteVolume,
  findSnapshot,
  findVolume,
  getVolume,
  listSnapshots,
  listVolumes,
  type SnapshotEntry,
  updateVolume,
} from "../store/catalogue.js";
import type { ReceivingRecord, VolumeRecord } from "../store/codec-records.js";
import { abandonLayer, createLayer, freezeLayer, getLayer } from "../store/layers.js";
import type { StoreReader } from "../store/store.js";
import type { ReceiveInfo, ReceiveRequest } from "./api.js";
import { type BranchingParts, withFrozen } from "./branching.js";

/** Callers hold the catalogue's lock. */
export class Receives {
  readonly #parts: BranchingParts;

  constructor(parts: BranchingParts) {
    this.#parts = parts;
  }

  /** Begins, or with `resume` goes on with, what is received into this name. */
  async begin(request: ReceiveRequest): Promise<ReceiveInfo> {
    const { name, resume, ...wanted } = request;
    const { store, volumes, now, newUuid } = this.#parts;
    requireName(name, "volume");
    if (wanted.snapshot !== null) requireName(wanted.snapshot, "snapshot");
    const partial = partialName(name);
    const there = findVolume(store, partial);
    if (there !== undefined) {
      if (resume) return requireSame(name, there, wanted);
      throw new PandoError("EBUSY", `${name} is being received already`, {
        volume: name,
        hint: `pando volume receive ${name} --resume goes on; --abort begins anew`,
      });
    }
    if (resume) throw nothingReceived(name);
    if (wanted.snapshot !== null && findSnapshot(store, name, wanted.snapshot) !== undefined) {
      throw new PandoError("EEXIST", `snapshot ${name}@${wanted.snapshot} exists already`, {
        volume: name,
        snapshot: wanted.snapshot,
      });
    }
    const base = await this.#base(name, wanted.base);
    const record = await store.transact((txn) => {
      const layer = createLayer(txn, base?.record.layer ?? null);
      const { sizeBytes, ...receiving } = wanted;
      const made: VolumeRecord = {
        uuid: newUuid(),
        layer: layer.id,
        sizeBytes,
        createdAt: now(),
        allowedHosts: [],
        origin: null,
        receiving: { ...receiving, offsetBytes: 0 },
      };
      createVolume(txn, partial, made);
      return made;
    });
    volumes.born(record.layer);
    return describe(name, record);
  }

  /** What was written before the offset becomes durable, and need not come again. */
  async advance(name: string, offsetBytes: number): Promise<void> {
    const { store } = this.#parts;
    const partial = partialName(name);
    const { sizeBytes } = getPartial(store, name);
    if (!Number.isSafeInteger(offsetBytes) || offsetBytes < 0 || offsetBytes > sizeBytes) {
      throw new PandoError("EINVAL", `${offsetBytes} is not an offset in ${name}`, {
        volume: name,
        field: "offsetBytes",
      });
    }
    await this.#flush(partial);
    await store.transact((txn) => {
      const record = getPartial(txn, name);
      updateVolume(txn, partial, { ...record, receiving: { ...record.receiving, offsetBytes } });
    });
  }

  /** It is whole. Gives the layer that was deleted, if one was. */
  async finish(name: string): Promise<number | null> {
    const { store, volumes } = this.#parts;
    const { receiving } = getPartial(store, name);
    volumes.requireClosed(partialName(name));
    await this.#base(name, receiving.base);
    const { snapshot } = receiving;
    return snapshot === null ? this.#finishImport(name) : this.#finishStream(name, snapshot);
  }

  /** Forgets what has come. Gives the layer that was deleted. */
  async abort(name: string): Promise<number> {
    const { store, volumes, now } = this.#parts;
    getPartial(store, name);
    volumes.requireClosed(partialName(name));
    const { layer } = await store.transact((txn) => {
      const record = deleteVolume(txn, partialName(name));
      abandonLayer(txn, record.layer, now());
      return record;
    });
    return layer;
  }

  list(): ReceiveInfo[] {
    return listVolumes(this.#parts.store).flatMap(({ name, record }) =>
      record.receiving === undefined ? [] : [describe(name.slice(0, -1), record)],
    );
  }

  /** The snapshot that the stream begins at; null: it begins at nothing. */
  async #base(name: string, contents: string | null): Promise<SnapshotEntry | null> {
    const { store, volumes } = this.#parts;
    const volume = findVolume(store, name);
    if (contents === null) {
      if (volume === undefined) return null;
      throw new PandoError("EEXIST", `volume ${name} exists already`, { volume: name });
    }
    const base = listSnapshots(store, name).find(
      ({ record }) => contentsOf(record) === contents && record.volumeUuid === volume?.uuid,
    );
    if (base === undefined || volume === undefined) {
      throw new PandoError("EINVAL", `${name} has no snapshot that the stream begins at`, {
        volume: name,
        field: "base",
        hint: "receive the stream of that snapshot first, or one without --from",
      });
    }
    volumes.requireClosed(name);
    const { parent, ownedBlocks, mappedDelta } = getLayer(store, volume.layer);
    const [pending] = (await this.#parts.path.layerDeltas()).filter(
      ({ layer }) => layer === volume.layer,
    );
    // Every slot is either its own, or inherited, or a hole that it made.
    const owned = ownedBlocks + (pending?.owned ?? 0);
    const mapped = mappedDelta + (pending?.mapped ?? 0);
    if (parent === base.record.layer && owned === 0 && mapped === 0) return base;
    throw new PandoError("EBUSY", `volume ${name} has changed since ${name}@${base.name}`, {
      volume: name,
      snapshot: base.name,
      hint: `pando volume rollback ${name}@${base.name} gives the changes up`,
    });
  }

  /** All that has come becomes durable: what the store says of it from now on is true. */
  async #flush(partial: string): Promise<void> {
    const { path, volumes } = this.#parts;
    const open = await volumes.acquire(partial, "engine");
    try {
      await path.flushVolume(open.id);
    } finally {
      await volumes.release(open, "engine");
    }
  }

  async #finishImport(name: string): Promise<null> {
    const { store } = this.#parts;
    const partial = partialName(name);
    await this.#flush(partial);
    await store.transact((txn) => {
      const { receiving: _done, ...record } = deleteVolume(txn, partial);
      createVolume(txn, name, record);
    });
    return null;
  }

  async #finishStream(name: string, snapshot: string): Promise<number | null> {
    const { now, newUuid } = this.#parts;
    const partial = partialName(name);
    let deleted: number | null = null;
    await this.#flush(partial);
    await withFrozen(this.#parts, { volumes: [partial], made: [] }, (txn) => {
      const { receiving, ...record } = deleteVolume(txn, partial);
      freezeLayer(txn, record.layer);
      const live = createLayer(txn, record.layer);
      let { uuid } = record;
      if (receiving?.base === null) createVolume(txn, name, { ...record, layer: live.id });
      else {
        const before = getVolume(txn, name);
        uuid = before.uuid;
        const sizeBytes = Math.max(before.sizeBytes, record.sizeBytes);
        updateVolume(txn, name, { ...before, layer: live.id, sizeBytes });
        abandonLayer(txn, before.layer, now());
        deleted = before.layer;
      }
      createSnapshot(txn, name, snapshot, {
        uuid: newUuid(),
        layer: record.layer,
        sizeBytes: record.sizeBytes,
        createdAt: now(),
        volumeUuid: uuid,
        ...(receiving && { contents: receiving.contents }),
      });
      return [live.id];
    });
    return deleted;
  }
}

type PartialRecord = VolumeRecord & { receiving: ReceivingRecord };

function getPartial(reader: StoreReader, name: string): PartialRecord {
  const record = findVolume(reader, partialName(name));
  if (record?.receiving === undefined) throw nothingReceived(name);
  return { ...record, receiving: record.receiving };
}

function nothingReceived(name: string): PandoError {
  return new PandoError("ENOTFOUND", `nothing is being received into ${name}`, { volume: name });
}

function requireSame(
  name: string,
  there: VolumeRecord,
  wanted: Omit<ReceiveRequest, "name" | "resume">,
): ReceiveInfo {
  const info = describe(name, there);
  const fields = ["contents", "base", "sizeBytes", "snapshot"] as const;
  const other = fields.find((field) => info[field] !== wanted[field]);
  if (other === undefined) return info;
  throw new PandoError("EINVAL", `what was received into ${name} is of another stream`, {
    volume: name,
    field: other,
    hint: `pando volume receive ${name} --abort forgets it`,
  });
}

function describe(name: string, record: VolumeRecord): ReceiveInfo {
  const { snapshot, contents, base, offsetBytes } = record.receiving as ReceivingRecord;
  return { name, snapshot, contents, base, sizeBytes: record.sizeBytes, offsetBytes };
}
