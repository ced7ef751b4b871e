// What there is, as far as the users of a pool can know: volumes and snapshots, what each sector
// may read as.
import { assert } from "../../engine/base/assert.js";
import { UNITS_PER_SECTOR, versionsIn } from "./blocks.js";
import { type Content, History, Image, type Mark, settle, written } from "./history.js";

export interface Range {
  sector: number;
  count: number;
}

export interface VolumeBook {
  readonly name: string;
  sectors: number;
  readonly base: (sector: number) => Content;
  readonly histories: Map<number, History>;
  held: boolean;
  /** Being opened or closed. */
  moving: boolean;
  /** Changes under way that need it to stay. */
  pins: number;
}

export interface SnapshotBook {
  image: Image;
  sectors: number;
}

export const HOLE: Content = written(0);

export class Books {
  readonly volumes = new Map<string, VolumeBook>();
  /** By `volume@snapshot`. */
  readonly snapshots = new Map<string, SnapshotBook>();
  #now = 0;

  /** Other books with the same entries. What is settled is settled in both. */
  copy(): Books {
    const copy = new Books();
    for (const [name, volume] of this.volumes) copy.volumes.set(name, { ...volume });
    for (const [key, snapshot] of this.snapshots) copy.snapshots.set(key, { ...snapshot });
    copy.#now = this.#now;
    return copy;
  }

  volume(name: string): VolumeBook {
    const volume = this.volumes.get(name);
    assert(volume !== undefined, `volume ${name} exists`);
    return volume;
  }

  addVolume(name: string, sectors: number, base: (sector: number) => Content): void {
    this.volumes.set(name, {
      name,
      sectors,
      base,
      histories: new Map(),
      held: false,
      moving: false,
      pins: 0,
    });
  }

  history(volume: VolumeBook, sector: number): History {
    let history = volume.histories.get(sector);
    if (history === undefined) {
      history = new History(volume.base(sector));
      volume.histories.set(sector, history);
    }
    return history;
  }

  /** `cut`: power was lost before anybody was told of it. */
  imageOf(volume: VolumeBook, from: number, cut: boolean): Image {
    return new Image(volume.histories, volume.base, { from, to: this.tick(), cut });
  }

  /** Its layer was frozen: everything that had ended before is durable. */
  frozen(volume: VolumeBook, since: number): void {
    const now = this.tick();
    for (const history of volume.histories.values()) history.flushed(since, now);
  }

  compare(
    volume: VolumeBook,
    range: Range,
    data: Uint8Array,
    allowed: (history: History) => Mark[],
    when: string,
    reset = false,
  ): void {
    const found = versionsIn(data);
    for (let at = 0; at < range.count; at++) {
      const sector = range.sector + at;
      const history = this.history(volume, sector);
      const first = at * UNITS_PER_SECTOR;
      const marks = allowed(history);
      for (let unit = 0; unit < UNITS_PER_SECTOR; unit++) {
        const version = found[first + unit] ?? null;
        if (version !== null && settle(marks, unit, version)) continue;
        const describe = marks.map(({ began, ended, ok, durable }) => ({
          began,
          ended,
          ok,
          durable,
        }));
        throw new Error(
          `${when}: ${volume.name}, sector ${sector}, unit ${unit} is version ${version}; ` +
            `${marks.length} marks were possible: ${JSON.stringify(describe)}`,
        );
      }
      if (reset) history.reset(found.slice(first, first + UNITS_PER_SECTOR) as number[]);
    }
  }

  tick(): number {
    return ++this.#now;
  }
}
