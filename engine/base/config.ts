// Configuration: one JSON file, overridden by flags, parsed once into a frozen object. An unknown
// key is an error that names it.
//
// The keys of the file and the flags are the same words: "logLevel" in the file is --log-level.
// Precedence: flag, then environment (socket only), then file, then default.
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { type Address, formatAddress, isLoopback, isWildcard, parseAddress } from "./address.js";
import type { DhchapPolicy } from "./dhchap-key.js";
import { parsePolicy } from "./dhchap-policy.js";
import { PandoError } from "./errors.js";
import { LOG_LEVELS, type LogLevel } from "./log.js";
import {
  nbdSocketOf,
  OF_EACH_POOL,
  type PoolSettings,
  parsePools,
  requireApart,
  requirePoolName,
} from "./pools-config.js";
import { quote } from "./quote.js";
import { parseSize } from "./size.js";

/** What is read of the process's environment, once, and nowhere else. */
export interface Environment {
  /** PANDO_CONFIG: the configuration file. */
  config: string | undefined;
  /** PANDO_SOCKET: where the daemon listens, and where the CLI looks for it. */
  socket: string | undefined;
  /** XDG_RUNTIME_DIR: where an ordinary user's sockets go. */
  runtimeDir: string | undefined;
  /** NOTIFY_SOCKET: set by systemd for a unit of type notify. */
  notifySocket: string | undefined;
  /** PANDO_OWN_MOUNTS: set by a daemon for itself; see nvmf/own-mounts.ts. */
  ownMounts: string | undefined;
}

export const DEFAULT_CONFIG_PATH = "/etc/pando/pando.json";
const DEFAULT_METRICS = "127.0.0.1:9750";
const DEFAULT_TARGET = "127.0.0.1:4420";
/** As many as the native target takes. */
const MAX_TARGET_PLACES = 16;
const DEFAULT_CONNECTIONS = "8192";
/** A volume of one host needs two; there are no more numbers for controllers. */
const MIN_CONNECTIONS = 2;
const MAX_CONNECTIONS = 65_536;
const DEFAULT_INDEX_CACHE = "64MiB";
const DEFAULT_SPACE_LEVELS = "80,90,95";
/** Less cannot hold the index blocks that are in use at one moment. */
const MIN_INDEX_CACHE_BYTES = 1024 * 1024;
/** sun_path of sockaddr_un is 108 bytes, the last one zero (unix(7)). */
const MAX_SOCKET_PATH_BYTES = 107;

/** As it is in the file: all text, all optional. "none" switches a listener off. */
export interface Settings {
  /** The pool that the daemon opens: a folder with `data` and `meta/`. */
  pool?: string;
  /** The folder of the store; for a pool on a block device. */
  meta?: string;
  /** The Unix socket of the API. */
  socket?: string;
  /** The Unix socket of the NBD front end, or "none". */
  nbdSocket?: string;
  /** HOST:PORT of /metrics, /healthz and /readyz, or "none". Loopback only. */
  metrics?: string;
  /** Where the NVMe/TCP target listens: HOST:PORT, or several with commas between, or "none". */
  target?: string;
  /** What discovery and `nvme connect` lines name, if it is not the target's own: the same form. */
  advertise?: string;
  /**
   * HOST:PORT where the kernel's NVMe target listens for volumes that are shared by it, or "none".
   */
  nvmet?: string;
  /** Whether hosts must use TLS there, or cannot: "off", "required". */
  nvmetTls?: string;
  /** DH-HMAC-CHAP hashes that hosts may prove themselves with, what is liked best first. */
  authHashes?: string;
  /** And Diffie-Hellman groups; "null" is none. */
  authGroups?: string;
  /** Whether hosts may, or must, use TLS: "off", "allowed", "required". */
  targetTls?: string;
  /** How many connections the target takes in all, and of one host: each queue is one. */
  targetConnections?: string;
  targetHostConnections?: string;
  /** HOST:PORT of the API on TCP, or "none". */
  api?: string;
  /** PEM files of the API on TCP: the daemon's certificate and key, and who signs its clients. */
  apiCertificate?: string;
  apiKey?: string;
  apiAuthority?: string;
  /** Memory for index blocks. */
  indexCache?: string;
  /** Percent of the pool used at which each alarm level begins: "80,90,95". */
  spaceLevels?: string;
  /** Whether the device gets free blocks back: "on", "off", or "auto", for sparse files only. */
  discard?: string;
  logLevel?: string;
  /** In place of `pool` and its like: several. In the file only. */
  pools?: PoolSettings[];
}

