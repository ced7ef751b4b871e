// A random load: block I/O and changes of the catalogue, some at a time, on a few volumes whose
// traffic is crowded into a few places, so that everything meets everything.
//
// Each operation is drawn from a source of its own, so that leaving one out leaves the others as
// they were, as far as what they meet allows.
import { isPandoError } from "../../engine/base/errors.js";
import { type Random, seeded } from "../prng.js";
import type { Range, VolumeBook } from "./books.js";
import type { Client, Outcome } from "./client.js";

export interface LoadOptions {
  /** Sectors of a span. */
  span: number;
  maxVolumes: number;
  maxSnapshots: number;
  /** Of the catalogue, under way at a time: they wait for the store, and block I/O does not. */
  maxChanges: number;
  /** Statuses and error codes that are no surprise. */
  tolerated: ReadonlySet<string>;
}

type Action = (load: Load) => Promise<unknown> | null;

const LONGEST = 24;

export class Load {
  readonly client: Client;
  readonly options: LoadOptions;
  /** Of the operation that is being drawn. */
  random: Random = seeded(0);
  /** The first thing that should not have happened. */
  surprise: unknown = null;
  /** How operations ended. */
  readonly outcomes = new Map<string, number>();
  #number = 0;
  #changes = 0;
  #life = 0;

  constructor(client: Client, options: LoadOptions) {
    this.client = client;
    this.options = options;
  }

  /** The places where the traffic is: the begin, and the borders of the spans. */
  static places(span: number): Range[] {
    return [
      { sector: 0, count: 24 },
      { sector: span - 20, count: 40 },
      { sector: 2 * span - 12, count: 28 },
    ];
  }

  /** Submits the operation of this number; false if what was drawn is not possible now. */
  submit(number: number, random: Random): boolean {
    this.random = random;
    this.#number = number;
    const action = random.pick(ACTIONS);
    const isChange = !BLOCK_IO.has(action);
    if (isChange && this.#changes >= this.options.maxChanges) return false;
    const work = action(this);
    if (work === null) return false;
    if (isChange) this.#changes++;
    const life = this.#life;
    work
      .then(
        (outcome) => this.#ended(typeof outcome === "string" ? outcome : "ok"),
        (error: unknown) => this.#ended(isPandoError(error) ? error.code : "", error),
      )
      .finally(() => {
        if (isChange && life === this.#life) this.#changes--;
      });
    return true;
  }

  /** The process has died: nothing of it ends any more. */
  died(): void {
    this.#life++;
    this.#changes = 0;
  }

  /** A volume whose I/O may be submitted. */
  volume(): VolumeBook | null {
    const open = this.#free().filter(({ held, moving }) => held && !moving);
    return open.length === 0 ? null : this.random.pick(open);
  }

  /** A volume that may be branched off. */
  stayingVolume(): VolumeBook | null {
    const staying = this.#free();
    return staying.length === 0 ? null : this.random.pick(staying);
  }

  /** A volume that may be opened, closed or deleted. */
  idleVolume(): VolumeBook | null {
    const idle = this.#free().filter(({ moving, pins }) => !moving && pins === 0);
    return idle.length === 0 ? null : this.random.pick(idle);
  }

  snapshotKey(): string | null {
    const keys = [...this.client.snapshots.keys()].filter((key) => !this.client.busy.has(key));
    return keys.length === 0 ? null : this.random.pick(keys);
  }

  range(volume: VolumeBook): Range {
    const place = this.random.pick(this.client.places);
    const sector = place.sector + this.random.below(place.count);
    const end = Math.min(place.sector + place.count, volume.sectors);
    if (sector >= end) return { sector: 0, count: 1 + this.random.below(4) };
    const longest = this.random.oneIn(3) ? LONGEST : 4;
    return { sector, count: 1 + this.random.below(Math.min(longest, end - sector)) };
  }

  newName(prefix: string): string {
    return `${prefix}${this.#number}`;
  }

  /** Where a volume may end. */
  size(): number {
    const { span } = this.options;
    return this.random.pick([span + 20, 2 * span + 8, 2 * span + 16]);
  }

  #free(): VolumeBook[] {
    return [...this.client.volumes.values()].filter(({ name }) => !this.client.busy.has(name));
  }

  #ended(outcome: Outcome | string, error: unknown = null): void {
    this.outcomes.set(outcome, (this.outcomes.get(outcome) ?? 0) + 1);
    if (outcome === "ok" || this.options.tolerated.has(outcome)) return;
    this.surprise ??= error ?? new Error(`an operation ended with ${outcome}`);
  }
}

