// How long any request waits, at the longest, while the engine does each of the things that could
// make one wait: a minute of load, a part of it beside snapshots, clones, deletes, checkpoints and
// folds, one after another and as often as they can be done. The engine's own load, in this
// process: every request is in the histogram. And the disk itself, by fio: many of them stall by
// themselves, and more beside another file's syncs, of which a checkpoint or a snapshot needs some.
import { open } from "node:fs/promises";
import { join } from "node:path";
import type { Pool } from "../../engine/core/pool.js";
import type { LoadLane } from "../../native/native.js";
import { type FileTarget, type FioLane, runFio } from "../fio-wrapper/index.js";
import { type Plot, TableBuilder } from "../results.js";
import { openEngine } from "../subjects/pando.js";
import { pause } from "../subjects/server-process.js";
import type { Suite, SuiteContext } from "../suite.js";
import { type EngineTarget, FILL, runEngine, runEngineMix, runFioLoad } from "../workload.js";

const VOLUME = "stalled";
const MIX = { blockBytes: 8192, depth: 16, readPercent: 50 };
/** Of five seconds a measurement: all of it is a minute. */
const PART_OF_SECONDS = 2;
/** Between two snapshots, clones or deletes; what is written meanwhile has to be folded. */
const BETWEEN_MS = 50;
const FOLD_AFTER_MS = 200;
const POOL_FACTOR = 3;
/** Of the other file: as many pages as a small transaction of the store has. */
const SYNCED_PAGES = 64;
const PAGE_BYTES = 4096;
const SYNCED_FILE_PAGES = 16_384;
const BETWEEN_SYNCS_MS = 10;

/** Does its thing once. */
type Step = (pool: Pool, count: number) => Promise<void>;

const ACTIVITIES: { name: string; step: Step | null }[] = [
  { name: "nothing else", step: null },
  {
    name: "snapshots",
    async step(pool, count) {
      await pool.createSnapshot(VOLUME, `snapshot-${count}`);
      await pause(BETWEEN_MS);
    },
  },
  {
    name: "clones of the live volume, and their deletes",
    async step(pool, count) {
      const clone = `clone-${count}`;
      await pool.cloneVolume({ volume: VOLUME, snapshot: null }, clone);
      await pause(BETWEEN_MS);
      await pool.deleteVolume(clone);
    },
  },
  {
    name: "checkpoints",
    step: (pool) => pool.checkpoint(),
  },
  {
    name: "deletes of snapshots, and their folds",
    async step(pool, count) {
      const snapshot = `folded-${count}`;
      await pool.createSnapshot(VOLUME, snapshot);
      await pause(FOLD_AFTER_MS);
      await pool.deleteSnapshot(VOLUME, snapshot);
      await pool.settle();
    },
  },
];

export const stallsSuite: Suite = {
  name: "stalls",
  describe: "the longest waits beside snapshots, clones, deletes, checkpoints and folds",
  needs: ["fio"],
  async run(context) {
    const { sizeBytes } = context;
    const table = new TableBuilder({
      id: "stalls",
      title:
        "Requests beside what could make them wait: random 8 KiB, half of them reads, depth 16",
      metrics: [
        { name: "longest", unit: "ms", better: "lower", relative: false },
        { name: "p99.9", unit: "ms", better: "lower", relative: false },
        { name: "p99", unit: "ms", better: "lower", relative: false },
        { name: "p50", unit: "ms", better: "lower", relative: false },
      ],
    });
    const plot: Plot = {
      id: "stalls",
      title: "How long one write in so many waits: random 8 KiB, half reads, depth 16",
      x: { label: "one write in", scale: "log" },
      y: { label: "ms", scale: "log" },
      lines: [],
      marks: [],
    };
    const raw = join(context.folder, "raw");
    context.status("writing the raw file in full");
    const file = { engine: "io_uring", path: raw, direct: true } as const;
    await runFioLoad(file, FILL, { sizeBytes, durationMs: null, seed: 1 });
    const opened = await openEngine(join(context.folder, "pool"), {
      poolBytes: sizeBytes * POOL_FACTOR,
      written: true,
    });
    const { pool } = opened;
    try {
      await pool.createVolume(VOLUME, sizeBytes);
      const target = { pool: pool.handle, volume: await pool.hold(VOLUME) };
      context.status("writing it in full");
      await runEngine(target, FILL, { regionBytes: sizeBytes, durationMs: null, seed: 1 });
      for (let round = 0; round < context.rounds; round++) {
        plot.lines = [];
        for (const synced of [false, true]) {
          const name = `raw file${synced ? ", beside syncs of another" : ""}`;
          context.status(`${name}, round ${round + 1} of ${context.rounds}`);
          const { read, write } = await measureFile(context, file, { synced, round });
          table.add(name, "reads", fioLatencies(read));
          table.add(name, "writes", fioLatencies(write));
          const longestMs = Math.max(read.latency.maxUs, write.latency.maxUs) / 1000;
          context.say(`${name}: longest ${longestMs.toFixed(1)} ms`);
        }
        for (const { name, step } of ACTIVITIES) {
          context.status(`${name}, round ${round + 1} of ${context.rounds}`);
          const { reads, writes, steps } = await measure(context, pool, target, { step, round });
          table.add(name, "reads", latencies(reads));
          table.add(name, "writes", latencies(writes));
          plot.lines.push({ name, points: curve(writes) });
          const longestMs = Math.max(reads.latency.maxUs, writes.latency.maxUs) / 1000;
          context.say(`${name}: ${steps} times, longest ${longestMs.toFixed(1)} ms`);
        }
      }
      await pool.release(VOLUME);
      return {
        tables: [table.build("The longest: of each round; the figure is their median.")],
        plots: [plot],
        absent: [],
      };
    } finally {
      await opened.close();
    }
  },
};

