// The pools that a daemon serves, and which of them a request means: the one that it names, or the
// only one. A pool that could not be opened is there as well, with the reason: it keeps nobody from
// the others.
import { isPandoError, PandoError } from "../base/errors.js";
import { quote } from "../base/quote.js";
import type { PoolService } from "../core/api.js";
import type { Places } from "./view.js";

/** Metadata of a request: the pool's name. */
export const POOL_KEY = "pando-pool";

export interface OpenPlace {
  /** Null: the only one, and the configuration gives it no name. */
  name: string | null;
  path: string;
  pool: PoolService;
  places: Places;
}

export interface FailedPlace {
  name: string;
  path: string;
  failure: unknown;
}

export type PoolPlace = OpenPlace | FailedPlace;

export interface PoolEntry {
  /** Empty: the only one, without a name. */
  name: string;
  path: string;
  /** Empty, and no sizes: it is not open. */
  uuid: string;
  sizeBytes: number;
  usedBytes: number;
  /** Why it takes no writes, or is not served; null: it is. */
  failure: string | null;
}

export function isOpen(place: PoolPlace): place is OpenPlace {
  return "pool" in place;
}

export function failureOf(place: FailedPlace): PandoError {
  const { name, failure } = place;
  const why = failure instanceof Error ? failure.message : String(failure);
  const [code, context] = isPandoError(failure)
    ? [failure.code, failure.context]
    : ["EIO" as const, {}];
  return new PandoError(code, `the pool ${name} is not served: ${why}`, context, {
    cause: failure,
  });
}

/** `name` empty: none is named. */
export function choosePool<T extends { name: string | null }>(
  pools: readonly T[],
  name: string,
): T {
  const known = pools.flatMap((pool) => pool.name ?? []).join(", ");
  const [only] = pools;
  if (name === "" && pools.length === 1 && only !== undefined) return only;
  if (name === "") {
    throw new PandoError("EINVAL", `this daemon serves several pools: ${known}`, {
      field: "pool",
      hint: "say which: --pool NAME",
    });
  }
  const found = pools.find((pool) => pool.name === name);
  if (found !== undefined) return found;
  const has = known === "" ? "one, which has no name" : known;
  throw new PandoError("ENOTFOUND", `this daemon has no pool ${quote(name)}: it serves ${has}`, {
    field: "pool",
  });
}

/** What all of them are like, those that are not served too. */
export function listPools(places: readonly PoolPlace[]): Promise<PoolEntry[]> {
  return Promise.all(
    places.map(async (place): Promise<PoolEntry> => {
      if (!isOpen(place)) {
        const nothing = { uuid: "", sizeBytes: 0, usedBytes: 0 };
        return {
          name: place.name,
          path: place.path,
          ...nothing,
          failure: failureOf(place).message,
        };
      }
      const { uuid, sizeBytes, usedBytes, failure } = await place.pool.info();
      return { name: place.name ?? "", path: place.path, uuid, sizeBytes, usedBytes, failure };
    }),
  );
}
