// Which hosts may connect to a volume, and who is connected. Nobody may who is not on its list.
//
// A host that is taken off the list, or disconnected, is fenced: the call returns when nothing of
// it runs in the volume any more. The list is durable first, so that the host does not come back in
// between.

import { type DhchapKey, parseDhchapKey } from "../base/dhchap-key.js";
import { PandoError } from "../base/errors.js";
import { splitName } from "../base/name.js";
import { parseVolumeNqn } from "../base/nqn.js";
import { parseTlsPsk } from "../base/tls-psk.js";
import { allowHost, denyHost, findNameByUuid, getVolume } from "../store/catalogue.js";
import {
  getHostKeys,
  getTlsPsk,
  listHostKeys,
  listTlsHosts,
  putHostKeys,
  putTlsPsk,
  removeHostKeys,
  removeTlsPsk,
} from "../store/host-keys.js";
import type { Store } from "../store/store.js";
import type { ConnectionInfo, HostKeysInfo } from "./api.js";
import type { HostVolumes } from "./host-volumes.js";
import { requireOpen, rest, TURN } from "./turns.js";

/** What connected hosts are to be told, or to feel. */
export interface HostNews {
  /** Ends the host's connections to the volume, and waits for their last request. */
  disconnect(volumeUuid: string, hostNqn: string): Promise<Fence>;
  /** Of one host, or of all. */
  connections(hostNqn: string | null): Promise<HostConnection[]>;
  /** `volume`: the data path's number of it. */
  resized(volume: number): void;
  /** Discovery lists something else to these hosts. */
  exportsChanged(hostNqns: string[]): void;
}

export interface Fence {
  controllers: number;
  /** False: requests of the host still run; it was not waited for any longer. */
  ended: boolean;
}

export interface HostConnection {
  subsystemNqn: string;
  hostNqn: string;
  peer: string;
  controllerId: number;
  ioQueues: number;
  authenticated: boolean;
  tls: boolean;
  connectedMs: number;
}

interface Named {
  name: string;
  uuid: string;
  connection: HostConnection;
}

export interface HostsParts {
  store: Store;
  news: HostNews;
  volumes: HostVolumes;
  /** Runs one change of the catalogue, alone. */
  change<T>(work: () => Promise<T>): Promise<T>;
  /** Settles when what the data path has said so far has been dealt with. */
  settled(): Promise<unknown>;
  closed(): boolean;
}

export class Hosts {
  readonly #parts: HostsParts;

  constructor(parts: HostsParts) {
    this.#parts = parts;
  }

  async allow(volume: string, hostNqn: string): Promise<void> {
    const { store, news, volumes, change } = this.#parts;
    await change(async () => {
      const { uuid } = await store.transact((txn) => allowHost(txn, volume, hostNqn));
      volumes.allowed(hostNqn, uuid);
    });
    news.exportsChanged([hostNqn]);
  }

  async deny(volume: string, hostNqn: string): Promise<void> {
    const { store, news, volumes, change } = this.#parts;
    const uuid = await change(async () => {
      const record = await store.transact((txn) => {
        const before = getVolume(txn, volume);
        // What changes nothing writes nothing.
        return before.allowedHosts.includes(hostNqn) ? denyHost(txn, volume, hostNqn) : before;
      });
      volumes.denied(hostNqn, record.uuid);
      return record.uuid;
    });
    news.exportsChanged([hostNqn]);
    await this.#fence({ volume, uuid, hostNqn });
  }

