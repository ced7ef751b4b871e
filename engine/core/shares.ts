// Which volumes the kernel's own NVMe target serves, in place of ours. The store says which; the
// kernel is brought to that by whoever is attached here.
//
// The store is changed first, durably: whatever happens then, the next start finishes it. Only a
// share that fails is taken back. A shared volume belongs to that target alone: no front end of
// ours, no delete. It grows only where the kernel's block device can.
import { PandoError } from "../base/errors.js";
import type { TlsPsk } from "../base/tls-psk.js";
import { findNameByUuid, getShares, getVolume, putShares } from "../store/catalogue.js";
import { getHostKeys, getTlsPsk, type HostKeys } from "../store/host-keys.js";
import type { Store } from "../store/store.js";
import type { Fence } from "./hosts.js";
import type { OpenVolumes } from "./open-volumes.js";

export interface SharedVolume {
  name: string;
  uuid: string;
  sizeBytes: number;
  allowedHosts: readonly string[];
  /** Of those that have to prove themselves. */
  keys: ReadonlyMap<string, HostKeys>;
  /** Of all of them, where the kernel's target demands TLS. */
  tlsKeys: ReadonlyMap<string, TlsPsk>;
}

/** The kernel's target, and the block devices that it serves. */
export interface KernelTarget {
  /** Whether it demands TLS of every host; else there is none. */
  readonly tls: boolean;
  /**
   * Brings it to these volumes, and no others of this pool. A volume that cannot be served now does
   * not keep the others from it: why, by its UUID. Rejects if nothing can be said of any.
   */
  apply(volumes: readonly SharedVolume[]): Promise<ReadonlyMap<string, unknown>>;
  /** Whether hosts may be connected to the volume; the kernel may not be able to say. */
  hostsMayBeConnected(): Promise<boolean>;
  /** Whether a larger size of the volume can be applied. */
  canGrow(uuid: string): boolean;
  /** Ends every connection to the volume and waits for its last request; then as apply(). */
  fence(uuid: string, volumes: readonly SharedVolume[]): Promise<Fence>;
}

export interface SharesParts {
  store: Store;
  volumes: Pick<OpenVolumes, "requireClosed">;
  /** Runs one change of the catalogue, alone. */
  change<T>(work: () => Promise<T>): Promise<T>;
}

export class Shares {
  readonly #parts: SharesParts;
  #target: KernelTarget | null = null;

  constructor(parts: SharesParts) {
    this.#parts = parts;
  }

  /** From here on sharing is possible. What is shared already is served when this resolves. */
  async attach(target: KernelTarget): Promise<void> {
    this.#target = target;
    await target.apply(this.list());
  }

