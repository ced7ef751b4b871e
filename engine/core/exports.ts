// Answers the front ends: may this host have that volume, and which ones may it have at all. Deny
// unless allowed.
//
// Every open event is answered once; every one that is answered with a volume is balanced by one
// close event.

import { type Addon, type FrontEnd, OPEN_STATUS, type PoolEvent } from "../../native/native.js";
import { isPandoError, PandoError } from "../base/errors.js";
import type { Log } from "../base/log.js";
import { parseVolumeNqn, volumeNqn } from "../base/nqn.js";
import { findVolumeByUuid, getVolume, listVolumes } from "../store/catalogue.js";
import type { StoreReader } from "../store/store.js";
import type { Mutex } from "./mutex.js";
import type { OpenVolumes } from "./open-volumes.js";

type Event<T extends PoolEvent["type"]> = Extract<PoolEvent, { type: T }>;

export interface VolumeExportsParts {
  addon: Addon;
  /** The addon's handle. */
  pool: () => number;
  store: StoreReader;
  volumes: OpenVolumes;
  /** Whether this host has to prove who it is. */
  authenticates: (hostNqn: string) => boolean;
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

  async open({ token, frontEnd, name, hostNqn, peer }: Event<"open">): Promise<void> {
    const { addon, pool, volumes, authenticates, catalogue, log } = this.#parts;
    try {
      const { open, authenticate } = await catalogue.run(async () => {
        const volume = this.#resolve(frontEnd, name, hostNqn);
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

  list({ token, frontEnd, hostNqn }: Event<"list">): void {
    const { addon, pool, store, closed } = this.#parts;
    const names = closed()
      ? []
      : listVolumes(store)
          .filter(({ record }) => frontEnd === "nbd" || record.allowedHosts.includes(hostNqn))
          .map(({ name, record }) => (frontEnd === "nbd" ? name : volumeNqn(record.uuid)));
    addon.exportsAnswerList(pool(), token, names);
  }

  /** The volume's name, if the host may have it. */
  #resolve(frontEnd: FrontEnd, name: string, hostNqn: string): string {
    const { store, closed } = this.#parts;
    if (closed()) throw new PandoError("ECLOSED", "the pool is closed");
    if (frontEnd === "nbd") {
      getVolume(store, name);
      return name;
    }
    const uuid = parseVolumeNqn(name);
    const volume = uuid === null ? undefined : findVolumeByUuid(store, uuid);
    if (volume === undefined) throw new PandoError("ENOTFOUND", `there is no subsystem ${name}`);
    if (!getVolume(store, volume).allowedHosts.includes(hostNqn)) {
      throw new PandoError("EPERM", `host ${hostNqn} is not on the list of volume ${volume}`, {
        volume,
        hint: `pando host allow ${volume} ${hostNqn}`,
      });
    }
    return volume;
  }
}

function openStatus(error: unknown): number {
  if (isPandoError(error, "ENOTFOUND")) return OPEN_STATUS.notFound;
  if (isPandoError(error, "EPERM")) return OPEN_STATUS.denied;
  if (isPandoError(error, "EBUSY")) return OPEN_STATUS.busy;
  return OPEN_STATUS.error;
}
