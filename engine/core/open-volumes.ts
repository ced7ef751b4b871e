// Which volumes the data path has open, and for whom. A volume is opened when the first one asks
// for it and closed when the last one has let go; while closed it costs nothing but its records in
// the store.
//
// A snapshot is opened in the same way, as VOLUME@SNAPSHOT, to be read only.
//
// One front end serves a volume at a time; what is only read, any number. The engine's own
// operations hold volumes too, besides any front end.
// Callers hold the catalogue's lock.

import type { FrontEnd } from "../../native/native.js";
import { assert } from "../base/assert.js";
import { PandoError } from "../base/errors.js";
import { splitName } from "../base/name.js";
import { getSnapshot, getVolume } from "../store/catalogue.js";
import { getLayer } from "../store/layers.js";
import type { StoreReader } from "../store/store.js";
import { uuidToBytes } from "../store/uuid.js";
import type { SessionInfo } from "./api.js";
import type { DataPath } from "./data-path.js";
import { limitsOf, nativeLimits } from "./limits.js";

/** Who holds a volume. */
export type Holder = { frontEnd: FrontEnd; hostNqn: string } | "engine";

export interface OpenVolume {
  /** The data path's number for it. */
  id: number;
  name: string;
  uuid: string;
  /** The live layer; a snapshot's frozen one. */
  layer: number;
  readOnly: boolean;
  sizeBytes: number;
  holds: number;
  sessions: SessionInfo[];
}

export class OpenVolumes {
  readonly #store: StoreReader;
  readonly #path: DataPath;
  readonly #open = new Map<string, OpenVolume>();
  readonly #byId = new Map<number, OpenVolume>();
  /**
   * Layers made in this process that the data path has never seen: the store has nothing of them.
   */
  readonly #bornHere = new Set<number>();
  #nextId = 1;

  constructor(store: StoreReader, path: DataPath) {
    this.#store = store;
    this.#path = path;
  }

  born(layer: number): void {
    this.#bornHere.add(layer);
  }

  /** The store has index blocks of the layer now, although the data path never had it. */
  gotIndexBlocks(layer: number): void {
    this.#bornHere.delete(layer);
  }

  /** An open volume's live layer. */
  isLive(layer: number): boolean {
    return this.all().some((volume) => volume.layer === layer);
  }

  find(name: string): OpenVolume | undefined {
    return this.#open.get(name);
  }

  byId(id: number): OpenVolume | undefined {
    return this.#byId.get(id);
  }

  all(): OpenVolume[] {
    return [...this.#open.values()];
  }

  sessions(name: string): SessionInfo[] {
    return (this.#open.get(name)?.sessions ?? []).map((session) => ({ ...session }));
  }

  /** EBUSY, with the names of those who have it open. */
  requireClosed(name: string): void {
    const volume = this.#open.get(name);
    if (volume === undefined) return;
    const holders = volume.sessions.map((session) => session.hostNqn || session.frontEnd);
    const who = holders.length === 0 ? "the engine" : holders.join(", ");
    const what = volume.readOnly ? "snapshot" : "volume";
    throw new PandoError("EBUSY", `${what} ${name} is in use by ${who}`, {
      volume: name,
      hint: "disconnect it there first",
    });
  }

  async acquire(name: string, holder: Holder): Promise<OpenVolume> {
    const volume = this.#open.get(name) ?? (await this.#openVolume(name));
    if (holder !== "engine") {
      const other = volume.sessions.find((session) => session.frontEnd !== holder.frontEnd);
      if (other !== undefined && !volume.readOnly) {
        throw new PandoError("EBUSY", `volume ${name} is served by ${other.frontEnd}`, {
          volume: name,
          hint: "disconnect it there first",
        });
      }
      const session = findSession(volume, holder);
      if (session === undefined) volume.sessions.push({ ...holder, count: 1 });
      else session.count++;
    }
    volume.holds++;
    return volume;
  }

  async release(volume: OpenVolume, holder: Holder): Promise<void> {
    if (holder !== "engine") {
      const session = findSession(volume, holder);
      assert(session !== undefined, `volume ${volume.name} is not open for ${holder.hostNqn}`);
      if (--session.count === 0) volume.sessions.splice(volume.sessions.indexOf(session), 1);
    }
    assert(volume.holds > 0, `volume ${volume.name} is let go more often than it was taken`);
    if (--volume.holds > 0) return;
    this.#open.delete(volume.name);
    await this.#path.closeVolume(volume.id);
    this.#byId.delete(volume.id);
  }

  /** Whoever still holds them: before the pool closes. */
  async closeAll(): Promise<void> {
    for (const volume of this.all()) {
      this.#open.delete(volume.name);
      await this.#path.closeVolume(volume.id);
    }
    this.#byId.clear();
  }

  async #openVolume(name: string): Promise<OpenVolume> {
    const { volume: of, snapshot } = splitName(name);
    const readOnly = snapshot !== null;
    const record = readOnly ? getSnapshot(this.#store, of, snapshot) : getVolume(this.#store, of);
    const volume: OpenVolume = {
      id: this.#nextId++,
      name,
      uuid: record.uuid,
      layer: record.layer,
      readOnly,
      sizeBytes: record.sizeBytes,
      holds: 0,
      sessions: [],
    };
    await this.#path.openVolume({
      id: volume.id,
      name,
      uuid: uuidToBytes(record.uuid),
      sizeBytes: record.sizeBytes,
      readOnly,
      lineage: lineageOf(this.#store, record.layer),
      bornHere: this.#bornHere.has(record.layer),
      ...nativeLimits(limitsOf(record)),
    });
    this.#bornHere.delete(record.layer);
    this.#open.set(name, volume);
    this.#byId.set(volume.id, volume);
    return volume;
  }
}

function lineageOf(reader: StoreReader, layer: number): number[] {
  const line: number[] = [];
  for (let at: number | null = layer; at !== null; at = getLayer(reader, at).parent) line.push(at);
  return line;
}

function findSession(
  volume: OpenVolume,
  holder: Exclude<Holder, "engine">,
): SessionInfo | undefined {
  return volume.sessions.find(
    (session) => session.frontEnd === holder.frontEnd && session.hostNqn === holder.hostNqn,
  );
}