const io =
  (submit: (load: Load, volume: VolumeBook) => Promise<unknown>): Action =>
  (load) => {
    const volume = load.volume();
    return volume === null ? null : submit(load, volume);
  };

const write = io((load, volume) =>
  load.client.write(volume.name, load.range(volume), { fua: load.random.oneIn(8) }),
);
const read = io((load, volume) => load.client.read(volume.name, load.range(volume)));
const discard = io((load, volume) =>
  load.client.discard(volume.name, load.range(volume), { fua: load.random.oneIn(8) }),
);
const writeZeroes = io((load, volume) =>
  load.client.writeZeroes(volume.name, load.range(volume), { fua: load.random.oneIn(8) }),
);
const flush = io((load, volume) => load.client.flush(volume.name));

const create: Action = (load) => {
  if (load.client.volumes.size >= load.options.maxVolumes) return null;
  return load.client.create(load.newName("v"), load.size());
};

const open: Action = (load) => {
  const volume = load.idleVolume();
  return volume === null || volume.held ? null : load.client.open(volume.name);
};

const close: Action = (load) => {
  const volume = load.idleVolume();
  return volume === null || !volume.held ? null : load.client.close(volume.name);
};

const snapshot: Action = (load) => {
  const volume = load.stayingVolume();
  if (volume === null || load.client.snapshots.size >= load.options.maxSnapshots) return null;
  return load.client.snapshot(volume.name, load.newName("s"));
};

const cloneSnapshot: Action = (load) => {
  const key = load.snapshotKey();
  if (key === null || load.client.volumes.size >= load.options.maxVolumes) return null;
  return load.client.cloneSnapshot(key, load.newName("c"));
};

const cloneVolume: Action = (load) => {
  const volume = load.stayingVolume();
  if (volume === null || load.client.volumes.size >= load.options.maxVolumes) return null;
  return load.client.cloneVolume(volume.name, load.newName("l"));
};

const deleteVolume: Action = (load) => {
  const volume = load.idleVolume();
  if (volume === null || load.client.volumes.size < 2) return null;
  return load.client.deleteVolume(volume.name);
};

const deleteSnapshot: Action = (load) => {
  const key = load.snapshotKey();
  return key === null ? null : load.client.deleteSnapshot(key);
};

const resize: Action = (load) => {
  const volume = load.idleVolume();
  const size = load.size();
  if (volume === null || volume.sectors >= size) return null;
  return load.client.resize(volume.name, size);
};

const checkpoint: Action = (load) => load.client.checkpoint();

const grow: Action = (load) => {
  const { grown, roomBlocks } = load.client.world;
  if (grown >= roomBlocks) return null;
  return load.client.grow(1 + load.random.below(roomBlocks - grown));
};

const tick: Action = (load) => {
  load.client.world.tick();
  return Promise.resolve();
};

const BLOCK_IO: ReadonlySet<Action> = new Set([write, read, discard, writeZeroes, flush]);

/** Each as often as it stands here. */
const ACTIONS: Action[] = [
  ...times(30, write),
  ...times(12, read),
  ...times(8, discard),
  ...times(4, writeZeroes),
  ...times(7, flush),
  ...times(5, open),
  ...times(1, close),
  ...times(3, create),
  ...times(4, snapshot),
  ...times(3, cloneSnapshot),
  ...times(3, cloneVolume),
  ...times(2, deleteVolume),
  ...times(2, deleteSnapshot),
  ...times(1, resize),
  ...times(2, checkpoint),
  ...times(2, tick),
  ...times(1, grow),
];

function times(count: number, action: Action): Action[] {
  return Array.from({ length: count }, () => action);
}
