// Several pools in one daemon: "pools" in the configuration file, a list in place of "pool".
//
//     { "pools": [
//         { "name": "fast", "pool": "/srv/fast", "target": "10.0.0.5:4420" },
//         { "name": "bulk", "pool": "/dev/sdb",  "target": "10.0.0.5:4421" } ] }
//
// A pool has front ends of its own, since its reactor has: so what places of listening are is said
// of each. What is left out of an entry is as the file itself says, where the file may say it.
import { basename } from "node:path";
import { formatAddress } from "./address.js";
import { MAX_NAME_LENGTH } from "./constants.js";
import { PandoError } from "./errors.js";
import { quote } from "./quote.js";

/** Of one pool, as in the file. */
export const POOL_SETTING_NAMES = [
  "name",
  "pool",
  "meta",
  "nbdSocket",
  "target",
  "advertise",
  "nvmet",
  "indexCache",
  "spaceLevels",
  "discard",
] as const;
export type PoolSettings = Partial<Record<(typeof POOL_SETTING_NAMES)[number], string>>;

/** What the file itself may not say if it has a list of pools. */
export const OF_EACH_POOL = ["pool", "meta", "nbdSocket", "target", "advertise", "nvmet"] as const;

/** As the name of a volume: it ends up in labels of metrics and in shells. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
const MAX_POOLS = 16;

/** `isPath` and `toPath`: which values are paths, and what they are relative to. */
export function parsePools(
  value: unknown,
  path: string,
  toPath: (key: string, value: string) => string,
): PoolSettings[] {
  const wrong = (why: string, field = "pools"): never => {
    throw new PandoError("EINVAL", `${path}: ${why}`, {
      path,
      field,
      hint: '"pools": [{"name": "fast", "pool": "/srv/fast", "target": "10.0.0.5:4420"}]',
    });
  };
  if (!Array.isArray(value) || value.length === 0) return wrong('"pools" is not a list of pools');
  if (value.length > MAX_POOLS) wrong(`${value.length} pools are more than ${MAX_POOLS}`);
  return value.map((entry: unknown, at): PoolSettings => {
    const where = `pools[${at}]`;
    if (typeof entry !== "object" || entry === null || Array.isArray(entry)) {
      return wrong(`${where} is not an object`);
    }
    const settings: PoolSettings = {};
    for (const [key, text] of Object.entries(entry)) {
      const known = POOL_SETTING_NAMES.find((name) => name === key);
      if (known === undefined) {
        throw new PandoError("EINVAL", `${path}: ${where} has an unknown key, ${quote(key)}`, {
          path,
          field: key,
          hint: `one of ${POOL_SETTING_NAMES.join(", ")}`,
        });
      }
      if (typeof text !== "string") return wrong(`${where}: "${key}" is not a string`, key);
      settings[known] = toPath(known, text);
    }
    return settings;
  });
}

export function requirePoolName(name: string | undefined, where = "a pool"): string {
  if (name === undefined) {
    throw new PandoError("EINVAL", `${where} has no name`, { field: "name" });
  }
  if (name.length <= MAX_NAME_LENGTH && NAME.test(name)) return name;
  throw new PandoError("EINVAL", `${quote(name)} cannot be the name of a pool`, {
    field: "name",
    hint: "letters, digits, dot, underscore and dash, the first a letter or digit",
  });
}

interface Place {
  name: string;
  pool: string;
  nbdSocket: string | null;
  target: readonly { host: string; port: number }[];
  nvmet: { host: string; port: number } | null;
}

/** No two of them are, or listen at, the same. */
export function requireApart(pools: readonly Place[]): void {
  const taken = new Map<string, { name: string; field: string }>();
  const take = (what: string, name: string, field: string): void => {
    const other = taken.get(what);
    if (other !== undefined) {
      const both = other.name === name ? `the pool ${name} has` : `${other.name} and ${name} have`;
      throw new PandoError("EINVAL", `${both} the same "${field}": ${what}`, { field });
    }
    taken.set(what, { name, field });
  };
  for (const { name, pool, nbdSocket, target, nvmet } of pools) {
    take(name, name, "name");
    take(pool, name, "pool");
    if (nbdSocket !== null) take(nbdSocket, name, "nbdSocket");
    for (const place of target) take(formatAddress(place), name, "target");
    if (nvmet !== null) take(formatAddress(nvmet), name, "nvmet");
  }
  const kernels = pools.filter(({ nvmet }) => nvmet !== null).map(({ name }) => name);
  if (kernels.length > 1) {
    throw new PandoError("EINVAL", `${kernels.join(" and ")} both have "nvmet"`, {
      field: "nvmet",
      hint: "the kernel's target serves the volumes of one pool of a daemon",
    });
  }
}

/** Where the NBD front end of a pool listens, if nothing is said of it. */
export function nbdSocketOf(socket: string, name: string): string {
  return `${basename(socket, ".sock")}-${name}-nbd.sock`;
}
