// Puts the kernel's NVMe target behind an open pool: its volumes as block devices, configfs over
// them. Without an address nothing of the kernel is touched.
import { lookup } from "node:dns/promises";
import { native } from "../native/native.js";
import { UblkOrNbd } from "../nvmf/block-devices.js";
import { NvmetTarget } from "../nvmf/kernel-target.js";
import { NbdDevices, nbdKernel } from "../nvmf/nbd-devices.js";
import { configFs, NVMET_ROOT } from "../nvmf/nvmet-configfs.js";
import { PskKeyring } from "../nvmf/psk-keyring.js";
import { listUblkDevices, UblkDevices } from "../nvmf/ublk-devices.js";
import { type Address, formatAddress } from "./base/address.js";
import { sleep } from "./base/clock.js";
import type { NvmetTlsMode } from "./base/config.js";
import { SECTOR_BYTES } from "./base/constants.js";
import type { Log } from "./base/log.js";
import type { Pool } from "./core/pool.js";

export interface NvmetOptions {
  pool: Pool;
  /** The addon's. */
  handle: number;
  address: Address | null;
  tls: NvmetTlsMode;
  atomicUnit: number;
  log: Log;
}

/**
 * Resolves when what is shared is served again. What the machine cannot serve now is logged: the
 * other volumes must not wait for it.
 */
export async function startNvmet(options: NvmetOptions): Promise<void> {
  const { pool, handle, address, tls, atomicUnit, log } = options;
  if (address === null) {
    const names = pool.shares.list().map(({ name }) => name);
    if (names.length > 0) log.warn({ names }, "shared via nvmet, which has no address: not served");
    return;
  }
  const { uuid, blockSizeBytes } = await pool.info();
  const nvmet = formatAddress(address);
  const onFailure = (volume: string, error: unknown) =>
    log.error({ err: error, volume, nvmet }, "volume is not served");
  const ublk = new UblkDevices({
    addon: native,
    pool: handle,
    poolUuid: uuid,
    blockSizeBytes,
    atomicUnit,
    sleep,
    listDevices: listUblkDevices,
  });
  const nbd = new NbdDevices({
    addon: native,
    pool: handle,
    poolUuid: uuid,
    blockBytes: SECTOR_BYTES,
    kernel: nbdKernel,
    onFailure,
  });
  const listen = { address: (await lookup(address.host)).address, port: address.port };
  const target = new NvmetTarget({
    devices: new UblkOrNbd(ublk, nbd),
    poolUuid: uuid,
    listen,
    tls: tls === "required",
    keyring: new PskKeyring(native),
    files: configFs(NVMET_ROOT),
    sleep,
    onFailure,
  });
  await pool.shares.attach(target).catch((error: unknown) => {
    log.error({ err: error, nvmet }, "shared volumes are not served");
  });
}
