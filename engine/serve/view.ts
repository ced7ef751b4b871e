// A volume as users of the control interface see it: what the engine knows, and where and under
// which name it is served. Translates between that and the messages; decides nothing.
import type { Address } from "../base/address.js";
import { PandoError } from "../base/errors.js";
import { partialName } from "../base/name.js";
import { volumeNqn } from "../base/nqn.js";
import type {
  Origin,
  PoolInfo,
  ReceiveInfo,
  ServedSnapshotInfo,
  SessionInfo,
  VolumeInfo,
} from "../core/api.js";
import type { PoolEntry } from "./pools.js";
import type {
  LimitChangeMessage,
  OriginMessage,
  PoolEntryMessage,
  PoolMessage,
  ReceiveMessage,
  ServedSnapshotMessage,
  VolumeMessage,
} from "./protocol.js";

export interface TransportAddress {
  traddr: string;
  trsvcid: string;
}

/** Where and under which name something is served. */
export interface Served {
  nqn: string;
  /** Empty if the NVMe/TCP target is off. */
  addresses: TransportAddress[];
  /** Null if the NBD front end is off. */
  nbdUri: string | null;
}

export type VolumeView = VolumeInfo & Served;
/** What is being received, and where it is written. */
export type ReceiveView = ReceiveInfo & Pick<Served, "nbdUri">;
/** Read-only, as long as it is there. */
export type SnapshotView = ServedSnapshotInfo & Served;

/** Where the daemon serves; none, or null: that front end is off. */
export interface Places {
  advertise: readonly Address[];
  /** Of the kernel's target. */
  nvmet: Address | null;
  nbdSocket: string | null;
}

const NOTHING_RECLAIMED: PoolInfo["reclaim"] = {
  layersWaiting: 0,
  spansWaiting: 0,
  layersReclaimed: 0,
  layersFolded: 0,
  spansReclaimed: 0,
  spansFolded: 0,
  spansSwept: 0,
  freedBytes: 0,
};

const DISCARD_STATES: readonly PoolInfo["discard"]["state"][] = ["on", "off", "unsupported"];

export function viewVolume(volume: VolumeInfo, places: Places): VolumeView {
  // What the kernel's target serves is there, and nowhere else.
  const { nvmet } = places;
  const advertise = nvmet === null ? [] : [nvmet];
  const where = volume.sharedVia === null ? places : { advertise, nbdSocket: null };
  return { ...volume, ...served(volume.uuid, volume.name, where) };
}

export function viewSnapshot(snapshot: ServedSnapshotInfo, places: Places): SnapshotView {
  const name = `${snapshot.volume}@${snapshot.name}`;
  return { ...snapshot, ...served(snapshot.uuid, name, places) };
}

function served(
  uuid: string,
  name: string,
  { advertise, nbdSocket }: Omit<Places, "nvmet">,
): Served {
  return {
    nqn: volumeNqn(uuid),
    addresses: advertise.map(({ host, port }) => ({ traddr: host, trsvcid: String(port) })),
    nbdUri: nbdSocket === null ? null : nbdUri(nbdSocket, name),
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
    sharedVia: view.sharedVia ?? "",
    limits: {
      iops: view.limits.iops ?? 0,
      bytesPerSecond: view.limits.bytesPerSecond ?? 0,
    },
  };
}

export function fromVolumeMessage(message: VolumeMessage): VolumeView {
  return {
    ...message,
    origin: message.origin === null ? null : fromOriginMessage(message.origin),
    sessions: fromSessions(message.sessions),
    nbdUri: message.nbdUri || null,
    sharedVia: parseVia(message.sharedVia),
    limits: {
      iops: message.limits?.iops || null,
      bytesPerSecond: message.limits?.bytesPerSecond || null,
    },
  };
}

export function toSnapshotMessage(view: SnapshotView): ServedSnapshotMessage {
  const { allowedHosts, sessions, nqn, addresses, nbdUri: uri, contents, ...snapshot } = view;
  return { snapshot, allowedHosts, sessions, nqn, addresses, nbdUri: uri ?? "", contents };
}

export function viewReceive(receive: ReceiveInfo, { nbdSocket }: Places): ReceiveView {
  const name = partialName(receive.name);
  return { ...receive, nbdUri: nbdSocket === null ? null : nbdUri(nbdSocket, name) };
}

export function toReceiveMessage(view: ReceiveView): ReceiveMessage {
  const { snapshot, base, nbdUri: uri } = view;
  return { ...view, snapshot: snapshot ?? "", base: base ?? "", nbdUri: uri ?? "" };
}

export function fromReceiveMessage(message: ReceiveMessage): ReceiveView {
  const { snapshot, base, nbdUri: uri } = message;
  return { ...message, snapshot: snapshot || null, base: base || null, nbdUri: uri || null };
}

export function fromSnapshotMessage(message: ServedSnapshotMessage): SnapshotView {
  const { snapshot, sessions, nbdUri: uri, ...rest } = message;
  if (snapshot === null) {
    throw new PandoError("EVERSION", "the daemon answered with a snapshot of nothing");
  }
  return { ...snapshot, ...rest, sessions: fromSessions(sessions), nbdUri: uri || null };
}

function fromSessions(sessions: VolumeMessage["sessions"]): SessionInfo[] {
  return sessions.map((session) => ({ ...session, frontEnd: parseFrontEnd(session.frontEnd) }));
}

/** Undefined: stays as it is. */
export function toLimitChange(limit: number | null | undefined): LimitChangeMessage | null {
  if (limit === undefined) return null;
  return { none: limit === null, value: limit ?? 0 };
}

export function fromLimitChange(message: LimitChangeMessage | null): number | null | undefined {
  if (message === null) return undefined;
  return message.none ? null : message.value;
}

export function toOriginMessage(origin: Origin): OriginMessage {
  return { volume: origin.volume, snapshot: origin.snapshot ?? "" };
}

export function fromOriginMessage(message: OriginMessage): Origin {
  return { volume: message.volume, snapshot: message.snapshot || null };
}

export function toPoolsMessage(entries: PoolEntry[]): { pools: PoolEntryMessage[] } {
  return { pools: entries.map((entry) => ({ ...entry, failure: entry.failure ?? "" })) };
}

export function fromPoolsMessage({ pools }: { pools: PoolEntryMessage[] }): PoolEntry[] {
  return pools.map((entry) => ({ ...entry, failure: entry.failure || null }));
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
    discard: {
      state: DISCARD_STATES.find((state) => state === message.discard?.state) ?? "off",
      punchedBytes: message.discard?.punchedBytes ?? 0,
      skippedBytes: message.discard?.skippedBytes ?? 0,
    },
  };
}

function parseVia(text: string): VolumeInfo["sharedVia"] {
  if (text === "" || text === "nvmet") return text || null;
  throw new PandoError("EVERSION", `the daemon shares volumes in a way not known here: ${text}`, {
    hint: "use the pando of the daemon's own version",
  });
}

function parseFrontEnd(text: string): SessionInfo["frontEnd"] {
  const known = (["nbd", "nvme-tcp", "ublk", "nbd-device"] as const).find((name) => name === text);
  if (known !== undefined) return known;
  throw new PandoError("EVERSION", `the daemon has a front end that is not known here: ${text}`, {
    hint: "use the pando of the daemon's own version",
  });
}
