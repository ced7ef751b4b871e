// Answers the front ends: may this host have that volume, and which ones may it have at all. Deny
// unless allowed.
//
// Every open event is answered once; every one that is answered with a volume is balanced by one
// close event.

import { type Addon, type FrontEnd, OPEN_STATUS, type PoolEvent } from "../../native/native.js";
import { isPandoError, PandoError } from "../base/errors.js";
import type { Log } from "../base/log.js";
import { isPartialName, parseSourceRef, splitName } from "../base/name.js";
import { parseVolumeNqn, volumeNqn } from "../base/nqn.js";
import {
  findNameByUuid,
  findVolume,
  getSnapshot,
  getVolume,
  type VolumeEntry,
} from "../store/catalogue.js";
import type { StoreReader } from "../store/store.js";
import type { Origin } from "./api.js";
import type { HostVolumes } from "./host-volumes.js";
import type { Mutex } from "./mutex.js";
import type { OpenVolumes } from "./open-volumes.js";
import { volumePages } from "./turns.js";

type Event<T extends PoolEvent["type"]> = Extract<PoolEvent, { type: T }>;

export interface VolumeExportsParts {
  addon: Pick<Addon, "exportsAnswerOpen" | "exportsAnswerList">;
  /** The addon's handle. */
  pool: () => number;
  store: StoreReader;
  volumes: Pick<OpenVolumes, "acquire" | "release" | "byId">;
  hostVolumes: HostVolumes;
  /** UUIDs of the volumes that the kernel's target serves. */
  shared(): ReadonlySet<string>;
  /** Whether this host has to prove who it is. */
  authenticates: (hostNqn: string) => boolean;
  /** Whether this host has to use TLS. */
  needsTls: (hostNqn: string) => boolean;
  /** The catalogue's lock. */
  catalogue: Mutex;
  closed: () => boolean;
  log: Log;
}

export class VolumeExports {
  readonly #parts: VolumeExportsParts;

  constructor(parts: VolumeExportsParts) {
    this.#parts = parts;
  }

  async open({ token, frontEnd, name, hostNqn, peer, tls }: Event<"open">): Promise<void> {
    const { addon, pool, volumes, authenticates, catalogue, log } = this.#parts;
    try {
      const { open, authenticate } = await catalogue.run(async () => {
        const volume = this.#resolve(frontEnd, name, hostNqn);
        if (frontEnd === "nvme-tcp" && !tls) this.#requireNoTls(hostNqn);
        const authenticate = frontEnd === "nvme-tcp" && authenticates(hostNqn);
        return { open: await volumes.acquire(volume, { frontEnd, hostNqn }), authenticate };
      });
      addon.exportsAnswerOpen(pool(), token, OPEN_STATUS.ok, open.id, authenticate);
    } catch (error) {
      log.info({ err: error, frontEnd, name, hostNqn, peer }, "open refused");
      addon.exportsAnswerOpen(pool(), token, openStatus(error), 0, false);
    }
  }

  async close({ volume, frontEnd, hostNqn }: Event<"close">): Promise<void> {
    const { volumes, catalogue, closed } = this.#parts;
    const open = volumes.byId(volume);
    if (open === undefined || closed()) return;
    await catalogue.run(() => volumes.release(open, { frontEnd, hostNqn }));
  }

  async list({ token, frontEnd, hostNqn }: Event<"list">): Promise<void> {
    const { addon, pool, closed, log } = this.#parts;
    if (closed()) return addon.exportsAnswerList(pool(), token, [], false);
    const nbd = frontEnd === "nbd";
    let names: string[] = [];
    let tls = false;
    try {
      names = nbd ? await this.#all() : await this.#discovered(hostNqn);
      tls = !nbd && this.#parts.needsTls(hostNqn);
    } catch (error) {
      if (!closed()) log.error({ err: error, frontEnd, hostNqn }, "cannot list volumes");
    }
    // Closed meanwhile: whoever asked has gone with the pool.
    if (closed()) return;
    addon.exportsAnswerList(pool(), token, names, tls);
  }

