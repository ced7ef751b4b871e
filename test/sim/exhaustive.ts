// Bounded exhaustive: every sequence of a few operations on a tiny volume, crashed after every
// device operation and commit of its last one, with every set of what was not flushed and every
// number of the transactions that were not durable. No crash is needed in the operations before the
// last: the shorter sequence has had it, since the order of steps is always the same.
//
// Sequences begin at a pool that is empty, or at one that has what they could not reach in a few
// steps: a snapshot and a clone of it, some of it in the store, some in the journal, some in
// memory.
import { assert } from "../../engine/base/assert.js";
import { native } from "../../native/native.js";
import type { Range } from "./books.js";
import { Client } from "./client.js";
import { until } from "./steps.js";
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
  const begin = BASES[base] ?? [];
  const walk = function* (sequence: string[]): Generator<string[]> {
    if (sequence.length === length) {
      yield sequence;
      return;
    }
    for (const [name, { needs }] of Object.entries(LETTERS)) {
      const there = { snapshot: 0, clone: 0 };
      for (const before of [...begin, ...sequence]) {
        if (before === "snapshot") there.snapshot++;
        if (before === "clone" || before === "clone snapshot") there.clone++;
        if (before === "delete snapshot") there.snapshot--;
        if (before === "delete clone") there.clone--;
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
  for (let point = 0; point < MAX_POINTS; point++) {
    const probe = await runTo(base, sequence, point);
    const { world } = probe.client;
    const sets = native.simDiskSurvivorSets(world.device, Number.MAX_SAFE_INTEGER);
    const transactions = world.store.pendingCount + 1;
    const { ended } = probe;
    world.destroy();
    for (const number of sample(sets * transactions, setsPerPoint)) {
      const what = `${base}: ${sequence.join(", ")}; power cut after step ${point}, set ${number}`;
      await explain(what, async () => {
        const { client } = await runTo(base, sequence, point);
        const set = Math.floor(number / transactions);
        client.world.cutPower("chosen", set, () => number % transactions);
        client.died("power");
        await verify(client, number);
      });
      tally.powerCuts++;
    }
    await explain(`${base}: ${sequence.join(", ")}; killed after step ${point}`, async () => {
      const { client } = await runTo(base, sequence, point);
      client.world.kill(point + 1);
      client.died("kill");
      await verify(client, point);
    });
    tally.kills++;
    tally.points++;
    if (ended) break;
  }
}

/** Takes so many steps of the last operation, and of what it leaves to the background. */
async function runTo(
  base: string,
  sequence: readonly string[],
  steps: number,
): Promise<Tiny & { ended: boolean }> {
  const world = new World({ dataBlocks: 64, journalBlocks: 64, indexCacheBytes: 8 * 2400 });
  await world.format();
  await world.open();
  const client = new Client(world, [FIRST, BORDER]);
  const tiny: Tiny = { client, snapshots: [], clones: [], names: 0 };
  await world.run(client.create("a", SECTORS));
  await world.run(client.open("a"));
  for (const name of BASES[base] ?? []) await world.run(letter(name).run(tiny));
  await world.quiesce();
  for (const name of sequence.slice(0, -1)) await world.run(letter(name).run(tiny));
  const before = world.stepCount;
  let failure: unknown = null;
  let done = false;
  letter(sequence.at(-1) as string)
    .run(tiny)
    .then(
      () => {
        done = true;
      },
      (error: unknown) => {
        failure = error;
      },
    );
  const moved = await until(world, () => failure !== null || world.stepCount - before === steps);
  if (failure !== null) throw failure;
  assert(moved || done, "deadlock: the operation waits, and nothing can happen");
  return { ...tiny, ended: !moved };
}

async function verify(client: Client, number: number): Promise<void> {
  await client.world.open();
  await client.resume();
  // What reclaiming leaves behind shows in one case as in all that are like it.
  if (number % 4 === 0) await client.deleteAll();
  client.world.destroy();
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
