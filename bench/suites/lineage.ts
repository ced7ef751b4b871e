// What the size and the depth of an index cost, of Pando alone: reads under one layer and under a
// thousand, with the index in memory and with room for a tenth of it; snapshots of little and of
// much; a deleted parent that is absorbed, and one that is folded, beside reads; a thousand clones
// that write at once. The data is holes, so that nothing of it hides in the device's time.
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { makeLog } from "../../engine/base/log.js";
import { type OpenedPool, openRealPool } from "../../engine/open-pool.js";
import { IO_OP } from "../../native/native.js";
import { type Table, TableBuilder } from "../results.js";
import { quantile } from "../statistics.js";
import { syncTimes } from "../subjects/disk-sync.js";
import { type MappedVolume, makeMappedPool, SPAN_BYTES } from "../subjects/mapped-pool.js";
import type { Suite, SuiteContext } from "../suite.js";
import { runEngine, type Workload } from "../workload.js";

const GIB = 2 ** 30;
const MIB = 2 ** 20;
/** What an index block takes in memory; native/src/index_cache.cc. */
const ENTRY_BYTES = 2400;
const READ: Omit<Workload, "depth"> = { pattern: "randread", blockBytes: 4096 };
const LINE_BYTES = 4 * GIB;
const LINES: MappedVolume[] = [
  { name: "one", bytes: LINE_BYTES, layers: 2 },
  { name: "deep", bytes: LINE_BYTES, layers: 1001 },
];
const LINE_INDEX_BYTES = (LINE_BYTES / SPAN_BYTES) * ENTRY_BYTES;
const LARGE_CACHE = 256 * MIB;
const FOLDED_BYTES = 32 * GIB;
/** More index blocks than a child may have to absorb its parent. */
const MANY_SPANS = 600;
const CALLS = 300;
/** Before them, of another volume: a daemon that has just started compiles its code. */
const FIRST_CALLS = 300;
/** Longer than the calls take, in one go: a load that begins is no steady one. */
const LOAD_MS = 10_000;
/** Until it is one. */
const BEGIN_MS = 500;
/** What the load may write into. */
const WRITTEN_BYTES = 4 * GIB;
/** In a file of its own, under the same load. */
const SYNC = "4 KiB written and synced, of the disk alone";
const CLONES = 1000;
/** Of each second that is measured: the whole TiB is for those who measure for four. */
const MAPPED_PER_SECOND = 256 * GIB;

export const lineageSuite: Suite = {
  name: "lineage",
  describe: "reads, snapshots, folds and clones by the size and the depth of the index",
  needs: [],
  async run(context) {
    const tables = [
      await reads(context),
      await snapshots(context),
      await deletions(context),
      await clones(context),
    ];
    return { tables, plots: [], absent: [] };
  },
};

function openPool(path: string, indexCacheBytes: number): Promise<OpenedPool> {
  return openRealPool({ path, metaPath: null, indexCacheBytes, log: makeLog("error") });
}

async function withPool<T>(
  path: string,
  indexCacheBytes: number,
  work: (opened: OpenedPool) => Promise<T>,
): Promise<T> {
  const opened = await openPool(path, indexCacheBytes);
  try {
    return await work(opened);
  } finally {
    await opened.close();
  }
}

async function reads(context: SuiteContext): Promise<Table> {
  const table = new TableBuilder({
    id: "lineage-reads",
    title: "4 KiB random reads under a lineage of 1 and of 1,000",
    metrics: [
      { name: "IOPS", unit: "", better: "higher", relative: false },
      { name: "p50", unit: "µs", better: "lower", relative: false },
      { name: "p99", unit: "µs", better: "lower", relative: false },
      { name: "index misses per read", unit: "", better: "lower", relative: false },
      { name: "of a lineage of 1", unit: "", better: "higher", relative: true },
    ],
  });
  const path = join(context.folder, "lines");
  const { storeBytes } = await makeMappedPool(path, LINES, { progress: context.status });
  for (const [cache, bytes] of [
    ["index in memory", LARGE_CACHE],
    ["room for a tenth of it", LINE_INDEX_BYTES / 10],
  ] as const) {
    await withPool(path, bytes, async ({ pool, handle }) => {
      const misses = async () => (await pool.info()).counters.indexMisses ?? 0;
      for (const depth of [1, 32]) {
        for (let round = 0; round < context.rounds; round++) {
          let baseline = 0;
          for (const { name, bytes: regionBytes } of LINES) {
            context.status(`${cache}, depth ${depth}: ${name}`);
            const target = { pool: handle, volume: await pool.hold(name) };
            const run = { regionBytes, durationMs: context.seconds * 1000, seed: round + 1 };
            // What is to be in memory is brought there first.
            await runEngine(target, { ...READ, depth: 32 }, { ...run, durationMs: 2000, seed: 99 });
            const before = await misses();
            const { iops, p50Us, p99Us, ops } = await runEngine(target, { ...READ, depth }, run);
            const missed = ((await misses()) - before) / ops;
            await pool.release(name);
            if (name === "one") baseline = iops;
            const column = name === "one" ? "1" : "1,000";
            table.add(`${cache}, depth ${depth}`, column, [
              ...[iops, p50Us, p99Us, missed],
              iops / baseline,
            ]);
          }
        }
      }
    });
  }
  const sequential = join(context.folder, "sequence");
  const flat = await makeMappedPool(sequential, [{ name: "a", bytes: 8 * GIB, layers: 2 }], {
    inSequence: true,
    progress: context.status,
  });
  const perGib = (bytes: number) => `${Math.round(bytes / 8 / 1024).toLocaleString("en")} KiB`;
  context.say("reads under a lineage: done");
  const memory = Math.round(((GIB / SPAN_BYTES) * ENTRY_BYTES) / 1024).toLocaleString("en");
  return table.build(
    `The index of a GiB takes ${perGib(storeBytes)} on disk if it was written at random, ` +
      `${perGib(flat.storeBytes)} if in sequence (a store of 8 GiB, all of its other pages ` +
      `included), and ${memory} KiB in memory.`,
  );
}

