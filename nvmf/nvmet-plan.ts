// From what the kernel's target has to what it should have: a pure function that gives the steps,
// in an order in which each is allowed at its time.
//
//   surplus:  unlink from ports -> disable and remove namespaces -> unlink hosts -> remove
//   missing:  hosts -> subsystem -> allowed hosts -> namespace -> port -> link to the port, last:
//             a host must never see a subsystem that is not finished
//
// A host that is taken off a list, or has to prove itself from now on, is still connected, and
// configfs cannot end one host's connections. The subsystem leaves its port for a moment, which
// ends those of all; whoever is still on the list comes back.
//
// TLS is a port's, and demanded of all who come there. It changes while nothing is on the port: in
// a round of its own our subsystems leave every port that is not as wanted, which ends what is
// connected. Whatever fails after that, nobody is served in the open who must not be.
//
// A host's keys are those of all subsystems that have it. They are changed only where all of those
// are ours, and are there before the host is let in. A kernel that has been given keys does not
// forget them: without keys a host is made anew, in a round of its own.
import { PandoError } from "../engine/base/errors.js";
import { parseVolumeNqn } from "../engine/base/nqn.js";
import {
  ANA_GROUP,
  type DesiredState,
  type DesiredVolume,
  type HostSecrets,
  type ListenAddress,
  MODEL_PREFIX,
  NAMESPACE_ID,
  type NamespaceState,
  type NvmetState,
  OWN_PORTS,
  type PortState,
  type SubsystemState,
  serialOf,
} from "./nvmet-state.js";

/** As configfs has them. */
const TLS = "tls1.3";
const REQUIRED = "required";

/** Paths are relative to nvmet's folder in configfs. Each may be taken again. */
export type Step =
  | { verb: "mkdir" | "unlink"; path: string }
  /** `shared`: somebody else may use it by now, and then it stays. */
  | { verb: "rmdir"; path: string; shared: boolean }
  | { verb: "write"; path: string; value: string }
  | { verb: "link"; path: string; target: string };

export function planNvmet(actual: NvmetState, desired: DesiredState): Step[] {
  const { model, listen, volumes } = desired;
  const forgetting = forgetKeys(actual, desired);
  if (forgetting.length > 0) return forgetting;
  const leaving = leaveOtherPorts(actual, desired);
  if (leaving.length > 0) return leaving;
  const wanted = new Set(volumes.map(({ nqn }) => nqn));
  const steps: Step[] = [];
  const kept = new Map<string, SubsystemState>();
  for (const [nqn, subsystem] of actual.subsystems) {
    if (parseVolumeNqn(nqn) === null || desired.untouched.has(nqn)) continue;
    const own = subsystem.model === model;
    if (wanted.has(nqn)) {
      if (own) kept.set(nqn, subsystem);
      else steps.push(...removeUnfinished(actual, nqn, subsystem));
    } else if (own) {
      steps.push(...removeSubsystem(actual, nqn, subsystem));
    }
  }
  steps.push(...removeStalePorts(actual, desired));
  for (const [nqn, { hosts }] of kept) {
    if (![...hosts].some((host) => isUnproven(actual, { host, desired }))) continue;
    for (const number of portsOf(actual, nqn)) {
      steps.push({ verb: "unlink", path: onPort(number, nqn) });
    }
  }
  if (volumes.length > 0) {
    const port = choosePort(actual, listen);
    for (const volume of volumes) {
      const subsystem = kept.get(volume.nqn);
      steps.push(...serveVolume(actual, { volume, subsystem, desired }));
    }
    steps.push(...preparePort(actual.ports.get(port), port, desired));
    for (const { nqn } of volumes) steps.push(...linkToPorts(actual, { nqn, port, steps, kept }));
  }
  return [...steps, ...removeUnusedHosts(actual, steps, desired)];
}

/** Of the right name, but its model was not written yet, and cannot be once a host has seen it. */
function removeUnfinished(actual: NvmetState, nqn: string, subsystem: SubsystemState): Step[] {
  if (subsystem.model.startsWith(MODEL_PREFIX)) {
    throw new PandoError("EBUSY", `subsystem ${nqn} is another pool's: ${subsystem.model}`, {
      field: "nvmet",
      hint: "a copy of the pool is served by another daemon on this machine; stop one of them",
    });
  }
  return removeSubsystem(actual, nqn, subsystem);
}

