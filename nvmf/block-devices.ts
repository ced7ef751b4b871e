// What the kernel's target needs below a volume: a block device that outlives the daemon. ublk's
// where the kernel has it; NBD's, which every kernel has, where not.
import type { SharedVolume } from "../engine/core/shares.js";
import type { NbdDevices } from "./nbd-devices.js";
import type { UblkDevices } from "./ublk-devices.js";

export interface BlockDevices {
  /** Serves the volume, in the size that it has now, and gives the path of its block device. */
  provide(volume: SharedVolume): Promise<string>;
  /**
   * Ends what waits in devices of this pool that nobody serves and nobody wants. Whoever uses one
   * still, as the kernel's target may, could not let go of it otherwise.
   */
  stopOrphans(wanted: ReadonlySet<string>): Promise<void>;
  /** Removes the devices of this pool's volumes that are not wanted. */
  removeOthers(wanted: ReadonlySet<string>): Promise<void>;
  /** Whether a larger volume can be provided with the same device, while it is in use. */
  canGrow(uuid: string): boolean;
  /** As in /sys/block, if this process serves the volume. */
  nameOf(uuid: string): string | undefined;
}

export class UblkOrNbd implements BlockDevices {
  readonly #ublk: UblkDevices;
  readonly #nbd: NbdDevices;

  constructor(ublk: UblkDevices, nbd: NbdDevices) {
    this.#ublk = ublk;
    this.#nbd = nbd;
  }

  async provide(volume: SharedVolume): Promise<string> {
    const devices = await this.#choose(volume.uuid);
    return devices.provide(volume);
  }

  async stopOrphans(wanted: ReadonlySet<string>): Promise<void> {
    await this.#ublk.stopOrphans(wanted);
    await this.#nbd.stopOrphans(wanted);
  }

  async removeOthers(wanted: ReadonlySet<string>): Promise<void> {
    await this.#ublk.removeOthers(wanted);
    await this.#nbd.removeOthers(wanted);
  }

  canGrow(uuid: string): boolean {
    return this.#nbd.canGrow(uuid);
  }

  nameOf(uuid: string): string | undefined {
    return this.#ublk.nameOf(uuid) ?? this.#nbd.nameOf(uuid);
  }

  /** What hosts wait for goes on as what it is, whatever has been loaded since. */
  async #choose(uuid: string): Promise<BlockDevices> {
    if (this.#ublk.nameOf(uuid) !== undefined) return this.#ublk;
    if (await this.#nbd.has(uuid)) return this.#nbd;
    const whyNot = await this.#ublk.whyNot();
    if (whyNot === null) return this.#ublk;
    if (await this.#nbd.isAvailable()) return this.#nbd;
    throw whyNot;
  }
}
