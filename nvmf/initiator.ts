// The compute node's side: connects this machine to a volume, finds its device, lets it go again.
//
// Each call ends in a bounded time, is idempotent, and leaves nothing behind when it fails. The
// connection itself is finite too: a storage node that never comes back must not hold a process, or
// a reboot, for ever.
import { lookup } from "node:dns/promises";
import { constants } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PandoError } from "../engine/base/errors.js";
import { parseVolumeNqn } from "../engine/base/nqn.js";
import { Deadline, KeyedLock, Limiter } from "./bounded.js";
import { checkOptions, type FabricsOptions, tryAddress, writeFabrics } from "./fabrics.js";
import type { HostIdentity } from "./host-identity.js";
import {
  type BlockDevice,
  type Controller,
  findDevice,
  type KernelRoots,
  kernelRoots,
  listControllers,
} from "./nvme-sysfs.js";

export type { BlockDevice } from "./nvme-sysfs.js";

/** What may differ from volume to volume. */
export interface ConnectionSettings {
  ioQueues: number;
  reconnectDelaySeconds: number;
  fastIoFailSeconds: number;
  ctrlLossSeconds: number;
}

/**
 * Few queues: with thousands of volumes each queue is a connection, and one carries a disk. A
 * storage node's restart takes seconds and its reboot minutes: I/O waits that long, not for ever.
 */
export const DEFAULT_CONNECTION: ConnectionSettings = {
  ioQueues: 2,
  reconnectDelaySeconds: 1,
  fastIoFailSeconds: 300,
  ctrlLossSeconds: 600,
};

export interface Target {
  nqn: string;
  traddr: string;
  trsvcid: string;
  /** TLS or nothing; without it, in the open. */
  tls?: boolean;
}

const KEEP_ALIVE_SECONDS = 5;
const DEFAULT_TIMEOUT_MS = 30_000;
/** Writes to the kernel that may block, each of which holds a thread of four. */
const AT_A_TIME = 2;

export class Initiator {
  readonly #identity: HostIdentity;
  readonly #roots: KernelRoots;
  readonly #timeoutMs: number;
  readonly #locks = new KeyedLock();
  readonly #limiter = new Limiter(AT_A_TIME);

  constructor(identity: HostIdentity, options: { roots?: KernelRoots; timeoutMs?: number } = {}) {
    this.#identity = identity;
    this.#roots = options.roots ?? kernelRoots;
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  }