export const TARGET_TLS_MODES = ["off", "allowed", "required"] as const;
export type TargetTlsMode = (typeof TARGET_TLS_MODES)[number];
/** The kernel's target cannot demand TLS of some hosts only. */
export const NVMET_TLS_MODES = ["off", "required"] as const;
export type NvmetTlsMode = (typeof NVMET_TLS_MODES)[number];

export const DISCARD_MODES = ["auto", "on", "off"] as const;
export type DiscardMode = (typeof DISCARD_MODES)[number];

/** Paths of PEM files: who this side is, and who signs the certificates of the other. */
export interface TlsFiles {
  readonly certificate: string;
  readonly key: string;
  readonly authority: string;
}

export interface ApiConfig {
  readonly address: Address;
  /** Null only on a loopback address. */
  readonly tls: TlsFiles | null;
}

/** What is said of a pool, be it the only one or one of several. */
export interface PoolConfig {
  /** Null: beside the data. */
  readonly meta: string | null;
  readonly nbdSocket: string | null;
  /** Empty: there is no target. */
  readonly target: readonly Address[];
  readonly advertise: readonly Address[];
  readonly nvmet: Address | null;
  readonly indexCacheBytes: number;
  /** Percent, rising. */
  readonly spaceLevels: readonly number[];
  readonly discard: DiscardMode;
}

export interface NamedPoolConfig extends PoolConfig {
  readonly name: string;
  readonly pool: string;
}

/** What is said of a pool here counts where there is one, and `pools` is null. */
export interface Config extends PoolConfig {
  readonly pool: string | null;
  readonly pools: readonly NamedPoolConfig[] | null;
  readonly socket: string;
  readonly metrics: Address | null;
  readonly authentication: DhchapPolicy;
  readonly targetTls: TargetTlsMode;
  readonly nvmetTls: NvmetTlsMode;
  readonly targetConnections: number;
  readonly targetHostConnections: number;
  readonly api: ApiConfig | null;
  readonly logLevel: LogLevel;
}

export const SETTING_NAMES = [
  "pool",
  "meta",
  "socket",
  "nbdSocket",
  "metrics",
  "target",
  "advertise",
  "nvmet",
  "nvmetTls",
  "authHashes",
  "authGroups",
  "targetTls",
  "targetConnections",
  "targetHostConnections",
  "api",
  "apiCertificate",
  "apiKey",
  "apiAuthority",
  "indexCache",
  "spaceLevels",
  "discard",
  "logLevel",
] as const satisfies readonly Exclude<keyof Settings, "pools">[];

export function readEnvironment(): Environment {
  const read = (name: string) => process.env[name] || undefined;
  return {
    config: read("PANDO_CONFIG"),
    socket: read("PANDO_SOCKET"),
    runtimeDir: read("XDG_RUNTIME_DIR"),
    notifySocket: read("NOTIFY_SOCKET"),
    ownMounts: read("PANDO_OWN_MOUNTS"),
  };
}

export interface ConfigSources {
  /**
   * --config; it must exist. Without it PANDO_CONFIG, which must exist too, then the default path,
   * which need not.
   */
  configPath?: string | undefined;
  flags: Settings;
  environment: Environment;
}

export function loadConfig(sources: ConfigSources): Config {
  const named = sources.configPath ?? sources.environment.config;
  const path = named ?? (existsSync(DEFAULT_CONFIG_PATH) ? DEFAULT_CONFIG_PATH : undefined);
  const file = path === undefined ? {} : parseSettings(readFile(path), path);
  const environment: Settings =
    sources.environment.socket === undefined ? {} : { socket: sources.environment.socket };
  return makeConfig({ ...file, ...environment, ...sources.flags }, sources.environment);
}

