// The ublk block devices of one pool's volumes: makes them, takes them over from a daemon that was
// killed, removes them.
//
// The kernel keeps 64 bits with each device for its server. Ours say whose it is: 24 bits of the
// pool's UUID, 40 of the volume's. So a device is found again after a kill, and one whose volume is
// not wanted any more is known as an orphan. A device whose server lives is never touched.
import { readdir } from "node:fs/promises";
import { PandoError } from "../engine/base/errors.js";
import type { SharedVolume } from "../engine/core/shares.js";
import type { Addon, UblkInfo } from "../native/native.js";
import type { BlockDevices } from "./block-devices.js";

export type UblkCalls = Pick<
  Addon,
  | "ublkMissing"
  | "ublkAdd"
  | "ublkInfo"
  | "ublkStart"
  | "ublkStartRecovery"
  | "ublkEndRecovery"
  | "ublkStop"
  | "ublkDelete"
  | "ublkServe"
  | "ublkRelease"
>;

export interface UblkDevicesParts {
  addon: UblkCalls;
  /** The addon's handle. */
  pool: number;
  poolUuid: string;
  blockSizeBytes: number;
  atomicUnit: number;
  sleep(ms: number): Promise<void>;
  /** The numbers of all ublk devices that there are. */
  listDevices(): Promise<number[]>;
}

interface OtherDevice extends UblkInfo {
  device: number;
}

/** How long the kernel may take to notice that the server of a device is gone. */
const RECOVERY_TRIES = 600;
const RECOVERY_WAIT_MS = 50;

export class UblkDevices implements BlockDevices {
  readonly #parts: UblkDevicesParts;
  /** Devices that this process serves, by the volume's UUID. */
  readonly #served = new Map<string, number>();
  /** What daemons before this one have left: looked for once, since no more of it comes. */
  #left: OtherDevice[] | null = null;

  constructor(parts: UblkDevicesParts) {
    this.#parts = parts;
  }

