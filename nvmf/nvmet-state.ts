// The Linux NVMe target's configuration as plain data: what configfs holds now, and what Pando
// wants it to hold. nvmet-plan.ts makes the steps from one to the other, nvmet-configfs.ts reads
// the first and takes the steps.
//
// Others configure the same target. Ours are: subsystems that have a volume's NQN and this pool's
// model name, and ports whose number is in OWN_PORTS. Everything else is read, and left alone.

export const MODEL_PREFIX = "Pando ";

/** The model name of a subsystem says whose it is: two pools on one machine do not meddle. */
export function modelOf(poolUuid: string): string {
  return MODEL_PREFIX + poolUuid.replaceAll("-", "");
}

/** As the embedded target has it: the first ten bytes of the UUID. */
export function serialOf(volumeUuid: string): string {
  return volumeUuid.replaceAll("-", "").slice(0, 20);
}

/** Numbers of the ports that Pando makes; a port's number is 16 bits. */
export const OWN_PORTS = { first: 44_200, last: 44_299 } as const;

export const NAMESPACE_ID = 1;
export const ANA_GROUP = 1;

export interface NamespaceState {
  devicePath: string;
  uuid: string;
  nguid: string;
  anaGroup: number;
  enabled: boolean;
}

export interface SubsystemState {
  model: string;
  serial: string;
  allowAnyHost: boolean;
  /** NQNs of those that are linked. */
  hosts: Set<string>;
  namespaces: Map<number, NamespaceState>;
}

export interface PortState {
  trtype: string;
  adrfam: string;
  traddr: string;
  trsvcid: string;
  /** "tls1.3" or "none"; null where the kernel knows no TLS. */
  security: string | null;
  /** Whether hosts have to use it: "required", "not required", "not specified". */
  requirement: string | null;
  /** Of group ANA_GROUP; null if there is no such group. */
  anaState: string | null;
  subsystems: Set<string>;
}

/** With what a host proves itself, in the form that nvme-cli makes. */
export interface HostSecrets {
  hostKey: string;
  /** With which the target proves itself to the host. */
  controllerKey: string | null;
}

export interface NvmetState {
  /** By NQN. */
  subsystems: Map<string, SubsystemState>;
  ports: Map<number, PortState>;
  /** Null: the host need not prove itself. */
  hosts: Map<string, HostSecrets | null>;
}

export interface ListenAddress {
  /** Numeric. */
  address: string;
  port: number;
}

export interface DesiredVolume {
  nqn: string;
  uuid: string;
  devicePath: string;
  allowedHosts: readonly string[];
}

export interface DesiredState {
  model: string;
  listen: ListenAddress;
  /** Hosts have to use TLS there, or cannot. */
  tls: boolean;
  volumes: readonly DesiredVolume[];
  /** NQNs of volumes that cannot be served now: what there is of them stays as it is. */
  untouched: ReadonlySet<string>;
  /** Of the hosts that have to prove themselves. */
  secrets: ReadonlyMap<string, HostSecrets>;
}