  /** How many controllers the host had. */
  async disconnect(volume: string, hostNqn: string): Promise<number> {
    const { uuid } = getVolume(this.#parts.store, volume);
    return this.#fence({ volume, uuid, hostNqn });
  }

  /** Of one volume, or of all. */
  async connections(volume?: string): Promise<ConnectionInfo[]> {
    const { store } = this.#parts;
    if (volume !== undefined) getVolume(store, volume);
    return (await this.#named(null))
      .filter(({ name }) => volume === undefined || isOf(name, volume))
      .map(({ name, connection: { subsystemNqn: _nqn, connectedMs, ...rest } }) => ({
        volume: name,
        ...rest,
        connectedSeconds: Math.floor(connectedMs / 1000),
      }));
  }

  /** What is connected, of one host or of all, under its name: a volume's, or VOLUME@SNAPSHOT. */
  async #named(hostNqn: string | null): Promise<Named[]> {
    const { store, news, closed } = this.#parts;
    const connections = await news.connections(hostNqn);
    requireOpen(closed);
    const found: Named[] = [];
    for (const [index, connection] of connections.entries()) {
      if (index % TURN === TURN - 1) await rest(closed);
      const uuid = parseVolumeNqn(connection.subsystemNqn);
      const name = uuid === null ? undefined : findNameByUuid(store, uuid);
      if (uuid !== null && name !== undefined) found.push({ name, uuid, connection });
    }
    return found;
  }

  /**
   * From now on the host has to prove who it is. Where it is connected without having done so, it
   * is put out; a host that had other keys stays until it connects again.
   */
  async setKeys(hostNqn: string, keys: { host: string; controller: string | null }): Promise<void> {
    const { store, change } = this.#parts;
    const hostKey = parseDhchapKey(keys.host, "host key");
    const controllerKey =
      keys.controller === null ? null : parseDhchapKey(keys.controller, "controller key");
    if (controllerKey !== null && sameSecret(hostKey, controllerKey)) {
      throw new PandoError("EINVAL", "the host key and the controller key are the same", {
        field: "controller key",
        hint: "whoever has one could answer for the other: make a key for each",
      });
    }
    await change(() =>
      store.transact((txn) => putHostKeys(txn, hostNqn, { hostKey, controllerKey })),
    );
    await this.#putOut(hostNqn, ({ authenticated }) => !authenticated);
  }

  /** The host need not prove who it is any more. */
  async removeKeys(hostNqn: string): Promise<void> {
    const { store, change } = this.#parts;
    if (getHostKeys(store, hostNqn) === null) {
      throw new PandoError("ENOTFOUND", `host ${hostNqn} has no keys`, {
        hint: "pando host keys",
      });
    }
    await change(() => store.transact((txn) => removeHostKeys(txn, hostNqn)));
  }

  /**
   * From now on the host has to use TLS. Where it is connected without, it is put out; a host that
   * had another key stays until it connects again. True if it had none.
   */
  async setTlsKey(hostNqn: string, key: string): Promise<boolean> {
    const { store, news, change } = this.#parts;
    const psk = parseTlsPsk(key, "TLS key");
    const isNew = await change(() =>
      store.transact((txn) => {
        const isNew = getTlsPsk(txn, hostNqn) === null;
        putTlsPsk(txn, hostNqn, psk);
        return isNew;
      }),
    );
    news.exportsChanged([hostNqn]);
    await this.#putOut(hostNqn, ({ tls }) => !tls);
    return isNew;
  }

  /** The host need not use TLS any more, and cannot. */
  async removeTlsKey(hostNqn: string): Promise<void> {
    const { store, news, change } = this.#parts;
    if (getTlsPsk(store, hostNqn) === null) {
      throw new PandoError("ENOTFOUND", `host ${hostNqn} has no TLS key`, {
        hint: "pando host keys",
      });
    }
    await change(() => store.transact((txn) => removeTlsPsk(txn, hostNqn)));
    news.exportsChanged([hostNqn]);
  }

  /** Who has keys; never which. */
  keys(): HostKeysInfo[] {
    const { store } = this.#parts;
    const found = new Map<string, HostKeysInfo>();
    for (const { hostNqn, keys } of listHostKeys(store)) {
      const bidirectional = keys.controllerKey !== null;
      found.set(hostNqn, { hostNqn, proves: true, bidirectional, tls: false });
    }
    for (const hostNqn of listTlsHosts(store)) {
      const keys = found.get(hostNqn) ?? { hostNqn, proves: false, bidirectional: false };
      found.set(hostNqn, { ...keys, tls: true });
    }
    return [...found.values()].sort((one, other) => (one.hostNqn < other.hostNqn ? -1 : 1));
  }

  /** Fences the host where its connections are such. */
  async #putOut(hostNqn: string, such: (one: HostConnection) => boolean): Promise<void> {
    const connected = (await this.#named(hostNqn)).filter(({ connection }) => such(connection));
    for (const { name, uuid } of connected) await this.#fence({ volume: name, uuid, hostNqn });
  }

  async #fence(of: { volume: string; uuid: string; hostNqn: string }): Promise<number> {
    const { volume, uuid, hostNqn } = of;
    const { news, settled } = this.#parts;
    // Its snapshots are read by the volume's hosts, and by nobody who is no longer one.
    const snapshots = (await this.#named(hostNqn))
      .filter(({ name }) => name !== volume && isOf(name, volume))
      .map((connected) => connected.uuid);
    const fences = await Promise.all(
      [uuid, ...new Set(snapshots)].map((each) => news.disconnect(each, hostNqn)),
    );
    await settled();
    const controllers = fences.reduce((sum, fence) => sum + fence.controllers, 0);
    if (fences.every(({ ended }) => ended)) return controllers;
    throw new PandoError(
      "EBUSY",
      `host ${hostNqn} is disconnected from volume ${volume}, but requests of it still run there`,
      { volume, hint: "what it has sent may still be written; ask again until this succeeds" },
    );
  }
}

function sameSecret(one: DhchapKey, other: DhchapKey): boolean {
  return Buffer.compare(one.secret, other.secret) === 0;
}

/** The volume itself, or a snapshot of it. */
function isOf(name: string, volume: string): boolean {
  return splitName(name).volume === volume;
}