async function snapshots(context: SuiteContext): Promise<Table> {
  const table = new TableBuilder({
    id: "lineage-snapshots",
    title: "A snapshot and a clone of it, by how much is mapped",
    metrics: [
      { name: "p50", unit: "ms", better: "lower", relative: false },
      { name: "p99", unit: "ms", better: "lower", relative: false },
    ],
  });
  const large = Math.max(GIB, 2 ** Math.floor(Math.log2(context.seconds * MAPPED_PER_SECOND)));
  for (const bytes of [GIB, Math.min(large, 2 ** 40)]) {
    const path = join(context.folder, `mapped-${bytes}`);
    const volume = { name: "db", bytes, layers: 2 };
    const made = { writtenBytes: WRITTEN_BYTES, progress: context.status };
    await makeMappedPool(path, [volume], made);
    await withPool(path, LARGE_CACHE, async ({ pool, handle }) => {
      const target = { pool: handle, volume: await pool.hold("db") };
      await pool.createVolume("other", GIB);
      for (let at = 0; at < FIRST_CALLS; at++) {
        await pool.createSnapshot("other", `s${at}`);
        await pool.cloneVolume({ volume: "other", snapshot: `s${at}` }, `other-${at}`);
      }
      for (const load of ["idle", "random writes, depth 8"]) {
        context.status(`${bytes / GIB} GiB, ${load}: snapshots`);
        const times = { snapshot: [] as number[], clone: [] as number[], [SYNC]: [] as number[] };
        const calls = async (loaded: () => boolean) => {
          for (let at = 0; at < CALLS && loaded(); at++) {
            const name = `${load[0]}${at}`;
            let began = performance.now();
            await pool.createSnapshot("db", name);
            times.snapshot.push(performance.now() - began);
            began = performance.now();
            await pool.cloneVolume({ volume: "db", snapshot: name }, `c-${name}`);
            times.clone.push(performance.now() - began);
          }
          times[SYNC] = await syncTimes(context.folder, CALLS);
        };
        if (load === "idle") await calls(() => true);
        else await beside(writes(target, { durationMs: LOAD_MS, bytes }), calls);
        for (const [call, each] of Object.entries(times)) {
          const row = `${call}, ${load}`;
          table.add(row, `${bytes / GIB} GiB`, [quantile(each, 0.5), quantile(each, 0.99)]);
        }
      }
      await pool.release("db");
    });
  }
  context.say("snapshots by size: done");
  return table.build(
    `${CALLS} of each at most, one after the other, in a process that has made ${FIRST_CALLS} others before. Writes are to the first GiB, and go to blocks of the file that were written before. A snapshot waits for two syncs in a row, those of the store's transaction (beside them, what was written is flushed); a clone for two.`,
  );
}

function writes(
  target: { pool: number; volume: number },
  { durationMs, bytes }: { durationMs: number; bytes: number },
): Promise<unknown> {
  const load: Workload = { pattern: "randwrite", blockBytes: 8192, depth: 8 };
  return runEngine(target, load, { regionBytes: Math.min(bytes, GIB), durationMs, seed: 7 });
}

/** The work, from when the load is a steady one until it ends. */
async function beside(
  load: Promise<unknown>,
  work: (loaded: () => boolean) => Promise<void>,
): Promise<void> {
  let loaded = true;
  const done = load.finally(() => {
    loaded = false;
  });
  await Promise.all([done, sleep(BEGIN_MS).then(() => work(() => loaded))]);
}

