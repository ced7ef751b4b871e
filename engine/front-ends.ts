// Starts what serves an open pool's volumes: NBD on a Unix socket, NVMe/TCP on an address. Both
// live in the addon; from here they are told where to listen, and when to stop.
import { lookup } from "node:dns/promises";
import { native, type TargetPlace } from "../native/native.js";
import { type Address, formatAddress } from "./base/address.js";
import type { Config } from "./base/config.js";
import { PandoError } from "./base/errors.js";
import { prepareSocket } from "./serve/socket.js";

export type FrontEndConfig = Pick<
  Config,
  "nbdSocket" | "target" | "advertise" | "targetTls" | "targetConnections" | "targetHostConnections"
>;

export interface FrontEnds {
  /** Settles when the last connection has gone. */
  close(): Promise<void>;
}

/** `pool` is the addon's handle. */
export async function startFrontEnds(pool: number, config: FrontEndConfig): Promise<FrontEnds> {
  const close = () => native.frontEndsStop(pool);
  try {
    if (config.nbdSocket !== null) await listenNbd(pool, config.nbdSocket);
    if (config.target.length > 0) await listenTarget(pool, config);
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

async function listenTarget(pool: number, config: FrontEndConfig): Promise<void> {
  const setting = { field: "target", flag: "--target" };
  try {
    const [listen, advertised] = await Promise.all([
      Promise.all(config.target.map(resolvePlace)),
      Promise.all(config.advertise.map(resolvePlace)),
    ]);
    await native.targetListen(pool, {
      listen,
      advertised,
      tls: config.targetTls,
      connections: config.targetConnections,
      hostConnections: config.targetHostConnections,
    });
  } catch (cause) {
    const failed = /cannot listen on (\S+) port (\d+)/.exec(String(cause));
    const place =
      failed === null
        ? config.target.map(formatAddress).join(", ")
        : formatAddress({ host: failed[1] as string, port: Number(failed[2]) });
    throw listenError(place, setting, cause);
  }
}

async function resolvePlace({ host, port }: Address): Promise<TargetPlace> {
  return { address: (await lookup(host)).address, port };
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
