// Which volumes a host may have: what discovery asks, of any host that names itself, as often as it
// likes.
//
// The store has the hosts of a volume. The other direction is kept here, in memory: made by one
// walk through the store when it is first asked for, a page at a time so that others get their
// turns, and told of every change from then on. It only says where to look; what counts is the
// volume's record.
import { findNameByUuid, findVolume, type VolumeEntry } from "../store/catalogue.js";
import type { StoreReader } from "../store/store.js";
import { requireOpen, rest, TURN, volumePages } from "./turns.js";

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
    requireOpen(this.#closed);
    const found: VolumeEntry[] = [];
    for (const [index, uuid] of [...(this.#uuids.get(hostNqn) ?? [])].entries()) {
      if (index % TURN === TURN - 1) await rest(this.#closed);
      const name = findNameByUuid(this.#store, uuid);
      const record = name === undefined ? undefined : findVolume(this.#store, name);
      if (name !== undefined && record?.allowedHosts.includes(hostNqn))
        found.push({ name, record });
    }
    return found.sort((one, other) => (one.name < other.name ? -1 : 1));
  }

  async #walkStore(): Promise<void> {
    for await (const page of volumePages(this.#store, this.#closed)) {
      for (const { record } of page) {
        for (const hostNqn of record.allowedHosts) this.#add(hostNqn, record.uuid);
      }
    }
  }

  #add(hostNqn: string, uuid: string): void {
    const uuids = this.#uuids.get(hostNqn);
    if (uuids === undefined) this.#uuids.set(hostNqn, new Set([uuid]));
    else uuids.add(uuid);
  }
}