async function deletions(context: SuiteContext): Promise<Table> {
  const table = new TableBuilder({
    id: "lineage-deletions",
    title: "The space of 32 GiB that are deleted comes back, beside random reads",
    metrics: [
      { name: "the delete itself", unit: "ms", better: "lower", relative: false },
      { name: "until it is back", unit: "ms", better: "lower", relative: false },
      { name: "index blocks a second", unit: "", better: "higher", relative: false },
      { name: "p99 of reads before", unit: "µs", better: "lower", relative: false },
      { name: "p99 of reads meanwhile", unit: "µs", better: "lower", relative: false },
      { name: "another volume's snapshot", unit: "ms", better: "lower", relative: false },
      { name: "meanwhile", unit: "ms", better: "lower", relative: false },
    ],
  });
  for (const { row, spans, snapshot } of [
    { row: "a snapshot, absorbed: its volume has written in 16 spans", spans: 16, snapshot: true },
    {
      row: `a snapshot, folded: its volume has written in ${MANY_SPANS} spans`,
      spans: MANY_SPANS,
      snapshot: true,
    },
    { row: "a volume of its own", spans: 0, snapshot: false },
  ]) {
    const path = join(context.folder, `deleted-${snapshot}-${spans}`);
    const layers = snapshot ? 2 : 1;
    const volumes = (snapshot ? ["db"] : ["db", "gone"]).map((name) => ({
      name,
      bytes: FOLDED_BYTES,
      layers,
    }));
    await makeMappedPool(path, volumes, { progress: context.status });
    await withPool(path, LARGE_CACHE, async ({ pool, handle }) => {
      const target = { pool: handle, volume: await pool.hold("db") };
      const data = new Uint8Array(4096);
      for (let span = 0; span < spans; span++) {
        await pool.io("db", IO_OP.write, span * SPAN_BYTES, data.length, data);
      }
      await pool.createVolume("other", GIB);
      const snapshotOther = async (name: string) => {
        const began = performance.now();
        await pool.createSnapshot("other", name);
        return performance.now() - began;
      };
      const snapshotsBefore: number[] = [];
      for (let at = 0; at < 20; at++) snapshotsBefore.push(await snapshotOther(`before-${at}`));
      await pool.checkpoint();
      context.status(row);
      const read = async (durationMs: number) => {
        const limits = { regionBytes: FOLDED_BYTES, durationMs, seed: 3 };
        return (await runEngine(target, { ...READ, depth: 4 }, limits)).p99Us;
      };
      const before = await read(1000);
      const ended = async () => {
        const { layersFolded, layersReclaimed } = (await pool.info()).reclaim;
        return layersFolded + layersReclaimed > 0;
      };
      const began = performance.now();
      await (snapshot ? pool.deleteSnapshot("db", "s0") : pool.deleteVolume("gone"));
      const deleted = performance.now() - began;
      const p99s: number[] = [];
      const snapshotsMeanwhile: number[] = [];
      while (!(await ended())) {
        const [p99, took] = await Promise.all([read(100), snapshotOther(`at-${p99s.length}`)]);
        p99s.push(p99);
        snapshotsMeanwhile.push(took);
      }
      const all = performance.now() - began;
      const rate = FOLDED_BYTES / SPAN_BYTES / (all / 1000);
      const meanwhile = quantile(p99s.length > 0 ? p99s : [0], 0.5);
      const middle = (each: number[]) => quantile(each, 0.5);
      table.add(row, "Pando", [
        ...[deleted, all, rate, before, meanwhile],
        ...[middle(snapshotsBefore), middle(snapshotsMeanwhile)],
      ]);
      await pool.release("db");
    });
  }
  context.say("deleted snapshots: done");
  return table.build(
    "Each deleted one has an index block for every 2 MiB. While hosts are at work a fold rests for 20 ms after each 32 of them, a reclaim after 512 at most. Blocks lie at random. Reads are measured in runs of 100 ms, which is how exactly the time is known; their median.",
  );
}

async function clones(context: SuiteContext): Promise<Table> {
  const table = new TableBuilder({
    id: "lineage-clones",
    title: "Clones of one snapshot that all write, 8 KiB at random, one request each",
    metrics: [
      { name: "IOPS of all", unit: "", better: "higher", relative: false },
      { name: "p99, median of them", unit: "µs", better: "lower", relative: false },
    ],
  });
  const path = join(context.folder, "clones");
  await makeMappedPool(path, [{ name: "db", bytes: 16 * GIB, layers: 2 }], {
    progress: context.status,
  });
  await withPool(path, LARGE_CACHE, async ({ pool, handle }) => {
    const targets: { pool: number; volume: number }[] = [];
    for (let at = 0; at < CLONES; at++) {
      await pool.cloneVolume({ volume: "db", snapshot: "s0" }, `c${at}`);
      targets.push({ pool: handle, volume: await pool.hold(`c${at}`) });
    }
    for (const count of [10, 100, CLONES]) {
      context.status(`${count} clones write`);
      const load: Workload = { pattern: "randwrite", blockBytes: 8192, depth: 1 };
      const run = { regionBytes: 64 * MIB, durationMs: context.seconds * 1000 };
      const all = await Promise.all(
        targets.slice(0, count).map((target, seed) => runEngine(target, load, { ...run, seed })),
      );
      const iops = all.reduce((sum, each) => sum + each.iops, 0);
      const p99s = all.map(({ p99Us }) => p99Us);
      table.add(`${count} clones`, "Pando", [iops, quantile(p99s, 0.5)]);
    }
    const { clean } = await pool.check();
    if (!clean) throw new Error("the pool does not check clean");
    for (let at = 0; at < CLONES; at++) await pool.release(`c${at}`);
  });
  context.say("clones that write: done");
  return table.build("Each writes in its first 64 MiB; the pool checks clean afterwards.");
}