  /** NBD's socket is its owner's alone, who sees all of them. */
  async #all(): Promise<string[]> {
    const names: string[] = [];
    for await (const page of volumePages(this.#parts.store, this.#parts.closed)) {
      for (const { name } of this.#served(page)) names.push(name);
    }
    return names;
  }

  async #discovered(hostNqn: string): Promise<string[]> {
    const found = await this.#parts.hostVolumes.of(hostNqn);
    return this.#served(found).map(({ record }) => volumeNqn(record.uuid));
  }

  #served(volumes: VolumeEntry[]): VolumeEntry[] {
    const shared = this.#parts.shared();
    return volumes.filter(
      ({ record }) => !shared.has(record.uuid) && record.receiving === undefined,
    );
  }

  /**
   * The name of the volume or snapshot, if the host may have it. Snapshots are for the hosts of
   * their volume, as long as it is there.
   */
  #resolve(frontEnd: FrontEnd, name: string, hostNqn: string): string {
    const { store, closed } = this.#parts;
    if (closed()) throw new PandoError("ECLOSED", "the pool is closed");
    if (isKernels(frontEnd)) {
      this.#requireServedBy(frontEnd, name);
      return name;
    }
    if (frontEnd === "nbd") {
      // The socket is its owner's alone, and so is what is being received.
      if (isPartialName(name)) {
        getVolume(store, name);
        return name;
      }
      const { volume, snapshot } = parseExport(name);
      if (snapshot === null) this.#requireServedBy(frontEnd, volume);
      else getSnapshot(store, volume, snapshot);
      return name;
    }
    const uuid = parseVolumeNqn(name);
    const served = uuid === null ? undefined : findNameByUuid(store, uuid);
    if (served === undefined) throw new PandoError("ENOTFOUND", `there is no subsystem ${name}`);
    const { volume, snapshot } = splitName(served);
    if (!hostsOf(store, served).includes(hostNqn)) {
      throw new PandoError("EPERM", `host ${hostNqn} is not on the list of volume ${volume}`, {
        volume,
        hint: `pando host allow ${volume} ${hostNqn}`,
      });
    }
    if (snapshot === null) this.#requireServedBy(frontEnd, volume);
    return served;
  }

  /** A host with a TLS key: else whoever knows its name could come without it. */
  #requireNoTls(hostNqn: string): void {
    if (!this.#parts.needsTls(hostNqn)) return;
    throw new PandoError("EPERM", `host ${hostNqn} has a TLS key and came without TLS`, {
      hint: "connect with nvme connect --tls",
    });
  }

  /** What the kernel's target serves, it serves alone. */
  #requireServedBy(frontEnd: FrontEnd, volume: string): void {
    const shared = this.#parts.shared().has(getVolume(this.#parts.store, volume).uuid);
    if (shared === isKernels(frontEnd)) return;
    const by = shared ? "nvmet" : "this daemon";
    throw new PandoError("EBUSY", `volume ${volume} is served by ${by}`, {
      volume,
      hint: shared ? `pando volume unshare ${volume}` : `pando volume share ${volume} --via nvmet`,
    });
  }
}

/** Whether it is the kernel that gets the volume, as a block device. */
function isKernels(frontEnd: FrontEnd): boolean {
  return frontEnd === "ublk" || frontEnd === "nbd-device";
}

/** Who may connect to a volume, or to a snapshot: the hosts of the volume that it is of. */
export function hostsOf(store: StoreReader, name: string): string[] {
  const { volume, snapshot } = splitName(name);
  if (snapshot === null) return getVolume(store, volume).allowedHosts;
  const of = findVolume(store, volume);
  // Another volume may have the name since.
  const same = of?.uuid === getSnapshot(store, volume, snapshot).volumeUuid;
  return same ? (of?.allowedHosts ?? []) : [];
}

/** What cannot be a name is not there: a client may send anything. */
function parseExport(name: string): Origin {
  try {
    return parseSourceRef(name);
  } catch (cause) {
    throw new PandoError("ENOTFOUND", `there is no export ${name}`, {}, { cause });
  }
}

function openStatus(error: unknown): number {
  if (isPandoError(error, "ENOTFOUND")) return OPEN_STATUS.notFound;
  if (isPandoError(error, "EPERM")) return OPEN_STATUS.denied;
  if (isPandoError(error, "EBUSY")) return OPEN_STATUS.busy;
  return OPEN_STATUS.error;
}
