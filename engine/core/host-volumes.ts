// Which volumes a host may have: what discovery asks, of any host that names itself, as often as it
// likes.
//
// The store has the hosts of a volume. The other direction is kept here, in memory: made by one
// walk through the store when it is first asked for, a page at a time so that others get their
// turns, and told of every change from then on. It only says where to look; what counts is the
// volume's record.
import { setImmediate as othersTurn } from "node:timers/promises";
import { findNameByUuid, findVolume, listVolumes, type VolumeEntry } from "../store/catalogue.js";
import type { StoreReader } from "../store/store.js";

const PAGE = 500;

export class HostVolumes {
  readonly #store: StoreReader;
  readonly #closed: () => boolean;
  /** By host: the UUIDs of its volumes. */
  readonly #uuids = new Map<string, Set<string>>();
  #walk: Promise<void> | null = null;

  /** `closed`: the store is not to be read any more. */
  constructor(store: StoreReader, closed: () => boolean) {
    this.#store = store;
    this.#closed = closed;
  }

  /** The host is on the volume's list now. */
  allowed(hostNqn: string, uuid: string): void {
    if (this.#walk !== null) this.#add(hostNqn, uuid);
  }

  /** It is not any more, or the volume is gone. */
  denied(hostNqn: string, uuid: string): void {
    const uuids = this.#uuids.get(hostNqn);
    if (uuids?.delete(uuid) && uuids.size === 0) this.#uuids.delete(hostNqn);
  }

  /** By name. Rejects if the pool is closed meanwhile. */
  async of(hostNqn: string): Promise<VolumeEntry[]> {
    this.#walk ??= this.#walkStore().catch((error: unknown) => {
      this.#walk = null;
      throw error;
    });
    await this.#walk;
    this.#requireOpen();
    const found: VolumeEntry[] = [];
    for (const [index, uuid] of [...(this.#uuids.get(hostNqn) ?? [])].entries()) {
      if (index % PAGE === PAGE - 1) await this.#rest();
      const name = findNameByUuid(this.#store, uuid);
      const record = name === undefined ? undefined : findVolume(this.#store, name);
      if (name !== undefined && record?.allowedHosts.includes(hostNqn))
        found.push({ name, record });
    }
    return found.sort((one, other) => (one.name < other.name ? -1 : 1));
  }

  async #walkStore(): Promise<void> {
    for (let after: string | null = null; ; await this.#rest()) {
      const page = listVolumes(this.#store, { after, limit: PAGE });
      for (const { record } of page) {
        for (const hostNqn of record.allowedHosts) this.#add(hostNqn, record.uuid);
      }
      after = page.at(-1)?.name ?? null;
      if (after === null) return;
    }
  }

  async #rest(): Promise<void> {
    await othersTurn();
    this.#requireOpen();
  }

  #requireOpen(): void {
    if (this.#closed()) throw new Error("the pool has been closed");
  }

  #add(hostNqn: string, uuid: string): void {
    const uuids = this.#uuids.get(hostNqn);
    if (uuids === undefined) this.#uuids.set(hostNqn, new Set([uuid]));
    else uuids.add(uuid);
  }
}
