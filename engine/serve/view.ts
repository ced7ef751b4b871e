// A volume as users of the control interface see it: what the engine knows, and where and under
// which name it is served. Translates between that and the messages; decides nothing.
import type { Address } from "../base/address.js";
import { PandoError } from "../base/errors.js";
import { volumeNqn } from "../base/nqn.js";
import type { Origin, PoolInfo, SessionInfo, VolumeInfo } from "../core/api.js";
import type { OriginMessage, PoolMessage, VolumeMessage } from "./protocol.js";

export interface TransportAddress {
  traddr: string;
  trsvcid: string;
}

export interface VolumeView extends VolumeInfo {
  nqn: string;
  /** Empty if the NVMe/TCP target is off. */
  addresses: TransportAddress[];
  /** Null if the NBD front end is off. */
  nbdUri: string | null;
}

/** Where the daemon serves; none, or null: that front end is off. */
export interface Places {
  advertise: readonly Address[];
  nbdSocket: string | null;
}

const NOTHING_RECLAIMED: PoolInfo["reclaim"] = {
  layersWaiting: 0,
  spansWaiting: 0,
  layersReclaimed: 0,
  layersFolded: 0,
  spansReclaimed: 0,
  spansFolded: 0,
  freedBytes: 0,
};

export function viewVolume(volume: VolumeInfo, places: Places): VolumeView {
  const { advertise, nbdSocket } = places;
  return {
    ...volume,
    nqn: volumeNqn(volume.uuid),
    addresses: advertise.map(({ host, port }) => ({ traddr: host, trsvcid: String(port) })),
    nbdUri: nbdSocket === null ? null : nbdUri(nbdSocket, volume.name),
  };
}

/** As the NBD project's URI specification has it for a Unix socket. */
export function nbdUri(socket: string, name: string): string {
  // encodeURIComponent is right for the query, but a path is easier to read, and as right, with its
  // slashes.
  const path = encodeURIComponent(socket).replaceAll("%2F", "/");
  return `nbd+unix:///${encodeURIComponent(name)}?socket=${path}`;
}

export function toVolumeMessage(view: VolumeView): VolumeMessage {
  return {
    ...view,
    origin: view.origin === null ? null : toOriginMessage(view.origin),
    nbdUri: view.nbdUri ?? "",
  };
}

export function fromVolumeMessage(message: VolumeMessage): VolumeView {
  return {
    ...message,
    origin: message.origin === null ? null : fromOriginMessage(message.origin),
    sessions: message.sessions.map((session) => ({
      ...session,
      frontEnd: parseFrontEnd(session.frontEnd),
    })),
    nbdUri: message.nbdUri || null,
  };
}

export function toOriginMessage(origin: Origin): OriginMessage {
  return { volume: origin.volume, snapshot: origin.snapshot ?? "" };
}

export function fromOriginMessage(message: OriginMessage): Origin {
  return { volume: message.volume, snapshot: message.snapshot || null };
}

export function toPoolMessage(info: PoolInfo): PoolMessage {
  return { ...info, failure: info.failure ?? "" };
}

export function fromPoolMessage(message: PoolMessage): PoolInfo {
  return {
    ...message,
    failure: message.failure || null,
    journal: message.journal ?? { sizeBytes: 0, usedBytes: 0 },
    reclaim: message.reclaim ?? NOTHING_RECLAIMED,
  };
}

function parseFrontEnd(text: string): SessionInfo["frontEnd"] {
  if (text === "nbd" || text === "nvme-tcp") return text;
  throw new PandoError("EVERSION", `the daemon has a front end that is not known here: ${text}`, {
    hint: "use the pando of the daemon's own version",
  });
}
