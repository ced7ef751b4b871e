// Bounded exhaustive: every sequence of a few operations on a tiny volume, crashed after every
// device operation and commit of its last one, with every set of what was not flushed and every
// number of the transactions that were not durable. No crash is needed in the operations before the
// last: the shorter sequence has had it, since the order of steps is always the same. Each crash is
// one of a copy of the world, so a sequence is run once.
//
// Sequences begin at a pool that is empty, or at one that has what they could not reach in a few
// steps: a snapshot and a clone of it, some of it in the store, some in the journal, some in
// memory; or a snapshot alone, which is folded the other way round.
import { assert } from "../../engine/base/assert.js";
import { native } from "../../native/native.js";
import type { Range } from "./books.js";
import { Client } from "./client.js";
import { type Tracked, track, until } from "./steps.js";
import { World } from "./world.js";

const SECTORS = 520;
const FIRST: Range = { sector: 0, count: 1 };
/** The last block of a span and the first of the next. */
const BORDER: Range = { sector: 511, count: 2 };
/** Background work may go on after the last operation; more of it than this is not crashed. */
const MAX_POINTS = 60;

interface Tiny {
  client: Client;
  /** Of the volume "a", oldest first. */
  snapshots: string[];
  clones: string[];
  names: number;
}

interface Letter {
  /** What must be there: snapshots and clones. */
  needs?: "snapshot" | "clone";
  run(tiny: Tiny): Promise<unknown>;
}

const newest = (names: string[]): string => names.at(-1) as string;

async function branch(tiny: Tiny, work: (name: string) => Promise<void>): Promise<void> {
  const name = `b${++tiny.names}`;
  await work(name);
  tiny.clones.push(name);
  await tiny.client.open(name);
}

const LETTERS: Record<string, Letter> = {
  write: { run: ({ client }) => client.write("a", FIRST) },
  "write across spans": { run: ({ client }) => client.write("a", BORDER) },
  "write clone": {
    needs: "clone",
    run: ({ client, clones }) => client.write(newest(clones), FIRST),
  },
  discard: { run: ({ client }) => client.discard("a", FIRST) },
  snapshot: {
    run: async (tiny) => {
      const name = `s${++tiny.names}`;
      await tiny.client.snapshot("a", name);
      tiny.snapshots.push(`a@${name}`);
    },
  },
  clone: { run: (tiny) => branch(tiny, (name) => tiny.client.cloneVolume("a", name)) },
  "clone snapshot": {
    needs: "snapshot",
    run: (tiny) => branch(tiny, (name) => tiny.client.cloneSnapshot(newest(tiny.snapshots), name)),
  },
  "delete snapshot": {
    needs: "snapshot",
    run: ({ client, snapshots }) => client.deleteSnapshot(snapshots.pop() as string),
  },
  "delete clone": {
    needs: "clone",
    run: ({ client, clones }) => client.deleteVolume(clones.pop() as string),
  },
  flush: { run: ({ client }) => client.flush("a") },
  checkpoint: { run: ({ client }) => client.checkpoint() },
};

export const BASES: Record<string, string[]> = {
  empty: [],
  branched: [
    "write",
    "write across spans",
    "snapshot",
    "clone snapshot",
    "write clone",
    "checkpoint",
    "write",
    "flush",
    "write across spans",
  ],
  /** Whose snapshot the volume absorbs when it is deleted. */
  line: ["write", "write across spans", "snapshot", "checkpoint", "write", "flush"],
};

export interface Tally {
  sequences: number;
  points: number;
  powerCuts: number;
  kills: number;
}

export function newTally(): Tally {
  return { sequences: 0, points: 0, powerCuts: 0, kills: 0 };
}