  /** The device of a connected volume, or null. */
  find(nqn: string): Promise<BlockDevice | null> {
    return findDevice(this.#roots, namespaceOf(nqn));
  }

  /** Whether a live connection stands behind a volume's device. */
  async isLive(nqn: string): Promise<boolean> {
    return (await this.#controllers(nqn)).some(({ state }) => state === "live");
  }

  connect(target: Target, settings: ConnectionSettings = DEFAULT_CONNECTION): Promise<BlockDevice> {
    checkSettings(settings);
    return this.#locks.run(target.nqn, () => this.#connect(target, settings));
  }

  /** Harmless if there is no connection. */
  disconnect(nqn: string): Promise<void> {
    namespaceOf(nqn);
    return this.#locks.run(nqn, () => this.#disconnect(nqn, new Deadline(this.#timeoutMs)));
  }

  /** Makes the kernel look at a volume's size again, in case its news got lost. */
  async rescan(nqn: string): Promise<void> {
    for (const { name } of await this.#controllers(nqn)) {
      const path = join(this.#roots.sysfs, "class/nvme", name, "rescan_controller");
      await this.#write(path, new Deadline(this.#timeoutMs));
    }
  }

  async #connect(target: Target, settings: ConnectionSettings): Promise<BlockDevice> {
    const namespace = namespaceOf(target.nqn);
    const deadline = new Deadline(this.#timeoutMs);
    const address = await resolveAddress(target);
    const options: FabricsOptions = {
      ...settings,
      ...this.#identity,
      ...address,
      nqn: target.nqn,
      tls: target.tls ?? false,
      keepAliveSeconds: KEEP_ALIVE_SECONDS,
    };
    checkOptions(options);
    if (!(await this.#usable(options, deadline))) {
      await tryAddress(address, deadline);
      const writing = this.#limiter.run(() => writeFabrics(this.#roots, options));
      await deadline.bound(writing, () => late(`connect to ${target.nqn}`));
    }
    const device = await deadline.poll(async () => {
      const found = await findDevice(this.#roots, namespace);
      return found === null || !(await this.isLive(target.nqn)) ? null : found;
    });
    if (device !== null) return device;
    await this.#disconnect(target.nqn, new Deadline(this.#timeoutMs));
    throw new PandoError("EIO", `${target.nqn} is connected, but its device did not appear`, {
      hint: "the kernel's log says why",
    });
  }

  /** True: there is a connection to go on with. False: there is none any more. */
  async #usable(options: FabricsOptions, deadline: Deadline): Promise<boolean> {
    const settled = await deadline.poll(async () => {
      const controllers = await this.#controllers(options.nqn);
      if (controllers.length === 0) return false;
      const open = controllers.find(({ tls, state }) => !tls && !state.startsWith("deleting"));
      if (options.tls && open !== undefined) throw inTheOpen(options.nqn);
      if (controllers.some(({ state }) => state === "live")) return true;
      if (controllers.every(({ state }) => state.startsWith("deleting"))) return null;
      // It was given up, or it is looking for a storage node that has moved: neither comes back.
      const hopeless = controllers.every(
        ({ state, address }) => state === "dead" || !leadsTo(address, options),
      );
      if (!hopeless) return null;
      await this.#disconnect(options.nqn, deadline);
      return false;
    });
    if (settled !== null) return settled;
    throw late(`reconnect to ${options.nqn}`);
  }

  async #disconnect(nqn: string, deadline: Deadline): Promise<void> {
    for (const { name, state } of await this.#controllers(nqn)) {
      if (state.startsWith("deleting")) continue;
      await this.#write(join(this.#roots.sysfs, "class/nvme", name, "delete_controller"), deadline);
    }
    const gone = await deadline.poll(async () => {
      const left = await this.#controllers(nqn);
      return left.length === 0 && (await findDevice(this.#roots, namespaceOf(nqn))) === null
        ? true
        : null;
    });
    if (gone === null) throw late(`disconnect from ${nqn}`);
  }

  async #controllers(nqn: string): Promise<Controller[]> {
    const ours = (hostNqn: string | null) => hostNqn === null || hostNqn === this.#identity.hostNqn;
    const all = await listControllers(this.#roots, nqn);
    return all.filter(({ hostNqn }) => ours(hostNqn));
  }

  async #write(path: string, deadline: Deadline): Promise<void> {
    const writing = this.#limiter.run(() => writeFile(path, "1", { flag: constants.O_WRONLY }));
    try {
      await deadline.bound(writing, () => late(`write to ${path}`));
    } catch (error) {
      // The controller went by itself in between.
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code !== "ENOENT" && code !== "ENODEV") throw error;
    }
  }
}

function checkSettings(settings: ConnectionSettings): void {
  for (const [field, value] of Object.entries(settings)) {
    if (Number.isInteger(value) && value >= 1 && value <= 86_400) continue;
    throw new PandoError("EINVAL", `${field} cannot be ${value}`, { field, hint: "1 or more" });
  }
  if (settings.ctrlLossSeconds > settings.fastIoFailSeconds) return;
  throw new PandoError("EINVAL", "ctrlLossSeconds is not more than fastIoFailSeconds", {
    field: "ctrlLossSeconds",
    hint: "the device goes away when its I/O has failed, not before",
  });
}

function namespaceOf(nqn: string): { nqn: string; uuid: string } {
  const uuid = parseVolumeNqn(nqn);
  if (uuid !== null) return { nqn, uuid };
  throw new PandoError("EINVAL", `${JSON.stringify(nqn)} is not the NQN of a volume`, {
    field: "nqn",
    hint: "pando volume show NAME prints it",
  });
}

/** The kernel takes addresses, not names. */
async function resolveAddress(target: Target): Promise<{ traddr: string; trsvcid: string }> {
  const { traddr, trsvcid } = target;
  try {
    return { traddr: (await lookup(traddr)).address, trsvcid };
  } catch (cause) {
    const context = { field: "traddr" };
    throw new PandoError("EINVAL", `${traddr} is no address that is known here`, context, {
      cause,
    });
  }
}

function leadsTo(address: string, wanted: { traddr: string; trsvcid: string }): boolean {
  const fields = new Map(
    address.split(",").map((field) => field.split("=", 2) as [string, string]),
  );
  return fields.get("traddr") === wanted.traddr && fields.get("trsvcid") === wanted.trsvcid;
}

function inTheOpen(nqn: string): PandoError {
  return new PandoError("EBUSY", `${nqn} is connected without TLS`, {
    hint: `pando disconnect ${nqn}, and connect again`,
  });
}

function late(what: string): PandoError {
  return new PandoError("EIO", `could not ${what} in time`, {
    hint: "the kernel's log says why; the next try goes on from here",
  });
}
