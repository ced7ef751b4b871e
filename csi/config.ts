// The driver's configuration: one JSON file, overridden by flags, parsed once. An unknown key is an
// error that names it.
//
//     {
//       "mode": "controller",
//       "endpoint": "unix:///csi/csi.sock",
//       "storageNodes": [{ "name": "a", "address": "10.0.0.5:9751" }],
//       "tls": { "certificate": "tls.crt", "key": "tls.key", "authority": "ca.crt" }
//     }
//
// Inside Kubernetes the storage nodes can be its own: `"kubernetes": {}` (kubernetes.ts).
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { type Address, formatAddress, isLoopback, parseAddress } from "../engine/base/address.js";
import type { TlsFiles } from "../engine/base/config.js";
import { PandoError } from "../engine/base/errors.js";
import { LOG_LEVELS, type LogLevel } from "../engine/base/log.js";
import { checkHostNqn } from "../engine/base/nqn.js";
import { quote } from "../engine/base/quote.js";
import { DEFAULT_DRIVER_NAME } from "./identity.js";
import { isNodeName } from "./ids.js";
import type { KubernetesConfig } from "./kubernetes.js";

const MODES = ["controller", "node", "all"] as const;
export type Mode = (typeof MODES)[number];
const TOPOLOGIES = ["none", "zone"] as const;
export type TopologyMode = (typeof TOPOLOGIES)[number];

export interface StorageNodeConfig {
  readonly name: string;
  readonly address: Address;
  /** Of a daemon that serves several: the name of the one that is meant. */
  readonly pool?: string;
  /** Null: nobody says. */
  readonly zone: string | null;
}

export interface CsiConfig {
  readonly mode: Mode;
  /** A Unix socket. */
  readonly endpoint: string;
  readonly driverName: string;
  readonly storageNodes: readonly StorageNodeConfig[];
  /** Null: Kubernetes is not asked for others. */
  readonly kubernetes: KubernetesConfig | null;
  /** Null: every storage node is on loopback. */
  readonly tls: TlsFiles | null;
  /** Null: what the machine says. */
  readonly hostNqn: string | null;
  /** This compute node's TLS key, for connections to volumes; null: they are in the open. */
  readonly tlsKeyFile: string | null;
  /** Whether volumes are put near their pods. */
  readonly topology: TopologyMode;
  /** Of this compute node; null: nobody says. */
  readonly zone: string | null;
  /** Null: no limit. */
  readonly maxVolumesPerNode: number | null;
  readonly logLevel: LogLevel;
}

/** Flags and file have the same words. */
export const FLAG_NAMES = [
  "mode",
  "endpoint",
  "driverName",
  "hostNqn",
  "tlsKeyFile",
  "maxVolumesPerNode",
  "topology",
  "zone",
  "logLevel",
] as const;
export type Flags = Partial<Record<(typeof FLAG_NAMES)[number], string>>;

type Values = Record<string, unknown>;

const DEFAULT_ENDPOINT = "unix:///csi/csi.sock";
/** What the DaemonSet of storage daemons has. */
const DEFAULT_NODES = "pando.io/storage-node=true";
const DEFAULT_API_PORT = "9751";
/** Kubernetes' rule for the values of labels, and CSI's for topologies. */
const LABEL_VALUE = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
/** Where every pod finds who it is. */
const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";
/** CSI's rule for the names of drivers. */
const DRIVER_NAME = /^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/;

export function loadCsiConfig(path: string | undefined, flags: Flags): CsiConfig {
  const file = path === undefined ? {} : parseObject(read(path), path);
  onlyKeys(file, [...FLAG_NAMES, "storageNodes", "kubernetes", "tls"], "");
  const given = Object.entries(flags).filter(([, value]) => value !== undefined);
  const values: Values = { ...file, ...Object.fromEntries(given) };
  const mode = oneOf(MODES, text(values, "mode") ?? "all", "mode");
  const storageNodes = readNodes(values.storageNodes ?? []);
  const folder = dirname(path ?? ".");
  const tls = values.tls === undefined ? null : readTls(values.tls, folder);
  const kubernetes =
    values.kubernetes === undefined ? null : readKubernetes(values.kubernetes, folder);
  const exposed = storageNodes.find(({ address }) => !isLoopback(address));
  if (tls === null && exposed !== undefined) {
    throw wrong("tls", `is missing, and ${formatAddress(exposed.address)} is not loopback`);
  }
  if (tls === null && kubernetes !== null) {
    throw wrong("tls", "is missing, and the nodes of Kubernetes are not on loopback");
  }
  if (mode !== "node" && storageNodes.length === 0 && kubernetes === null) {
    throw wrong("storageNodes", "is missing: a controller controls them, or those of kubernetes");
  }
  const driverName = text(values, "driverName") ?? DEFAULT_DRIVER_NAME;
  if (!DRIVER_NAME.test(driverName)) throw wrong("driverName", `cannot be ${quote(driverName)}`);
  const keyFile = text(values, "tlsKeyFile");
  const hostNqn = text(values, "hostNqn") ?? null;
  if (hostNqn !== null) checkHostNqn(hostNqn);
  return Object.freeze({
    mode,
    endpoint: readEndpoint(text(values, "endpoint") ?? DEFAULT_ENDPOINT),
    driverName,
    storageNodes,
    kubernetes,
    tls,
    hostNqn,
    tlsKeyFile: keyFile === undefined ? null : resolve(folder, keyFile),
    topology: oneOf(TOPOLOGIES, text(values, "topology") ?? "none", "topology"),
    zone: readZone(text(values, "zone"), "zone"),
    maxVolumesPerNode: readLimit(text(values, "maxVolumesPerNode")),
    logLevel: oneOf(LOG_LEVELS, text(values, "logLevel") ?? "info", "logLevel"),
  });
}