/** Every sequence of exactly so many operations that makes sense from the base on. */
export function* sequencesOf(base: string, length: number): Generator<string[]> {
  const before = BASES[base] ?? [];
  const walk = function* (sequence: string[]): Generator<string[]> {
    if (sequence.length === length) {
      yield sequence;
      return;
    }
    for (const [name, { needs }] of Object.entries(LETTERS)) {
      const there = { snapshot: 0, clone: 0 };
      for (const done of [...before, ...sequence]) {
        if (done === "snapshot") there.snapshot++;
        if (done === "clone" || done === "clone snapshot") there.clone++;
        if (done === "delete snapshot") there.snapshot--;
        if (done === "delete clone") there.clone--;
      }
      if (needs === undefined || there[needs] > 0) yield* walk([...sequence, name]);
    }
  };
  yield* walk([]);
}

/**
 * Crashes one sequence everywhere, with all sets of survivors or a sample of `setsPerPoint`. Throws
 * if anything is not as it must be.
 */
export async function explore(
  base: string,
  sequence: readonly string[],
  setsPerPoint: number,
  tally: Tally,
): Promise<void> {
  tally.sequences++;
  const { client, last } = await begin(base, sequence);
  const { world } = client;
  const what = `${base}: ${sequence.join(", ")}`;
  for (let point = 0; point < MAX_POINTS; point++) {
    const sets = native.simDiskSurvivorSets(world.device, Number.MAX_SAFE_INTEGER);
    const transactions = world.store.pendingCount + 1;
    for (const number of sample(sets * transactions, setsPerPoint)) {
      await explain(`${what}; power cut after step ${point}, set ${number}`, () => {
        const set = Math.floor(number / transactions);
        const after = world.afterPowerCut("chosen", set, () => number % transactions);
        return client.tryCrash("power", after, () => verify(client, number));
      });
      tally.powerCuts++;
    }
    await explain(`${what}; killed after step ${point}`, () =>
      client.tryCrash("kill", world.afterKill(point + 1), () => verify(client, point)),
    );
    tally.kills++;
    tally.points++;
    const moved = await until(world, () => last.state === "failed" || world.stepCount > last.steps);
    if (last.state === "failed") throw last.error;
    assert(moved || last.state === "done", "deadlock: the operation waits, and nothing can happen");
    if (!moved) break;
    last.steps = world.stepCount;
  }
  world.destroy();
}

/** Runs all but the last operation, which is submitted. */
async function begin(
  base: string,
  sequence: readonly string[],
): Promise<Tiny & { last: Tracked<unknown> & { steps: number } }> {
  const world = new World({
    dataBlocks: 64,
    journalBlocks: 64,
    indexCacheBytes: 8 * 2400,
    absorbFrom: base === "line" ? 1 : 1000,
  });
  await world.format();
  await world.open();
  const client = new Client(world, [FIRST, BORDER]);
  const tiny: Tiny = { client, snapshots: [], clones: [], names: 0 };
  await world.run(client.create("a", SECTORS));
  await world.run(client.open("a"));
  for (const name of BASES[base] ?? []) await world.run(letter(name).run(tiny));
  await world.quiesce();
  for (const name of sequence.slice(0, -1)) await world.run(letter(name).run(tiny));
  const last = track(letter(sequence.at(-1) as string).run(tiny));
  await world.settle();
  return { ...tiny, last: Object.assign(last, { steps: world.stepCount }) };
}

/** What reclaiming leaves behind, or takes away, shows in one case as in all that are like it. */
async function verify(client: Client, number: number): Promise<void> {
  if (number % 4 === 1) await client.compareSnapshots();
  if (number % 4 === 0) await client.deleteAll();
}

/** All numbers below `count`, or so many of them from first to last. */
function sample(count: number, most: number): number[] {
  if (count <= most) return Array.from({ length: count }, (_, at) => at);
  return Array.from({ length: most }, (_, at) => Math.floor((at * (count - 1)) / (most - 1)));
}

function letter(name: string): Letter {
  const found = LETTERS[name];
  assert(found !== undefined, `there is an operation ${name}`);
  return found;
}

async function explain(what: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw new Error(`${what}: ${(error as Error).message}`, { cause: error });
  }
}
