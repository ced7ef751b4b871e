// The NBD block devices of one pool's volumes, for kernels without ublk: makes them, takes them
// over from a daemon that was killed, removes them.
//
// The kernel keeps a text with each device and shows it: ours says the pool's UUID and the
// volume's. A device whose connection ends keeps its requests, those that were not answered too,
// and gives them to the next socket that it gets. So a device is found again after a kill, and also
// gets a new socket when the kernel gives up one that has only been slow.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { Mutex } from "../engine/core/mutex.js";
import type { SharedVolume } from "../engine/core/shares.js";
import type { Addon } from "../native/native.js";
import type { BlockDevices } from "./block-devices.js";

export type NbdCalls = Pick<
  Addon,
  | "nbdIsLoaded"
  | "nbdConnect"
  | "nbdReconnect"
  | "nbdResize"
  | "nbdDisconnect"
  | "nbdServe"
  | "nbdEnded"
  | "nbdRelease"
>;

export interface NbdDevicesParts {
  addon: NbdCalls;
  /** The addon's handle. */
  pool: number;
  poolUuid: string;
  /** The unit in which hosts address a volume. */
  blockBytes: number;
  kernel: NbdKernel;
  /** A volume that was served is not any more. */
  onFailure(volume: string, error: unknown): void;
}

/** What the kernel says of its devices, and is told of them. */
export interface NbdKernel {
  /** All that have an owner's text. */
  list(): Promise<NbdDevice[]>;
  /** The largest request that the device may send. */
  limitRequests(device: number, kib: number): Promise<void>;
}

export interface NbdDevice {
  device: number;
  owner: string;
}

/** What one request may carry: kMaxIoBytes of native/src/block_io.h. */
const MAX_REQUEST_KIB = 1024;

interface ServedDevice {
  device: number;
  name: string;
  /** That the kernel was told last. */
  sizeBytes: number;
  /** What tells it a size, one after another: the last one counts. */
  turn: Mutex;
}

export class NbdDevices implements BlockDevices {
  readonly #parts: NbdDevicesParts;
  /** Devices that this process serves, by the volume's UUID. */
  readonly #served = new Map<string, ServedDevice>();
  /** What daemons before this one have left: looked for once, since no more of it comes. */
  #left: NbdDevice[] | null = null;

  constructor(parts: NbdDevicesParts) {
    this.#parts = parts;
  }

  isAvailable(): Promise<boolean> {
    return this.#parts.addon.nbdIsLoaded();
  }

  /** Whether the volume has a device already, served or left. */
  async has(uuid: string): Promise<boolean> {
    return this.#served.has(uuid) || (await this.#findLeft(uuid)) !== undefined;
  }

  async provide(volume: SharedVolume): Promise<string> {
    const { name, uuid, sizeBytes } = volume;
    const served = this.#served.get(uuid);
    const { addon, pool, blockBytes, kernel } = this.#parts;
    const owner = this.#owner(uuid);
    if (served !== undefined) {
      if (served.sizeBytes !== sizeBytes) {
        const resize = async () => {
          await addon.nbdResize(served.device, { owner, sizeBytes });
          served.sizeBytes = sizeBytes;
        };
        await served.turn.run(resize);
      }
      return devicePath(served.device);
    }
    const left = await this.#findLeft(uuid);
    const { socket, flags } = await addon.nbdServe(pool, name);
    let device: number;
    try {
      if (left === undefined) {
        device = await addon.nbdConnect({ socket, flags, owner, sizeBytes, blockBytes });
      } else {
        device = left.device;
        await addon.nbdReconnect(device, { socket, owner, sizeBytes });
      }
      await kernel.limitRequests(device, MAX_REQUEST_KIB);
    } catch (error) {
      await this.#letGo(name);
      if (left === undefined) await this.#disconnectAll(owner);
      throw error;
    }
    this.#forgetLeft(owner);
    this.#served.set(uuid, { device, name, sizeBytes, turn: new Mutex() });
    this.#watch(uuid);
    return devicePath(device);
  }

