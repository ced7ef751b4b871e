// How LMDB is opened: in this one place, so that the main thread and the index worker open the same
// environment with the same options and share it. Two environments on one file in one process would
// break LMDB's locks.
//
// overlappingSync is off: with it, another thread sees a transaction before it is durable.
// eventTurnBatching is off: it makes promises of its own that nobody holds, and a commit that fails
// would end the process by an unhandled rejection.
import { type Database, open, type RootDatabase } from "lmdb";
import { PandoError } from "../base/errors.js";
import { checkEnvironmentFile } from "./lmdb-file.js";
import { SPACES, type Space } from "./store.js";

export type BinaryDatabase = Database<Buffer, Buffer>;

export interface Environment {
  root: RootDatabase<Buffer, Buffer>;
  /** One that is absent is empty: an older version made the store, and it is only read here. */
  databases: Partial<Record<Space, BinaryDatabase>>;
}

const ENCODING = { encoding: "binary", keyEncoding: "binary" } as const;
/** Named databases, with room for those that later versions add. */
const MAX_DATABASES = 32;

export type OpenMode = "create" | "write" | "read";

/**
 * Opens the environment in `directory`. Unless it is to be created, its file is checked first: LMDB
 * would die of it.
 */
export function openEnvironment(directory: string, mode: OpenMode = "write"): Environment {
  checkEnvironmentFile(directory, { create: mode === "create" });
  try {
    const root = open<Buffer, Buffer>({
      path: directory,
      noSubdir: false,
      maxDbs: MAX_DATABASES,
      overlappingSync: false,
      noMemInit: true,
      eventTurnBatching: false,
      ...(mode === "read" ? { readOnly: true } : {}),
      ...ENCODING,
    });
    root.readerCheck();
    const databases = Object.fromEntries(
      SPACES.map((space) => [space, root.openDB<Buffer, Buffer>({ name: space, ...ENCODING })]),
    ) as Partial<Record<Space, BinaryDatabase>>;
    return { root, databases };
  } catch (cause) {
    throw new PandoError(
      isLmdbFailure(cause) ? "ECORRUPT" : "EIO",
      `store: ${directory} does not open: ${cause instanceof Error ? cause.message : cause}`,
      { path: directory },
      { cause },
    );
  }
}

/** LMDB found something wrong with its file; errors of the system have positive numbers. */
function isLmdbFailure(cause: unknown): boolean {
  return cause instanceof Error && "code" in cause && Number(cause.code) < 0;
}