async function measure(
  context: SuiteContext,
  pool: Pool,
  target: EngineTarget,
  { step, round }: { step: Step | null; round: number },
): Promise<{ reads: LoadLane; writes: LoadLane; steps: number }> {
  await pool.checkpoint();
  const durationMs = Math.round(context.seconds * PART_OF_SECONDS * 1000);
  const limits = { regionBytes: context.sizeBytes, durationMs, seed: round + 2 };
  let loading = true;
  const load = runEngineMix(target, MIX, limits).finally(() => {
    loading = false;
  });
  let steps = 0;
  const work = (async () => {
    while (loading && step !== null) {
      await step(pool, round * 1e6 + steps);
      steps += 1;
    }
  })();
  const [{ reads, writes }] = await Promise.all([load, work]);
  for (const { name } of await pool.listSnapshots(VOLUME)) await pool.deleteSnapshot(VOLUME, name);
  await pool.settle();
  return { reads, writes, steps };
}

/** `synced`: small writes to another file go on meanwhile, and a sync of it after some of them. */
async function measureFile(
  context: SuiteContext,
  target: FileTarget,
  { synced, round }: { synced: boolean; round: number },
): Promise<{ read: FioLane; write: FioLane }> {
  const durationMs = Math.round(context.seconds * PART_OF_SECONDS * 1000);
  const limits = { sizeBytes: context.sizeBytes, durationMs, seed: round + 2, repeatBlocks: true };
  let loading = true;
  const load = runFio([{ name: "mix", target, pattern: "randrw", ...MIX, ...limits }]);
  const ended = load.finally(() => {
    loading = false;
  });
  const [{ jobs }] = await Promise.all([
    ended,
    synced ? syncAnother(`${target.path}-synced`, () => loading) : null,
  ]);
  const [job] = jobs;
  if (job === undefined) throw new Error("fio gave no result");
  return job;
}

async function syncAnother(path: string, goesOn: () => boolean): Promise<void> {
  const file = await open(path, "w");
  try {
    const page = Buffer.alloc(PAGE_BYTES);
    for (let count = 0; goesOn(); count++) {
      for (let at = 0; at < SYNCED_PAGES; at++) {
        const place = ((count * SYNCED_PAGES + at) * 7919) % SYNCED_FILE_PAGES;
        await file.write(page.fill(count), 0, PAGE_BYTES, place * PAGE_BYTES);
      }
      await file.datasync();
      await pause(BETWEEN_SYNCS_MS);
    }
  } finally {
    await file.close();
  }
}

function fioLatencies({ latency: { maxUs, percentilesUs } }: FioLane): number[] {
  return [maxUs, percentilesUs[99.9], percentilesUs[99], percentilesUs[50]].map((us) => us / 1000);
}

function latencies({ latency }: LoadLane): number[] {
  const { maxUs, p999Us, p99Us, p50Us } = latency;
  return [maxUs, p999Us, p99Us, p50Us].map((us) => us / 1000);
}

function curve({ ops, latency }: LoadLane): [number, number][] {
  const { p50Us, p90Us, p99Us, p999Us, maxUs } = latency;
  const all: [number, number][] = [
    [2, p50Us],
    [10, p90Us],
    [100, p99Us],
    [1000, p999Us],
    [ops, maxUs],
  ];
  return all
    .filter(([oneIn], index) => index === all.length - 1 || oneIn < ops)
    .map(([oneIn, us]) => [oneIn, us / 1000]);
}