function readNodes(value: unknown): StorageNodeConfig[] {
  if (!Array.isArray(value)) throw wrong("storageNodes", "is not a list");
  const names = new Set<string>();
  return value.map((item: unknown, index): StorageNodeConfig => {
    const field = `storageNodes[${index}]`;
    const values = asObject(item, field);
    onlyKeys(values, ["name", "address", "pool", "zone"], `${field}.`);
    const name = text(values, "name") ?? "";
    if (!isNodeName(name)) {
      const rule = "up to 32 small letters, digits, dots and dashes";
      throw wrong(`${field}.name`, `cannot be ${quote(name)}: ${rule}`);
    }
    if (names.has(name)) throw wrong(`${field}.name`, `is ${name} again`);
    names.add(name);
    const zone = readZone(text(values, "zone"), `${field}.zone`);
    const address = parseAddress(text(values, "address") ?? "", `${field}.address`);
    const pool = text(values, "pool");
    return pool === undefined ? { name, address, zone } : { name, address, zone, pool };
  });
}

/** Each of its keys has what a pod finds. */
function readKubernetes(value: unknown, folder: string): KubernetesConfig {
  const values = asObject(value, "kubernetes");
  onlyKeys(values, ["nodes", "apiPort", "server", "token", "authority"], "kubernetes.");
  const server = text(values, "server") ?? "https://kubernetes.default.svc";
  if (!URL.canParse(server) || new URL(server).protocol !== "https:") {
    throw wrong("kubernetes.server", `is ${quote(server)}, not a URL with https:`);
  }
  const apiPort = Number(text(values, "apiPort") ?? DEFAULT_API_PORT);
  if (!Number.isInteger(apiPort) || apiPort < 1 || apiPort > 65535) {
    throw wrong("kubernetes.apiPort", `is ${quote(String(values.apiPort))}, not a port`);
  }
  const path = (key: string, file: string) =>
    resolve(folder, text(values, key) ?? `${SERVICE_ACCOUNT}/${file}`);
  return {
    server,
    apiPort,
    nodes: text(values, "nodes") ?? DEFAULT_NODES,
    token: path("token", "token"),
    authority: path("authority", "ca.crt"),
  };
}

function readTls(value: unknown, folder: string): TlsFiles {
  const values = asObject(value, "tls");
  onlyKeys(values, ["certificate", "key", "authority"], "tls.");
  const path = (key: string): string => {
    const given = text(values, key);
    if (given === undefined) throw wrong(`tls.${key}`, "is missing");
    return resolve(folder, given);
  };
  return { certificate: path("certificate"), key: path("key"), authority: path("authority") };
}

/** Empty is what a label that is not there leaves. */
function readZone(zone: string | undefined, field: string): string | null {
  if (zone === undefined || zone === "") return null;
  if (LABEL_VALUE.test(zone)) return zone;
  throw wrong(field, `cannot be ${quote(zone)}: it is the value of a label`);
}

function readEndpoint(endpoint: string): string {
  const path = endpoint.replace(/^unix:(\/\/)?/, "");
  if (path.startsWith("/")) return path;
  throw wrong("endpoint", `is ${quote(endpoint)}, not a Unix socket: ${DEFAULT_ENDPOINT}`);
}

function readLimit(limit: string | undefined): number | null {
  if (limit === undefined || limit === "none") return null;
  if (/^[1-9][0-9]{0,5}$/.test(limit)) return Number(limit);
  throw wrong("maxVolumesPerNode", `is ${quote(limit)}, neither a number from 1 nor none`);
}

function oneOf<T extends string>(known: readonly T[], value: string, field: string): T {
  const found = known.find((one) => one === value);
  if (found !== undefined) return found;
  throw wrong(field, `is ${quote(value)}; there are ${known.join(", ")}`);
}

function text(values: Values, key: string): string | undefined {
  const value = values[key];
  if (value === undefined || typeof value === "string") return value;
  throw wrong(key, "is not a string");
}

function asObject(value: unknown, field: string): Values {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  throw wrong(field, "is not an object");
}

function parseObject(content: string, path: string): Values {
  let parsed: unknown;
  try {
    parsed = JSON.parse(content);
  } catch (cause) {
    throw new PandoError("EINVAL", `${path} is not JSON`, { path }, { cause });
  }
  return asObject(parsed, path);
}

function onlyKeys(values: Values, known: readonly string[], prefix: string): void {
  const odd = Object.keys(values).find((key) => !known.includes(key));
  if (odd === undefined) return;
  throw wrong(`${prefix}${odd}`, `is not a key; there are ${known.join(", ")}`);
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new PandoError("EINVAL", `cannot read ${path}`, { path }, { cause });
  }
}

function wrong(field: string, why: string): PandoError {
  return new PandoError("EINVAL", `${field} ${why}`, { field });
}
