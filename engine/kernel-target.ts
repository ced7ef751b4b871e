// Puts the kernel's NVMe target behind an open pool: its volumes as ublk devices, configfs over
// them. Without an address nothing of the kernel is touched.
import { lookup } from "node:dns/promises";
import { release } from "node:os";
import { native } from "../native/native.js";
import { examine, type Finding } from "../nvmf/doctor.js";
import { NvmetTarget } from "../nvmf/kernel-target.js";
import { takeOwnMounts } from "../nvmf/own-mounts.js";
import { listUblkDevices, UblkDevices } from "../nvmf/ublk-devices.js";
import { type Address, formatAddress } from "./base/address.js";
import { systemSleep } from "./base/clock.js";
import type { Environment } from "./base/config.js";
import { PandoError } from "./base/errors.js";
import type { Log } from "./base/log.js";
import type { Pool } from "./core/pool.js";

export interface NvmetOptions {
  pool: Pool;
  /** The addon's. */
  handle: number;
  address: Address | null;
  atomicUnit: number;
  log: Log;
}

export function examineMachine(): Promise<Finding[]> {
  return examine({
    root: "/",
    kernel: release(),
    userId: process.getuid?.() ?? 0,
    ublkMissing: () => native.ublkMissing(),
  });
}

export async function separateMounts(environment: Environment): Promise<void> {
  try {
    await takeOwnMounts({
      calls: native,
      root: "/",
      processId: process.pid,
      marker: environment.ownMounts,
      arguments: [process.execPath, ...process.execArgv, ...process.argv.slice(1)],
    });
  } catch (cause) {
    throw new PandoError(
      "EPERM",
      `a daemon with an address for nvmet needs mounts of its own: ${(cause as Error).message}`,
      { field: "nvmet", hint: "run it as root, or without --nvmet" },
      { cause },
    );
  }
}

/**
 * Resolves when what is shared is served again. What the machine cannot serve now is logged: the
 * other volumes must not wait for it.
 */
export async function startNvmet(options: NvmetOptions): Promise<void> {
  const { pool, handle, address, atomicUnit, log } = options;
  if (address === null) {
    const names = pool.shares.list().map(({ name }) => name);
    if (names.length > 0) log.warn({ names }, "shared via nvmet, which has no address: not served");
    return;
  }
  const { uuid, blockSizeBytes } = await pool.info();
  const devices = new UblkDevices({
    addon: native,
    pool: handle,
    poolUuid: uuid,
    blockSizeBytes,
    atomicUnit,
    sleep: systemSleep,
    listDevices: listUblkDevices,
  });
  const listen = { address: (await lookup(address.host)).address, port: address.port };
  const target = new NvmetTarget({ devices, poolUuid: uuid, listen, sleep: systemSleep });
  await pool.shares.attach(target).catch((error: unknown) => {
    log.error({ err: error, nvmet: formatAddress(address) }, "shared volumes are not served");
  });
}
