// What the sectors of one volume may read as. Every write has a version of its own, larger than all
// before it, and says it in every sector; so a sector is known by an interval: from the last
// version that was acknowledged to the last that was submitted. What is read settles it.
import { assert } from "../../engine/base/assert.js";
import { SECTOR_BYTES } from "../../engine/base/constants.js";

interface Interval {
  low: number;
  high: number;
}

const HOLE: Interval = { low: 0, high: 0 };
const ZEROES = Buffer.alloc(SECTOR_BYTES);

export class VersionBook {
  readonly #sectors: Map<number, Interval>;

  constructor(sectors: Map<number, Interval> = new Map()) {
    this.#sectors = sectors;
  }

  submitted(sector: number, count: number, version: number): void {
    for (let at = sector; at < sector + count; at++) {
      const { low } = this.#sectors.get(at) ?? HOLE;
      this.#sectors.set(at, { low, high: version });
    }
  }

  /** One write at a time is under way on a sector. */
  acknowledged(sector: number, count: number, version: number): void {
    for (let at = sector; at < sector + count; at++) {
      this.#sectors.set(at, { low: version, high: version });
    }
  }

  /** What was read must be possible; from now on nothing else is. */
  settle(sector: number, data: Buffer, what: string): void {
    for (let at = 0; at * SECTOR_BYTES < data.length; at++) {
      const found = versionOf(
        sector + at,
        data.subarray(at * SECTOR_BYTES).subarray(0, SECTOR_BYTES),
      );
      const { low, high } = this.#sectors.get(sector + at) ?? HOLE;
      const possible = found !== null && found >= low && found <= high;
      assert(possible, `${what}, sector ${sector + at}: ${found}, not ${low} to ${high}`);
      if (found > 0) this.#sectors.set(sector + at, { low: found, high: found });
    }
  }

  /** As it is now. */
  copy(): VersionBook {
    return new VersionBook(new Map(this.#sectors));
  }

  /** An image of this volume that was made between `before` and now. */
  imageSince(before: VersionBook): VersionBook {
    const image = new Map<number, Interval>();
    for (const [sector, { high }] of this.#sectors) {
      image.set(sector, { low: (before.#sectors.get(sector) ?? HOLE).low, high });
    }
    return new VersionBook(image);
  }
}

export function sectorsOf(first: number, count: number, version: number): Buffer {
  return Buffer.concat(Array.from({ length: count }, (_, at) => sectorOf(first + at, version)));
}

function sectorOf(sector: number, version: number): Buffer {
  return Buffer.alloc(SECTOR_BYTES, `sector ${sector} version ${version}\n`);
}

/** 0: a hole. Null: nothing that was ever written there. */
function versionOf(sector: number, bytes: Buffer): number | null {
  if (bytes.equals(ZEROES)) return 0;
  const version = Number(/^sector \d+ version (\d+)\n/.exec(bytes.toString("latin1", 0, 64))?.[1]);
  return Number.isInteger(version) && bytes.equals(sectorOf(sector, version)) ? version : null;
}