  uuids(): ReadonlySet<string> {
    return new Set(getShares(this.#parts.store));
  }

  list(): SharedVolume[] {
    const { store } = this.#parts;
    return getShares(store).flatMap((uuid) => {
      const name = findNameByUuid(store, uuid);
      if (name === undefined) return [];
      const { sizeBytes, allowedHosts: listed } = getVolume(store, name);
      // There TLS is demanded of every host or of none: the others do not get in.
      const tls = this.#target?.tls ?? false;
      const allowedHosts = listed.filter((host) => (getTlsPsk(store, host) !== null) === tls);
      const keys = new Map<string, HostKeys>();
      const tlsKeys = new Map<string, TlsPsk>();
      for (const host of allowedHosts) {
        const own = getHostKeys(store, host);
        if (own !== null) keys.set(host, own);
        const psk = getTlsPsk(store, host);
        if (psk !== null) tlsKeys.set(host, psk);
      }
      return [{ name, uuid, sizeBytes, allowedHosts, keys, tlsKeys }];
    });
  }

  async share(name: string): Promise<void> {
    const target = this.#needTarget(name);
    const { change, volumes } = this.#parts;
    const { uuid, added } = await change(async () => {
      const { uuid } = getVolume(this.#parts.store, name);
      if (this.#isShared(uuid)) return { uuid, added: false };
      volumes.requireClosed(name);
      await this.#put(uuid, true);
      return { uuid, added: true };
    });
    try {
      await this.#applyFor(uuid, target);
    } catch (error) {
      if (added) await this.#takeBack(uuid, target);
      throw error;
    }
  }

  async unshare(name: string, options: { force: boolean }): Promise<void> {
    const { store, change } = this.#parts;
    const { uuid } = getVolume(store, name);
    if (!this.#isShared(uuid)) return;
    const target = this.#needTarget(name);
    if (!options.force && (await target.hostsMayBeConnected())) {
      throw new PandoError("EBUSY", `hosts are connected to nvmet, perhaps to volume ${name}`, {
        volume: name,
        hint: `disconnect them, or end their connections: pando volume unshare ${name} --force`,
      });
    }
    await change(() => this.#put(uuid, false));
    await target.apply(this.list());
  }

  /** After hosts got keys, or lost them. */
  async keysChanged(): Promise<void> {
    if (this.#target === null || this.uuids().size === 0) return;
    for (const failure of (await this.#target.apply(this.list())).values()) throw failure;
  }

  /** A host was let in, or it has grown; harmless for a volume that is not shared. */
  async volumeChanged(name: string): Promise<void> {
    const { uuid } = getVolume(this.#parts.store, name);
    if (this.#isShared(uuid)) await this.#applyFor(uuid, this.#needTarget(name));
  }

  /** Ends what a host has at the kernel's target that is not let in there any more. */
  async putOut(hostNqn: string): Promise<void> {
    for (const { name, uuid, allowedHosts } of this.list()) {
      const listed = getVolume(this.#parts.store, name).allowedHosts.includes(hostNqn);
      if (!listed || allowedHosts.includes(hostNqn)) continue;
      const fence = await this.fence(uuid);
      if (fence === null || fence.ended) continue;
      throw new PandoError("EBUSY", `host ${hostNqn} may still be connected to volume ${name}`, {
        volume: name,
        hint: `pando host disconnect ${name} ${hostNqn}`,
      });
    }
  }

  /** Null for a volume that is not shared. */
  fence(uuid: string): Promise<Fence> | null {
    if (this.#target === null || !this.#isShared(uuid)) return null;
    return this.#target.fence(uuid, this.list());
  }

  requireNotShared(name: string): void {
    if (!this.#isShared(getVolume(this.#parts.store, name).uuid)) return;
    throw new PandoError("EBUSY", `volume ${name} is shared via nvmet`, {
      volume: name,
      hint: `pando volume unshare ${name}`,
    });
  }

  requireCanGrow(name: string): void {
    const { uuid } = getVolume(this.#parts.store, name);
    if (!this.#isShared(uuid) || this.#needTarget(name).canGrow(uuid)) return;
    throw new PandoError(
      "EBUSY",
      `volume ${name} is shared via nvmet, and its block device there keeps its size`,
      { volume: name, hint: `pando volume unshare ${name}` },
    );
  }

  #isShared(uuid: string): boolean {
    return getShares(this.#parts.store).includes(uuid);
  }

  async #applyFor(uuid: string, target: KernelTarget): Promise<void> {
    const failures = await target.apply(this.list());
    if (failures.has(uuid)) throw failures.get(uuid);
  }

  async #takeBack(uuid: string, target: KernelTarget): Promise<void> {
    await this.#parts.change(() => this.#put(uuid, false));
    // What is half made goes away now or at the next start; the first error is the one to tell.
    await target.apply(this.list()).catch(() => undefined);
  }

  async #put(uuid: string, shared: boolean): Promise<void> {
    await this.#parts.store.transact((txn) => {
      const others = getShares(txn).filter((other) => other !== uuid);
      putShares(txn, shared ? [...others, uuid].sort() : others);
    });
  }

  #needTarget(volume: string): KernelTarget {
    if (this.#target !== null) return this.#target;
    throw new PandoError("EINVAL", "the daemon has no address for nvmet", {
      volume,
      field: "nvmet",
      hint: 'start it with --nvmet HOST:PORT, or "nvmet" in its configuration',
    });
  }
}