/**
 * The text of a configuration file; `path` is for the errors, and what its relative paths are
 * relative to.
 */
export function parseSettings(text: string, path: string): Settings {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PandoError("EINVAL", `${path} is not JSON: ${oneLine(why)}`, { path }, { cause });
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw new PandoError("EINVAL", `${path} is not a JSON object`, {
      path,
      hint: '{"pool": "/srv/pando"}',
    });
  }
  const settings: Settings = {};
  const toPath = (key: string, value: string) =>
    isPath(key, value) ? resolve(dirname(path), value) : value;
  for (const [key, value] of Object.entries(parsed)) {
    if (key === "pools") {
      settings.pools = parsePools(value, path, toPath);
      continue;
    }
    if (!isSettingName(key)) {
      throw new PandoError("EINVAL", `${path} has an unknown key, ${quote(key)}`, {
        path,
        field: key,
        hint: `one of ${SETTING_NAMES.join(", ")}, pools`,
      });
    }
    if (typeof value !== "string") {
      throw new PandoError("EINVAL", `${path}: "${key}" is not a string`, { path, field: key });
    }
    settings[key] = toPath(key, value);
  }
  return settings;
}

/** Checks every value, those that are not used too. */
export function makeConfig(settings: Settings, environment: Environment): Config {
  const socket = resolve(settings.socket ?? defaultSocket(environment));
  checkSocketPath("socket", socket);
  const metrics = orNone(settings.metrics ?? DEFAULT_METRICS, (text) =>
    parseAddress(text, "metrics"),
  );
  if (metrics !== null && !isLoopback(metrics)) {
    throw new PandoError(
      "EINVAL",
      `metrics are not served on ${formatAddress(metrics)}: it is not a loopback address`,
      { field: "metrics", hint: `${DEFAULT_METRICS}, or none` },
    );
  }
  return Object.freeze({
    pool: settings.pool === undefined ? null : resolve(settings.pool),
    pools: makePools(settings, socket),
    ...makePool(settings, socket, "nbd.sock"),
    socket,
    metrics,
    authentication: parsePolicy(settings),
    targetTls: parseTls(TARGET_TLS_MODES, settings.targetTls ?? "allowed", "targetTls"),
    nvmetTls: parseTls(NVMET_TLS_MODES, settings.nvmetTls ?? "off", "nvmetTls"),
    ...parseConnections(settings),
    api: makeApi(settings),
    logLevel: parseLogLevel(settings.logLevel ?? "info"),
  });
}

function makePool(settings: PoolSettings, socket: string, nbdName: string): PoolConfig {
  const nbdSocket = orNone(settings.nbdSocket ?? join(dirname(socket), nbdName), (path) =>
    resolve(path),
  );
  if (nbdSocket !== null) checkSocketPath("nbdSocket", nbdSocket);
  if (socket === nbdSocket) {
    throw new PandoError("EINVAL", `"socket" and "nbdSocket" are both ${socket}`, {
      field: "nbdSocket",
    });
  }
  const target = orNone(settings.target ?? DEFAULT_TARGET, (text) => parsePlaces(text, "target"));
  return Object.freeze({
    meta: settings.meta === undefined ? null : resolve(settings.meta),
    nbdSocket,
    target: target ?? [],
    advertise: advertised(target, settings.advertise),
    nvmet: orNone(settings.nvmet ?? "none", (text) => parseNvmet(text)),
    indexCacheBytes: parseIndexCache(settings.indexCache ?? DEFAULT_INDEX_CACHE),
    spaceLevels: parseSpaceLevels(settings.spaceLevels ?? DEFAULT_SPACE_LEVELS),
    discard: parseDiscard(settings.discard ?? "auto"),
  });
}

