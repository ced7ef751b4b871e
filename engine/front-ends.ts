// Starts what serves an open pool's volumes: NBD on a Unix socket, NVMe/TCP on an address. Both
// live in the addon; from here they are told where to listen, and when to stop.
import { lookup } from "node:dns/promises";
import { native } from "../native/native.js";
import { type Address, formatAddress } from "./base/address.js";
import type { Config } from "./base/config.js";
import { PandoError } from "./base/errors.js";
import { prepareSocket } from "./serve/socket.js";

export type FrontEndConfig = Pick<Config, "nbdSocket" | "target" | "advertise">;

export interface FrontEnds {
  /** Settles when the last connection has gone. */
  close(): Promise<void>;
}

/** `pool` is the addon's handle. */
export async function startFrontEnds(pool: number, config: FrontEndConfig): Promise<FrontEnds> {
  const close = () => native.frontEndsStop(pool);
  try {
    if (config.nbdSocket !== null) await listenNbd(pool, config.nbdSocket);
    if (config.target !== null) {
      await listenTarget(pool, { target: config.target, advertise: config.advertise });
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { close };
}

async function listenNbd(pool: number, path: string): Promise<void> {
  await prepareSocket(path);
  try {
    await native.nbdListen(pool, path);
  } catch (cause) {
    throw listenError(path, { field: "nbdSocket", flag: "--nbd-socket" }, cause);
  }
}

async function listenTarget(
  pool: number,
  places: { target: Address; advertise: Address | null },
): Promise<void> {
  const { target, advertise } = places;
  try {
    const listen = await lookup(target.host);
    const told = advertise === null ? listen : await lookup(advertise.host);
    await native.targetListen(pool, {
      address: listen.address,
      port: target.port,
      advertisedAddress: told.address,
      advertisedPort: advertise?.port ?? target.port,
    });
  } catch (cause) {
    throw listenError(formatAddress(target), { field: "target", flag: "--target" }, cause);
  }
}

function listenError(
  place: string,
  setting: { field: string; flag: string },
  cause: unknown,
): PandoError {
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  const message = cause instanceof Error ? cause.message : String(cause);
  const why = code === "EADDRINUSE" ? "it is in use" : message;
  const { field, flag } = setting;
  return new PandoError(
    code === "EADDRINUSE" ? "EBUSY" : "EINVAL",
    `cannot listen on ${place}: ${why}`,
    { field, hint: `choose another place with ${flag}, or ${flag} none` },
    { cause },
  );
}