  async provide(volume: SharedVolume): Promise<string> {
    const served = this.#served.get(volume.uuid);
    if (served !== undefined) return devicePath(served);
    const left = await this.#findLeft(volume);
    const device = left ?? (await this.#make(volume));
    if (left !== null) await this.#recover(left, volume);
    this.#left = (this.#left ?? []).filter(({ owner }) => owner !== this.#owner(volume.uuid));
    this.#served.set(volume.uuid, device);
    return devicePath(device);
  }

  async stopOrphans(wanted: ReadonlySet<string>): Promise<void> {
    for (const device of await this.#orphans(wanted)) await this.#parts.addon.ublkStop(device);
  }

  async removeOthers(wanted: ReadonlySet<string>): Promise<void> {
    const { addon, pool } = this.#parts;
    for (const [uuid, device] of [...this.#served]) {
      if (wanted.has(uuid)) continue;
      await addon.ublkStop(device);
      await addon.ublkRelease(pool, device);
      await addon.ublkDelete(device);
      this.#served.delete(uuid);
    }
    for (const orphan of await this.#orphans(wanted)) {
      await addon.ublkStop(orphan);
      await addon.ublkDelete(orphan);
      this.#left = (this.#left ?? []).filter(({ device }) => device !== orphan);
    }
  }

  /** The driver learns to change a size with Linux 6.16. */
  canGrow(): boolean {
    return false;
  }

  nameOf(uuid: string): string | undefined {
    const device = this.#served.get(uuid);
    return device === undefined ? undefined : `ublkb${device}`;
  }

  /** Why no device can be made here; null if one can. */
  async whyNot(): Promise<PandoError | null> {
    let missing: number;
    try {
      missing = await this.#parts.addon.ublkMissing();
    } catch (cause) {
      const why = hasCode(cause, "ENOENT") ? "there is no /dev/ublk-control" : String(cause);
      return new PandoError(
        "EINVAL",
        `ublk is not available on this machine: ${why}`,
        { field: "via", hint: "modprobe ublk_drv, or nbd, as root; pando doctor says more" },
        { cause },
      );
    }
    if (missing === 0) return null;
    const lacks = `ublk of this kernel lacks features 0x${missing.toString(16)}`;
    return new PandoError("EINVAL", lacks, {
      field: "via",
      hint: "Linux 6.5 or newer has them; or, as root, modprobe nbd",
    });
  }

  async #orphans(wanted: ReadonlySet<string>): Promise<number[]> {
    const prefix = this.#owner("").slice(0, POOL_DIGITS);
    const owners = new Set([...wanted].map((uuid) => this.#owner(uuid)));
    const found: number[] = [];
    for (const { device, owner, state, serverPid } of await this.#others()) {
      if (!owner.startsWith(prefix) || owners.has(owner)) continue;
      if (state === "live" && isAlive(serverPid)) continue;
      found.push(device);
    }
    return found;
  }

  async #make(volume: SharedVolume): Promise<number> {
    const { addon, pool, blockSizeBytes, atomicUnit } = this.#parts;
    const whyNot = await this.whyNot();
    if (whyNot !== null) throw whyNot;
    const device = await addon.ublkAdd({
      owner: this.#owner(volume.uuid),
      sizeBytes: volume.sizeBytes,
      blockBytes: blockSizeBytes,
      atomicBytes: atomicUnit,
      readOnly: false,
    });
    try {
      await addon.ublkServe(pool, device, volume.name);
      await addon.ublkStart(device);
    } catch (error) {
      await addon.ublkStop(device).catch(() => undefined);
      await addon.ublkRelease(pool, device).catch(() => undefined);
      await addon.ublkDelete(device).catch(() => undefined);
      throw error;
    }
    return device;
  }

  /**
   * The device that a daemon before this one has left, whose requests wait. That one is dead, since
   * this one has the pool's lock; the kernel may take a moment to see it.
   */
  async #findLeft(volume: SharedVolume): Promise<number | null> {
    const owner = this.#owner(volume.uuid);
    this.#left ??= await this.#others();
    let found: number | null = null;
    for (const other of this.#left.filter((left) => left.owner === owner)) {
      // One that was never started has nothing to recover, and nobody has it.
      if (other.state === "dead") await this.#parts.addon.ublkDelete(other.device);
      else if (other.sizeBytes === volume.sizeBytes) found = other.device;
    }
    return found;
  }

  async #recover(device: number, volume: SharedVolume): Promise<void> {
    const { addon, pool, sleep } = this.#parts;
    for (let tries = 1; ; tries++) {
      try {
        await addon.ublkStartRecovery(device);
        break;
      } catch (error) {
        if (!hasCode(error, "EBUSY") || tries === RECOVERY_TRIES) throw error;
        await sleep(RECOVERY_WAIT_MS);
      }
    }
    await addon.ublkServe(pool, device, volume.name);
    await addon.ublkEndRecovery(device);
  }

  async #others(): Promise<OtherDevice[]> {
    const { addon, listDevices } = this.#parts;
    const served = new Set(this.#served.values());
    const found: OtherDevice[] = [];
    for (const device of await listDevices()) {
      if (served.has(device)) continue;
      const info = await addon.ublkInfo(device).catch(() => null);
      if (info !== null) found.push({ device, ...info });
    }
    return found;
  }

  #owner(volumeUuid: string): string {
    const digits = (uuid: string) => uuid.replaceAll("-", "");
    return (
      digits(this.#parts.poolUuid).slice(0, POOL_DIGITS) +
      digits(volumeUuid).slice(0, VOLUME_DIGITS)
    );
  }
}

const POOL_DIGITS = 6;
const VOLUME_DIGITS = 10;

/** Those that the kernel has now. */
export async function listUblkDevices(): Promise<number[]> {
  const names = await readdir("/sys/class/ublk-char").catch(() => []);
  return names.flatMap((name) => {
    const [, number] = /^ublkc([0-9]+)$/.exec(name) ?? [];
    return number === undefined ? [] : [Number(number)];
  });
}

function devicePath(device: number): string {
  return `/dev/ublkb${device}`;
}

function isAlive(pid: number): boolean {
  if (pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return hasCode(error, "EPERM");
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