/** Null: there is one, if there is any. */
function makePools(settings: Settings, socket: string): readonly NamedPoolConfig[] | null {
  const { pools, indexCache, spaceLevels, discard } = settings;
  if (pools === undefined) return null;
  const misplaced = OF_EACH_POOL.find((key) => settings[key] !== undefined);
  if (misplaced !== undefined) {
    throw new PandoError("EINVAL", `"${misplaced}" is said of each pool where there are "pools"`, {
      field: misplaced,
    });
  }
  const shared = Object.entries({ indexCache, spaceLevels, discard });
  const defaults = Object.fromEntries(shared.filter(([, value]) => value !== undefined));
  const made = pools.map((own, at): NamedPoolConfig => {
    const name = requirePoolName(own.name, `pools[${at}]`);
    if (own.pool === undefined || own.target === undefined) {
      const field = own.pool === undefined ? "pool" : "target";
      throw new PandoError("EINVAL", `the pool ${name} has no "${field}"`, {
        field,
        hint:
          field === "pool" ? "its folder or device" : "HOST:PORT, another for each pool, or none",
      });
    }
    const nbdName = nbdSocketOf(socket, name);
    const settled = makePool({ ...defaults, ...own }, socket, nbdName);
    return Object.freeze({ name, pool: resolve(own.pool), ...settled });
  });
  requireApart(made);
  return Object.freeze(made);
}

function advertised(target: Address[] | null, setting: string | undefined): Address[] {
  const places = setting === undefined ? target : parsePlaces(setting, "advertise");
  if (target === null || places === null) return [];
  const wildcard = places.find(isWildcard);
  if (wildcard !== undefined) {
    throw new PandoError("EINVAL", `hosts cannot connect to ${formatAddress(wildcard)}`, {
      field: "advertise",
      hint: `set "advertise" to an address of this machine, as in 10.0.0.5:${wildcard.port}`,
    });
  }
  return places;
}

/** Hosts are told this address, and the kernel listens on it. */
function parseNvmet(text: string): Address {
  const address = parseAddress(text, "nvmet");
  if (!isWildcard(address)) return address;
  throw new PandoError("EINVAL", `hosts cannot connect to ${formatAddress(address)}`, {
    field: "nvmet",
    hint: `name an address of this machine, as in 10.0.0.5:${address.port}`,
  });
}

function parsePlaces(text: string, field: "target" | "advertise"): Address[] {
  const places = text.split(",").map((each) => parseAddress(each.trim(), field));
  const twice = places.find((place, index) =>
    places.some((other, at) => at < index && formatAddress(other) === formatAddress(place)),
  );
  if (twice === undefined && places.length <= MAX_TARGET_PLACES) return places;
  const why =
    twice === undefined
      ? `${places.length} addresses are more than ${MAX_TARGET_PLACES}`
      : `${formatAddress(twice)} is there twice`;
  throw new PandoError("EINVAL", `${field}: ${why}`, { field });
}

/** Whoever reaches the API can delete every volume: in the open it is for loopback only. */
function makeApi(settings: Settings): ApiConfig | null {
  const { apiCertificate: certificate, apiKey: key, apiAuthority: authority } = settings;
  const files = { apiCertificate: certificate, apiKey: key, apiAuthority: authority };
  const absent = Object.entries(files).find(([, path]) => path === undefined)?.[0];
  const given = Object.entries(files).find(([, path]) => path !== undefined)?.[0];
  if (given !== undefined && absent !== undefined) {
    throw new PandoError("EINVAL", `"${given}" is set and "${absent}" is not`, {
      field: absent,
      hint: "mutual TLS needs apiCertificate, apiKey and apiAuthority",
    });
  }
  const address = orNone(settings.api ?? "none", (text) => parseAddress(text, "api"));
  if (address === null) return null;
  if (certificate !== undefined && key !== undefined && authority !== undefined) {
    const tls = {
      certificate: resolve(certificate),
      key: resolve(key),
      authority: resolve(authority),
    };
    return { address, tls };
  }
  if (isLoopback(address)) return { address, tls: null };
  throw new PandoError(
    "EINVAL",
    `the API is not served on ${formatAddress(address)} without TLS: it is not a loopback address`,
    { field: "api", hint: "set apiCertificate, apiKey and apiAuthority" },
  );
}