function removeSubsystem(actual: NvmetState, nqn: string, subsystem: SubsystemState): Step[] {
  const path = subsystemPath(nqn);
  const steps: Step[] = [];
  for (const number of portsOf(actual, nqn)) {
    steps.push({ verb: "unlink", path: onPort(number, nqn) });
  }
  for (const number of subsystem.namespaces.keys()) steps.push(...removeNamespace(nqn, number));
  for (const host of subsystem.hosts) {
    steps.push({ verb: "unlink", path: `${path}/allowed_hosts/${host}` });
  }
  return [...steps, { verb: "rmdir", path, shared: false }];
}

function removeNamespace(nqn: string, number: number): Step[] {
  const path = namespacePath(nqn, number);
  return [
    { verb: "write", path: `${path}/enable`, value: "0" },
    { verb: "rmdir", path, shared: false },
  ];
}

/** Ports that we made, for another address or for volumes that are gone, or did not finish. */
function removeStalePorts(actual: NvmetState, desired: DesiredState): Step[] {
  const { model, listen, volumes, untouched } = desired;
  const steps: Step[] = [];
  for (const [number, port] of actual.ports) {
    const needed = volumes.length > 0 && listensOn(port, listen);
    const linked = [...port.subsystems];
    const ours = linked.every((nqn) => actual.subsystems.get(nqn)?.model === model);
    const waitedFor = linked.some((nqn) => untouched.has(nqn));
    if (!isOwnPort(number) || needed || waitedFor || !ours) continue;
    for (const nqn of linked) steps.push({ verb: "unlink", path: onPort(number, nqn) });
    steps.push({ verb: "rmdir", path: `ports/${number}`, shared: true });
  }
  return steps;
}

/** The one that has the address, whoever made it: two cannot listen there. Else a free number. */
function choosePort(actual: NvmetState, listen: ListenAddress): number {
  for (const [number, port] of actual.ports) {
    if (listensOn(port, listen)) return number;
  }
  for (let number: number = OWN_PORTS.first; number <= OWN_PORTS.last; number++) {
    if (!actual.ports.has(number)) return number;
  }
  const { first, last } = OWN_PORTS;
  throw new PandoError("EBUSY", `nvmet has every port from ${first} to ${last} already`, {
    field: "nvmet",
    hint: "remove those that nobody uses from /sys/kernel/config/nvmet/ports",
  });
}

interface Serving {
  volume: DesiredVolume;
  /** As it is, if it may stay. */
  subsystem: SubsystemState | undefined;
  desired: DesiredState;
}

function serveVolume(actual: NvmetState, { volume, subsystem, desired }: Serving): Step[] {
  const { nqn } = volume;
  const { model } = desired;
  const path = subsystemPath(nqn);
  const hosts = new Set(volume.allowedHosts);
  const steps: Step[] = [];
  for (const host of hosts) {
    if (!actual.hosts.has(host)) steps.push({ verb: "mkdir", path: `hosts/${host}` });
  }
  if (subsystem === undefined) {
    steps.push(
      { verb: "mkdir", path },
      { verb: "write", path: `${path}/attr_serial`, value: serialOf(volume.uuid) },
      { verb: "write", path: `${path}/attr_model`, value: model },
    );
  }
  const denied = [...(subsystem?.hosts ?? [])].filter((host) => !hosts.has(host));
  if (denied.length > 0) {
    for (const number of portsOf(actual, nqn)) {
      steps.push({ verb: "unlink", path: onPort(number, nqn) });
    }
  }
  for (const host of hosts) steps.push(...giveKeys(actual, { host, desired }));
  if (subsystem?.allowAnyHost !== false) {
    steps.push({ verb: "write", path: `${path}/attr_allow_any_host`, value: "0" });
  }
  for (const host of denied) {
    steps.push({ verb: "unlink", path: `${path}/allowed_hosts/${host}` });
  }
  for (const host of hosts) {
    if (subsystem?.hosts.has(host) === true) continue;
    const target = `hosts/${host}`;
    steps.push({ verb: "link", path: `${path}/allowed_hosts/${host}`, target });
  }
  for (const number of subsystem?.namespaces.keys() ?? []) {
    if (number !== NAMESPACE_ID) steps.push(...removeNamespace(nqn, number));
  }
  return [...steps, ...serveNamespace(subsystem?.namespaces.get(NAMESPACE_ID), volume)];
}

interface Keyed {
  host: string;
  desired: DesiredState;
}

/** It gets its first keys now. No volume may have it by then: a crash would leave it connected. */
function isUnproven(actual: NvmetState, { host, desired }: Keyed): boolean {
  return desired.secrets.has(host) && (actual.hosts.get(host) ?? null) === null;
}