  async stopOrphans(wanted: ReadonlySet<string>): Promise<void> {
    for (const orphan of await this.#orphans(wanted)) {
      await this.#parts.addon.nbdDisconnect(orphan.device);
      this.#forgetLeft(orphan.owner);
    }
  }

  async removeOthers(wanted: ReadonlySet<string>): Promise<void> {
    for (const [uuid, { device, name }] of [...this.#served]) {
      if (wanted.has(uuid)) continue;
      this.#served.delete(uuid);
      await this.#parts.addon.nbdDisconnect(device);
      await this.#letGo(name);
    }
    await this.stopOrphans(wanted);
  }

  canGrow(uuid: string): boolean {
    return this.#served.has(uuid);
  }

  nameOf(uuid: string): string | undefined {
    const served = this.#served.get(uuid);
    return served && `nbd${served.device}`;
  }

  /** Gives the device another socket whenever its connection is lost, as long as it is served. */
  #watch(uuid: string): void {
    const { addon, pool, onFailure } = this.#parts;
    const served = this.#served.get(uuid);
    if (served === undefined) return;
    const { device, name } = served;
    const again = async () => {
      const lost = await addon.nbdEnded(pool, name);
      if (!lost || this.#served.get(uuid) !== served) return;
      const { socket } = await addon.nbdServe(pool, name);
      await served.turn.run(() => {
        const { sizeBytes } = served;
        return addon.nbdReconnect(device, { socket, owner: this.#owner(uuid), sizeBytes });
      });
      this.#watch(uuid);
    };
    again().catch((error: unknown) => {
      this.#served.delete(uuid);
      this.#left = null;
      onFailure(name, error);
    });
  }

  /** The volume is closed when this resolves. */
  async #letGo(name: string): Promise<void> {
    const { addon, pool } = this.#parts;
    await addon.nbdRelease(pool, name);
    await addon.nbdEnded(pool, name);
  }

  async #disconnectAll(owner: string): Promise<void> {
    for (const other of await this.#parts.kernel.list()) {
      if (other.owner === owner) await this.#parts.addon.nbdDisconnect(other.device);
    }
  }

  async #findLeft(uuid: string): Promise<NbdDevice | undefined> {
    this.#left ??= await this.#parts.kernel.list();
    return this.#left.find(({ owner }) => owner === this.#owner(uuid));
  }

  #forgetLeft(owner: string): void {
    this.#left = this.#left?.filter((other) => other.owner !== owner) ?? null;
  }

  async #orphans(wanted: ReadonlySet<string>): Promise<NbdDevice[]> {
    const keep = new Set([...wanted, ...this.#served.keys()].map((uuid) => this.#owner(uuid)));
    const ours = this.#owner("");
    return (await this.#parts.kernel.list()).filter(
      ({ owner }) => owner.startsWith(ours) && !keep.has(owner),
    );
  }

  #owner(volumeUuid: string): string {
    return `pando ${this.#parts.poolUuid} ${volumeUuid}`;
  }
}

/** This machine's. */
export const nbdKernel: NbdKernel = {
  async list() {
    const names = await readdir("/sys/block").catch(() => []);
    const found = names.map(async (name) => {
      const [, number] = /^nbd([0-9]+)$/.exec(name) ?? [];
      if (number === undefined) return [];
      const owner = await readFile(`/sys/block/${name}/backend`, "utf8").catch(() => null);
      return owner === null ? [] : [{ device: Number(number), owner: owner.trim() }];
    });
    return (await Promise.all(found)).flat();
  },
  async limitRequests(device, kib) {
    await writeFile(`/sys/block/nbd${device}/queue/max_sectors_kb`, String(kib));
  },
};

function devicePath(device: number): string {
  return `/dev/nbd${device}`;
}