function defaultSocket(environment: Environment): string {
  const folder =
    environment.runtimeDir === undefined ? "/run/pando" : join(environment.runtimeDir, "pando");
  return join(folder, "pando.sock");
}

function parseIndexCache(text: string): number {
  const bytes = parseSize(text, "index cache size");
  if (bytes < MIN_INDEX_CACHE_BYTES) {
    throw new PandoError("EINVAL", `an index cache of ${text} is too small`, {
      field: "indexCache",
      hint: "1MiB or more",
    });
  }
  return bytes;
}

function parseSpaceLevels(text: string): readonly number[] {
  const levels = text.split(",").map((part) => (/^\d{1,3}$/.test(part) ? Number(part) : 0));
  const rise = levels.every((level, at) => level > (levels[at - 1] ?? 0) && level <= 100);
  if (levels.length === 3 && rise) return Object.freeze(levels);
  throw new PandoError("EINVAL", `${quote(text)} are not space levels`, {
    field: "spaceLevels",
    hint: `three whole percentages, rising, as in ${DEFAULT_SPACE_LEVELS}`,
  });
}

function parseDiscard(text: string): DiscardMode {
  const mode = DISCARD_MODES.find((known) => known === text);
  if (mode !== undefined) return mode;
  throw new PandoError("EINVAL", `${quote(text)} does not say when to discard`, {
    field: "discard",
    hint: `one of ${DISCARD_MODES.join(", ")}`,
  });
}

function parseTls<T extends string>(modes: readonly T[], text: string, field: string): T {
  const mode = modes.find((known) => known === text);
  if (mode !== undefined) return mode;
  throw new PandoError("EINVAL", `${quote(text)} does not say whether hosts use TLS`, {
    field,
    hint: `one of ${modes.join(", ")}`,
  });
}

/** One host may have half of them, if nothing else is said. */
function parseConnections(settings: Settings) {
  const { targetConnections = DEFAULT_CONNECTIONS, targetHostConnections } = settings;
  const parse = (field: string, text: string, most: number) => {
    const count = /^\d{1,6}$/.test(text) ? Number(text) : 0;
    if (count >= MIN_CONNECTIONS && count <= most) return count;
    throw new PandoError("EINVAL", `${field} cannot be ${quote(text)}`, {
      field,
      hint: `a number from ${MIN_CONNECTIONS} to ${most}`,
    });
  };
  const all = parse("targetConnections", targetConnections, MAX_CONNECTIONS);
  const half = String(Math.max(MIN_CONNECTIONS, Math.floor(all / 2)));
  const ofHost = parse("targetHostConnections", targetHostConnections ?? half, all);
  return { targetConnections: all, targetHostConnections: ofHost };
}

function parseLogLevel(text: string): LogLevel {
  const level = LOG_LEVELS.find((known) => known === text);
  if (level !== undefined) return level;
  throw new PandoError("EINVAL", `${quote(text)} is not a log level`, {
    field: "logLevel",
    hint: `one of ${LOG_LEVELS.join(", ")}`,
  });
}

function checkSocketPath(field: "socket" | "nbdSocket", path: string): void {
  const length = Buffer.byteLength(path);
  if (length <= MAX_SOCKET_PATH_BYTES) return;
  throw new PandoError("EINVAL", `the path ${path} is too long for a socket: ${length} bytes`, {
    field,
    hint: `at most ${MAX_SOCKET_PATH_BYTES} bytes; choose a shorter path`,
  });
}

function orNone<T>(text: string, parse: (text: string) => T): T | null {
  return text === "none" ? null : parse(text);
}

function isSettingName(key: string): key is (typeof SETTING_NAMES)[number] {
  return (SETTING_NAMES as readonly string[]).includes(key);
}

function isPath(key: string, value: string): boolean {
  return (
    key === "pool" ||
    key === "meta" ||
    key === "socket" ||
    key === "apiCertificate" ||
    key === "apiKey" ||
    key === "apiAuthority" ||
    (key === "nbdSocket" && value !== "none")
  );
}

function readFile(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PandoError("EINVAL", `cannot read ${path}: ${oneLine(why)}`, { path }, { cause });
  }
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, " ");
}
