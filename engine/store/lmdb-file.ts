// What is checked of LMDB's file before LMDB sees it. LMDB maps the file and trusts its own meta
// page: a file shorter than that page says kills the process with SIGBUS, so it is refused here,
// with its name and both sizes.
//
// LMDB itself may leave its file shorter than the meta page says: pages that a transaction took
// last and gave back are counted, but not written. So that such a file is not taken for a truncated
// one, the file is kept longer (sparse) than LMDB has come, by more than a transaction takes.
//
//   meta page (0 and 1)   24 bytes of page header | magic u32 | version u32 | address u64
//                         map size u64 | free DB (page size u32, …) 48 bytes | main DB 48 bytes
//                         last page u64 | transaction u64
import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readSync,
  statSync,
  truncateSync,
} from "node:fs";
import { join } from "node:path";
import { PandoError } from "../base/errors.js";

const MAGIC = 0xbeefc0de;
const DATA_VERSION = 2;
const META_BYTES = 24 + 136;
const HEADER_BYTES = 24;
const MIN_PAGE_BYTES = 512;
const MAX_PAGE_BYTES = 65536;
/** More than the pages that one transaction takes and gives back. */
const RESERVE_BYTES = 64 * 1024 * 1024;

interface MetaPage {
  pageBytes: number;
  lastPage: number;
  transaction: bigint;
}

export function environmentFile(directory: string): string {
  return join(directory, "data.mdb");
}

/** Refuses a missing or truncated file; one to be created must not be there yet. */
export function checkEnvironmentFile(directory: string, options: { create: boolean }): void {
  const path = environmentFile(directory);
  const exists = existsSync(path);
  if (options.create) {
    if (exists) throw new PandoError("EEXIST", `store: ${path} is there already`, { path });
    return;
  }
  if (!exists) {
    throw new PandoError("ENOTFOUND", `store: ${path} is missing`, {
      path,
      hint: "restore the pool's meta folder from a backup; without it the data cannot be read",
    });
  }
  const file = openSync(path, "r");
  try {
    checkSize(path, file);
  } finally {
    closeSync(file);
  }
}

/**
 * Makes the file longer than `usedBytes`, and says up to which use it is long enough. Where the
 * file system does not let it, the file stays as it is: what has been committed is committed.
 */
export function reserveEnvironmentFile(directory: string, usedBytes: number): number {
  const path = environmentFile(directory);
  const wanted = usedBytes + 2 * RESERVE_BYTES;
  try {
    if (statSync(path).size < wanted) truncateSync(path, wanted);
  } catch {
    return usedBytes;
  }
  return wanted - RESERVE_BYTES;
}

function checkSize(path: string, file: number): void {
  const size = fstatSync(file).size;
  const meta = newestMeta(file, size);
  if (meta === null) {
    throw new PandoError("ECORRUPT", `store: ${path} (${size} bytes) has no valid meta page`, {
      path,
      field: "meta page",
    });
  }
  const needed = (meta.lastPage + 1) * meta.pageBytes;
  if (size >= needed) return;
  throw new PandoError(
    "ECORRUPT",
    `store: ${path} is truncated: it has ${size} bytes, its meta page needs ${needed}`,
    { path, field: "size", hint: "restore the pool's meta folder from a backup" },
  );
}

function newestMeta(file: number, size: number): MetaPage | null {
  const first = readMeta(file, 0, size);
  // The second meta page is one page on; if the first is damaged, its size has to be guessed.
  const sizes = first === null ? PAGE_SIZES : [first.pageBytes];
  const second = sizes.map((pageBytes) => readMeta(file, pageBytes, size)).find(Boolean) ?? null;
  if (first === null || second === null) return first ?? second;
  return second.transaction > first.transaction ? second : first;
}

const PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

function readMeta(file: number, offset: number, size: number): MetaPage | null {
  if (offset + META_BYTES > size) return null;
  const bytes = Buffer.alloc(META_BYTES);
  if (readSync(file, bytes, 0, META_BYTES, offset) !== META_BYTES) return null;
  if (bytes.readUInt32LE(HEADER_BYTES) !== MAGIC) return null;
  if ((bytes.readUInt32LE(HEADER_BYTES + 4) & 0xffff) !== DATA_VERSION) return null;
  const pageBytes = bytes.readUInt32LE(HEADER_BYTES + 24);
  if (pageBytes < MIN_PAGE_BYTES || pageBytes > MAX_PAGE_BYTES) return null;
  const lastPage = bytes.readBigUInt64LE(HEADER_BYTES + 120);
  if (lastPage > BigInt(Number.MAX_SAFE_INTEGER)) return null;
  return {
    pageBytes,
    lastPage: Number(lastPage),
    transaction: bytes.readBigUInt64LE(HEADER_BYTES + 128),
  };
}
