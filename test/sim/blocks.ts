// What tests write: units that say which version they are and which part of it, over and over, so
// that a torn, lost or misplaced write shows. A version is given to one sector once.
import { assert } from "../../engine/base/assert.js";
import { SECTOR_BYTES } from "../../engine/base/constants.js";

const UNIT = 512;
const WORDS = UNIT / 4;
export const UNITS_PER_SECTOR = SECTOR_BYTES / UNIT;
const MAX_VERSION = 2 ** 24 - 1;

/** The bytes of sectors of these versions; version 0 is what a hole reads as. */
export function sectorsOf(versions: readonly number[]): Uint8Array {
  const words = new Uint32Array((versions.length * SECTOR_BYTES) / 4);
  versions.forEach((version, sector) => {
    assert(version >= 0 && version <= MAX_VERSION, "a version has 24 bits");
    if (version === 0) return;
    for (let unit = 0; unit < UNITS_PER_SECTOR; unit++) {
      const first = (sector * UNITS_PER_SECTOR + unit) * WORDS;
      words.fill(wordOf(version, unit), first, first + WORDS);
    }
  });
  return new Uint8Array(words.buffer);
}

/**
 * The version in each 512 bytes; null where it is no version's, or that of another part of a
 * sector.
 */
export function versionsIn(data: Uint8Array): (number | null)[] {
  const aligned = data.byteOffset % 4 === 0 ? data : data.slice();
  const words = new Uint32Array(aligned.buffer, aligned.byteOffset, aligned.length / 4);
  const found: (number | null)[] = [];
  for (let first = 0; first < words.length; first += WORDS) {
    const unit = (first / WORDS) % UNITS_PER_SECTOR;
    const word = words[first] as number;
    const version = word >>> 8;
    let whole = true;
    for (let at = first + 1; at < first + WORDS; at++) whole &&= words[at] === word;
    const right = word === (version === 0 ? 0 : wordOf(version, unit));
    found.push(whole && right ? version : null);
  }
  return found;
}

function wordOf(version: number, unit: number): number {
  return ((version << 8) | unit) >>> 0;
}