function giveKeys(actual: NvmetState, { host, desired }: Keyed): Step[] {
  const wanted = desired.secrets.get(host);
  const before = actual.hosts.get(host) ?? null;
  if (wanted === undefined || sameSecrets(before, wanted)) return [];
  if (isSomebodyElses(actual, { host, desired })) {
    throw new PandoError("EBUSY", `nvmet has host ${host} for others too, without these keys`, {
      field: "nvmet",
      hint: "what they configured is not changed: remove the host there, or its keys here",
    });
  }
  const path = `hosts/${host}`;
  const steps: Step[] = [{ verb: "write", path: `${path}/dhchap_key`, value: wanted.hostKey }];
  if (wanted.controllerKey !== null) {
    steps.push({ verb: "write", path: `${path}/dhchap_ctrl_key`, value: wanted.controllerKey });
  }
  return steps;
}

/** Hosts that have keys which they should not have leave, to be made without. */
function forgetKeys(actual: NvmetState, desired: DesiredState): Step[] {
  const steps: Step[] = [];
  const needed = new Set(desired.volumes.flatMap(({ allowedHosts }) => allowedHosts));
  for (const [host, secrets] of actual.hosts) {
    if (!needed.has(host) || secrets === null) continue;
    const wanted = desired.secrets.get(host);
    const stays =
      wanted !== undefined &&
      (wanted.controllerKey ?? secrets.controllerKey) === wanted.controllerKey;
    if (stays || isSomebodyElses(actual, { host, desired })) continue;
    const has = (nqn: string) => actual.subsystems.get(nqn)?.hosts.has(host) === true;
    if ([...desired.untouched].some(has)) continue;
    for (const [nqn, subsystem] of actual.subsystems) {
      if (!subsystem.hosts.has(host)) continue;
      for (const number of portsOf(actual, nqn)) {
        steps.push({ verb: "unlink", path: onPort(number, nqn) });
      }
      steps.push({ verb: "unlink", path: `${subsystemPath(nqn)}/allowed_hosts/${host}` });
    }
    steps.push({ verb: "rmdir", path: `hosts/${host}`, shared: false });
  }
  return steps;
}

function isSomebodyElses(actual: NvmetState, { host, desired }: Keyed): boolean {
  return [...actual.subsystems].some(
    ([nqn, { hosts, model }]) =>
      hosts.has(host) && !(parseVolumeNqn(nqn) !== null && model === desired.model),
  );
}

function sameSecrets(one: HostSecrets | null, other: HostSecrets): boolean {
  return one?.hostKey === other.hostKey && one.controllerKey === other.controllerKey;
}

interface Linking {
  nqn: string;
  port: number;
  /** Those before. */
  steps: readonly Step[];
  kept: Map<string, SubsystemState>;
}

/** To its port, and to those of others on which it was. */
function linkToPorts(actual: NvmetState, { nqn, port, steps, kept }: Linking): Step[] {
  const before = kept.has(nqn) ? portsOf(actual, nqn) : [];
  const left = new Set(steps.filter(({ verb }) => verb === "unlink").map(({ path }) => path));
  const removed = new Set(steps.filter(({ verb }) => verb === "rmdir").map(({ path }) => path));
  return [...new Set([...before, port])]
    .filter((number) => !removed.has(`ports/${number}`))
    .map((number) => ({ number, path: onPort(number, nqn) }))
    .filter(({ number, path }) => !before.includes(number) || left.has(path))
    .map(({ path }) => ({ verb: "link", path, target: subsystemPath(nqn) }));
}

function serveNamespace(actual: NamespaceState | undefined, volume: DesiredVolume): Step[] {
  const path = namespacePath(volume.nqn, NAMESPACE_ID);
  const steps: Step[] = [];
  const same =
    actual?.devicePath === volume.devicePath &&
    actual.uuid === volume.uuid &&
    actual.nguid === volume.uuid;
  if (actual === undefined) steps.push({ verb: "mkdir", path });
  // What names the device and the namespace is fixed while it is enabled.
  if (actual?.enabled === true && !same) {
    steps.push({ verb: "write", path: `${path}/enable`, value: "0" });
  }
  if (!same) {
    steps.push(
      { verb: "write", path: `${path}/device_path`, value: volume.devicePath },
      { verb: "write", path: `${path}/device_uuid`, value: volume.uuid },
      { verb: "write", path: `${path}/device_nguid`, value: volume.uuid },
    );
  }
  if (actual?.anaGroup !== ANA_GROUP) {
    steps.push({ verb: "write", path: `${path}/ana_grpid`, value: String(ANA_GROUP) });
  }
  if (actual?.enabled !== true || !same) {
    steps.push({ verb: "write", path: `${path}/enable`, value: "1" });
  }
  return steps;
}

