// A volume of a daemon that may end at any moment: what it reads as, and how its end looks to those
// who were asking it for something.
import { SECTOR_BYTES } from "../../engine/base/constants.js";
import { isPandoError } from "../../engine/base/errors.js";
import { NbdClient } from "../../engine/cli/nbd-client.js";
import type { VersionBook } from "./version-book.js";

const READ_SECTORS = 256;
const ENDS = new Set(["ECONNREFUSED", "ENOENT", "EPIPE", "ECONNRESET"]);

/** The daemon is gone, or was when it was asked. */
export function isCut(error: unknown): boolean {
  if (isPandoError(error, "ECLOSED")) return true;
  if (isPandoError(error, "EIO")) return /NBD connection broke/.test(error.message);
  return error instanceof Error && "code" in error && ENDS.has(String(error.code));
}

/** Reads all of it; throws where it reads as nothing that the book knows. */
export async function settleVolume(
  volume: { socket: string; name: string; sectors: number },
  book: VersionBook,
  what: string,
): Promise<void> {
  const { sectors, ...place } = volume;
  const client = await NbdClient.open(place);
  for (let sector = 0; sector < sectors; sector += READ_SECTORS) {
    const data = await client.read(sector * SECTOR_BYTES, READ_SECTORS * SECTOR_BYTES);
    book.settle(sector, data, what);
  }
  await client.close();
}
