// A volume as text: its fields with the ready-made `nvme connect` line, the table of all, and the
// JSON that programs get.
import { formatSize } from "../base/size.js";
import type { Served, SnapshotInfo, SpaceInfo, VolumeView } from "../serve/client.js";
import { formatFields, formatTable } from "./print.js";
import { branchTree } from "./tree.js";

/** Fields are only ever added to this. */
export function volumeJson(volume: VolumeView): Record<string, unknown> {
  return {
    name: volume.name,
    uuid: volume.uuid,
    sizeBytes: volume.sizeBytes,
    ownBytes: volume.ownBytes,
    sharedBytes: volume.sharedBytes,
    logicalBytes: volume.logicalBytes,
    freedByDeleteBytes: volume.freedByDeleteBytes,
    freedByDeleteAtMost: volume.freedByDeleteAtMost,
    parent: parentOf(volume),
    nqn: volume.nqn,
    addresses: volume.addresses,
    nbdUri: volume.nbdUri,
    allowedHosts: volume.allowedHosts,
    sessions: volume.sessions,
    sharedVia: volume.sharedVia,
    limits: volume.limits,
    createdAt: volume.createdAt,
  };
}

export function describeVolume(volume: VolumeView): string {
  const { name, allowedHosts } = volume;
  const nobody = `nobody; let one in: pando host allow ${name} "$(cat /etc/nvme/hostnqn)"`;
  return formatFields([
    ["name", name],
    ["uuid", volume.uuid],
    ["size", `${formatSize(volume.sizeBytes)} (${volume.sizeBytes} bytes)`],
    ["own", formatSize(volume.ownBytes)],
    ["shared", formatSize(volume.sharedBytes)],
    ["data", formatSize(volume.logicalBytes)],
    ["freed", `${describeFreed(volume)}, if it is deleted`],
    ["parent", parentOf(volume) ?? "-"],
    ["created", volume.createdAt],
    ["hosts", allowedHosts.length === 0 ? nobody : allowedHosts],
    ["open", describeSessions(volume)],
    ["limits", describeLimits(volume)],
    ["nqn", volume.nqn],
    ["connect", connectLines(volume)],
    ["nbd", volume.nbdUri ?? "-"],
  ]);
}

/**
 * For each host that may connect the line that connects it; without one, the line as it will be.
 */
export function connectLines(volume: Served & { allowedHosts: string[] }): string[] {
  const hosts = volume.allowedHosts.length === 0 ? [undefined] : volume.allowedHosts;
  const lines = volume.addresses.flatMap(({ traddr, trsvcid }) =>
    hosts.map((host) => {
      const line = `nvme connect -t tcp -a ${traddr} -s ${trsvcid} -n ${volume.nqn}`;
      return host === undefined ? line : `${line} --hostnqn=${host}`;
    }),
  );
  return lines.length === 0 ? ["-"] : lines;
}

export function describeVolumes(volumes: VolumeView[], snapshots: SnapshotInfo[]): string {
  const rows = branchTree(volumes, snapshots).map(({ branch, prefix }) => {
    if (branch.kind === "snapshot") {
      const { volume, name, sizeBytes, ownBytes, sharedBytes } = branch.snapshot;
      return [
        `${prefix}${volume}@${name}`,
        formatSize(sizeBytes),
        formatSize(ownBytes),
        formatSize(sharedBytes),
        volume,
        "-",
      ];
    }
    const { volume } = branch;
    return [
      prefix + volume.name,
      formatSize(volume.sizeBytes),
      formatSize(volume.ownBytes),
      formatSize(volume.sharedBytes),
      parentOf(volume) ?? "-",
      describeServed(volume),
    ];
  });
  return formatTable(["NAME", "SIZE", "OWN", "SHARED", "PARENT", "SERVED"], rows);
}

/** What deleting it brings back. */
export function describeFreed({ freedByDeleteBytes, freedByDeleteAtMost }: SpaceInfo): string {
  return `${freedByDeleteAtMost ? "at most " : ""}${formatSize(freedByDeleteBytes)}`;
}

function parentOf(volume: VolumeView): string | null {
  const { origin } = volume;
  if (origin === null) return null;
  return origin.snapshot === null ? origin.volume : `${origin.volume}@${origin.snapshot}`;
}

function describeLimits({ limits: { iops, bytesPerSecond } }: VolumeView): string {
  const parts: string[] = [];
  if (iops !== null) parts.push(`${iops} IOPS`);
  if (bytesPerSecond !== null) parts.push(`${formatSize(bytesPerSecond)}/s`);
  return parts.join(", ") || "-";
}

export function describeSessions(volume: Pick<VolumeView, "sessions">): string[] {
  if (volume.sessions.length === 0) return ["-"];
  return volume.sessions.map(({ frontEnd, hostNqn, count }) => {
    const times = count === 1 ? "" : `, ${count} times`;
    return hostNqn === "" ? `${frontEnd}${times}` : `${frontEnd}, ${hostNqn}${times}`;
  });
}

/** "-" for a volume that nobody has open and that no host may open. */
function describeServed(volume: VolumeView): string {
  const [place] = volume.addresses;
  if (volume.sharedVia !== null) {
    return place === undefined ? volume.sharedVia : `nvmet ${place.traddr}:${place.trsvcid}`;
  }
  const nbd = volume.sessions
    .filter((session) => session.frontEnd === "nbd")
    .reduce((sum, session) => sum + session.count, 0);
  if (nbd > 0) return `nbd, ${nbd} client${nbd === 1 ? "" : "s"}`;
  const [address] = volume.addresses;
  const hosts = new Set(volume.sessions.map((session) => session.hostNqn)).size;
  if (address === undefined || volume.allowedHosts.length + hosts === 0) return "-";
  const { traddr, trsvcid } = address;
  return `nvme-tcp ${traddr}:${trsvcid}, ${hosts} host${hosts === 1 ? "" : "s"}`;
}