function preparePort(actual: PortState | undefined, number: number, desired: DesiredState): Step[] {
  const path = `ports/${number}`;
  const { listen, tls } = desired;
  const steps: Step[] = [];
  if (actual === undefined) {
    steps.push(
      { verb: "mkdir", path },
      { verb: "write", path: `${path}/addr_trtype`, value: "tcp" },
      { verb: "write", path: `${path}/addr_adrfam`, value: familyOf(listen.address) },
      { verb: "write", path: `${path}/addr_traddr`, value: listen.address },
      { verb: "write", path: `${path}/addr_trsvcid`, value: String(listen.port) },
    );
    return tls ? [...steps, ...securePort(path, tls)] : steps;
  }
  if (!isAsWanted(actual, tls)) {
    if (!isOwnPort(number) || actual.subsystems.size > 0) throw sharedPortError(number, tls);
    steps.push(...securePort(path, tls));
  }
  // On a port of somebody else's its group is his too.
  if (isOwnPort(number) && actual.anaState !== "optimized") {
    const value = "optimized";
    steps.push({ verb: "write", path: `${path}/ana_groups/${ANA_GROUP}/ana_state`, value });
  }
  return steps;
}

/** The kernel takes the first for TCP only, and forgets the second with the first. */
function securePort(path: string, tls: boolean): Step[] {
  if (!tls) return [{ verb: "write", path: `${path}/addr_tsas`, value: "none" }];
  return [
    { verb: "write", path: `${path}/addr_tsas`, value: TLS },
    { verb: "write", path: `${path}/addr_treq`, value: REQUIRED },
  ];
}

function isAsWanted({ security, requirement }: PortState, tls: boolean): boolean {
  return tls ? security === TLS && requirement === REQUIRED : security !== TLS;
}

/** Ours, from ports that demand TLS or do not, against what is wanted. */
function leaveOtherPorts(actual: NvmetState, { model, tls }: DesiredState): Step[] {
  return [...actual.ports].flatMap(([number, port]) => {
    // A port of somebody else's that demands more than is wanted does no harm.
    if (isAsWanted(port, tls) || (!tls && !isOwnPort(number))) return [];
    return [...port.subsystems]
      .filter((nqn) => actual.subsystems.get(nqn)?.model === model)
      .map((nqn): Step => ({ verb: "unlink", path: onPort(number, nqn) }));
  });
}

function sharedPortError(number: number, tls: boolean): PandoError {
  const does = tls ? "does not demand TLS" : "demands TLS";
  return new PandoError("EBUSY", `nvmet's port ${number} ${does}, and others have it too`, {
    field: "nvmetTls",
    hint: "choose another address with --nvmet HOST:PORT: what others have is not changed",
  });
}

/** Hosts that these steps unlink, and that nobody needs any more. */
function removeUnusedHosts(actual: NvmetState, steps: Step[], desired: DesiredState): Step[] {
  const unlinked = new Set(
    steps.flatMap(({ verb, path }) => {
      const [, host] = path.split("/allowed_hosts/");
      return verb === "unlink" && host !== undefined ? [host] : [];
    }),
  );
  const gone = new Set(steps.filter(({ verb }) => verb === "unlink").map(({ path }) => path));
  const needed = new Set(desired.volumes.flatMap(({ allowedHosts }) => allowedHosts));
  for (const [nqn, { hosts }] of actual.subsystems) {
    for (const host of hosts) {
      if (!gone.has(`${subsystemPath(nqn)}/allowed_hosts/${host}`)) needed.add(host);
    }
  }
  return [...unlinked]
    .filter((host) => !needed.has(host))
    .map((host) => ({ verb: "rmdir", path: `hosts/${host}`, shared: true }));
}

function portsOf(actual: NvmetState, nqn: string): number[] {
  return [...actual.ports].flatMap(([number, port]) => (port.subsystems.has(nqn) ? [number] : []));
}

function isOwnPort(number: number): boolean {
  return number >= OWN_PORTS.first && number <= OWN_PORTS.last;
}

function listensOn({ trtype, traddr, trsvcid }: PortState, to: ListenAddress): boolean {
  return trtype === "tcp" && traddr === to.address && trsvcid === String(to.port);
}

function familyOf(address: string): string {
  return address.includes(":") ? "ipv6" : "ipv4";
}

function subsystemPath(nqn: string): string {
  return `subsystems/${nqn}`;
}

export function namespacePath(nqn: string, number: number): string {
  return `${subsystemPath(nqn)}/namespaces/${number}`;
}

function onPort(number: number, nqn: string): string {
  return `ports/${number}/subsystems/${nqn}`;
}
