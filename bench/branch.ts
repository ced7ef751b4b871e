// Snapshots and clones of a large thin volume: how long each takes, idle and under write load, and
// how many device flushes and journal writes each waits for in a row. The commit of the store comes
// on top and is not counted here.
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import yargs from "yargs";
import { hideBin } from "yargs/helpers";
import { makeLog } from "../engine/base/log.js";
import { parseSize } from "../engine/base/size.js";
import { createPool } from "../engine/core/format.js";
import { openRealPool } from "../engine/open-pool.js";
import { LOAD_PATTERN, type LoadOptions, native } from "../native/native.js";

const VOLUME = "big";
const DISCARDED = 3;

const args = await yargs(hideBin(process.argv))
  .usage("npm run bench:branch -- --dir DIR [--size 1TiB] [--written 10GiB] [--count 100]")
  .option("dir", { type: "string", default: ".pando-bench", describe: "where the pool goes" })
  .option("size", { type: "string", default: "1TiB", describe: "of the volume" })
  .option("written", { type: "string", default: "10GiB", describe: "how much of it is written" })
  .option("count", { type: "number", default: 100, describe: "snapshots and clones each" })
  .strict()
  .parse();

const writtenBytes = parseSize(args.written);
mkdirSync(args.dir, { recursive: true });
const poolPath = join(args.dir, "branch-pool");
rmSync(poolPath, { recursive: true, force: true });
await createPool(poolPath, { sizeBytes: writtenBytes * 2 + 2 ** 30, sparse: true });
const { pool, close } = await openRealPool({
  path: poolPath,
  metaPath: null,
  indexCacheBytes: 64 * 1024 * 1024,
  log: makeLog("warn"),
});
await pool.createVolume(VOLUME, parseSize(args.size));
const volume = await pool.hold(VOLUME);
const base: LoadOptions = {
  pattern: LOAD_PATTERN.write,
  readPercent: 0,
  blockBytes: 128 * 1024,
  depth: 8,
  regionBytes: writtenBytes,
  durationMs: 0,
  opCount: writtenBytes / (128 * 1024),
  flushEvery: 0,
  seed: 1,
  verify: false,
};
await native.loadRun(pool.handle, volume, base);
await pool.checkpoint();
process.stdout.write(`${args.size} volume, ${args.written} written\n`);

await measure("idle");
const load = native.loadRun(pool.handle, volume, {
  ...base,
  pattern: LOAD_PATTERN.randwrite,
  blockBytes: 8192,
  depth: 16,
  durationMs: 0,
  opCount: args.count * 2000,
});
await measure("under load");
const { writes } = await load;
process.stdout.write(`the load's own writes: p99 ${writes.latency.p99Us.toFixed(0)} µs`);
process.stdout.write(`, longest ${(writes.latency.maxUs / 1000).toFixed(1)} ms\n`);
await pool.release(VOLUME);
await close();

async function measure(state: string): Promise<void> {
  const before = (await pool.info()).counters;
  const snapshots = await times(args.count, (i) =>
    pool.createSnapshot(VOLUME, `${tag(state)}${i}`),
  );
  const after = (await pool.info()).counters;
  const clones = await times(args.count, (i) =>
    pool.cloneVolume({ volume: VOLUME, snapshot: `${tag(state)}${i}` }, `${tag(state)}-clone-${i}`),
  );
  const per = (name: string) => ((after[name] ?? 0) - (before[name] ?? 0)) / args.count;
  const flushes = `${per("commitRounds").toFixed(1)} flushes`;
  const rounds = `${flushes}, ${per("journalWrites").toFixed(1)} journal writes each`;
  process.stdout.write(`${state}: snapshot ${percentiles(snapshots)}; ${rounds}\n`);
  process.stdout.write(`${state}: clone of a snapshot ${percentiles(clones)}\n`);
}

async function times(count: number, work: (i: number) => Promise<unknown>): Promise<number[]> {
  const durations: number[] = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    await work(i);
    if (i >= DISCARDED) durations.push(performance.now() - start);
  }
  return durations.sort((a, b) => a - b);
}

function percentiles(sorted: number[]): string {
  const at = (share: number) =>
    (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(2);
  return `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`;
}

function tag(state: string): string {
  return state.replace(" ", "-");
}
