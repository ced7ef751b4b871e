// The engine beside the raw device: the in-process load generator on a volume, and fio with
// io_uring on a raw file of the same size on the same file system, turn by turn in one run. Both
// are written in full first, both go around the page cache.
// Prints a table and, with --json, the figures.
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import yargs from "yargs";
import { hideBin } from "yargs/helpers";
import { makeLog } from "../engine/base/log.js";
import { parseSize } from "../engine/base/size.js";
import { createPool } from "../engine/core/format.js";
import { openRealPool } from "../engine/open-pool.js";
import { LOAD_PATTERN, type LoadResult, native } from "../native/native.js";
import { type FioLane, runFio } from "./fio-wrapper/index.js";

const BLOCK = 8192;
const VOLUME = "bench";

interface Cell {
  iops: number;
  p50Us: number;
  p99Us: number;
}

interface Row {
  pattern: "randread" | "randwrite";
  depth: number;
  raw: Cell;
  engine: Cell;
  ratio: number;
}

const args = await yargs(hideBin(process.argv))
  .usage("npm run bench -- --dir DIR [--size 2GiB] [--seconds 5] [--rounds 3]")
  .option("dir", { type: "string", default: ".pando-bench", describe: "where the files go" })
  .option("size", {
    type: "string",
    default: "2GiB",
    describe: "of the volume and of the raw file",
  })
  .option("seconds", { type: "number", default: 5, describe: "per measurement" })
  .option("rounds", { type: "number", default: 3, describe: "the median counts" })
  .option("json", { type: "string", describe: "also write the figures to this file" })
  .example("npm run bench -- --dir /mnt/nvme --size 16GiB", "on a disk of your choice")
  .strict()
  .parse();

const sizeBytes = parseSize(args.size);
mkdirSync(args.dir, { recursive: true });
const raw = join(args.dir, "raw");
const poolPath = join(args.dir, "pool");
rmSync(raw, { force: true });
rmSync(poolPath, { recursive: true, force: true });

await createPool(poolPath, { sizeBytes: sizeBytes + 512 * 1024 * 1024 });
const opened = await openRealPool({
  path: poolPath,
  metaPath: null,
  indexCacheBytes: 64 * 1024 * 1024,
  log: makeLog("warn"),
});
const pool = opened.pool;
await pool.createVolume(VOLUME, sizeBytes);
const volume = await pool.hold(VOLUME);

await load("write", 128 * 1024, 8, 0, sizeBytes / (128 * 1024));
await fio("write", 128 * 1024, 8, null);
await pool.checkpoint();

const rows: Row[] = [];
for (const pattern of ["randread", "randwrite"] as const) {
  for (const depth of [1, 32]) {
    const rawCells: Cell[] = [];
    const engineCells: Cell[] = [];
    for (let round = 0; round < args.rounds; round++) {
      rawCells.push(rawCell(await fio(pattern, BLOCK, depth, args.seconds * 1000)));
      engineCells.push(engineCell(await load(pattern, BLOCK, depth, args.seconds * 1000, 0)));
    }
    const row = { pattern, depth, raw: median(rawCells), engine: median(engineCells), ratio: 0 };
    row.ratio = row.engine.iops / row.raw.iops;
    rows.push(row);
    process.stdout.write(`${describe(row)}\n`);
  }
}
await pool.release(VOLUME);
await opened.close();
if (args.json !== undefined) {
  const machine = {
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    memoryBytes: totalmem(),
    kernel: execFileSync("uname", ["-r"], { encoding: "utf8" }).trim(),
  };
  const run = { blockBytes: BLOCK, sizeBytes, seconds: args.seconds, rounds: args.rounds };
  writeFileSync(args.json, `${JSON.stringify({ machine, run, rows }, null, 2)}\n`);
}

async function load(
  pattern: keyof typeof LOAD_PATTERN,
  blockBytes: number,
  depth: number,
  durationMs: number,
  opCount: number,
): Promise<LoadResult> {
  const result = await native.loadRun(pool.handle, volume, {
    pattern: LOAD_PATTERN[pattern],
    readPercent: 0,
    blockBytes,
    depth,
    regionBytes: 0,
    durationMs,
    opCount,
    flushEvery: 0,
    seed: 1,
    verify: false,
  });
  if (result.errors > 0) throw new Error(`${result.errors} requests failed`);
  return result;
}

async function fio(
  pattern: "write" | "randread" | "randwrite",
  blockBytes: number,
  depth: number,
  durationMs: number | null,
): Promise<FioLane> {
  const { jobs } = await runFio([
    {
      name: "raw",
      target: { engine: "io_uring", path: raw, direct: true },
      pattern,
      blockBytes,
      depth,
      sizeBytes,
      ...(durationMs === null ? {} : { durationMs }),
    },
  ]);
  const job = jobs[0];
  if (job === undefined) throw new Error("fio gave no result");
  return pattern === "randread" ? job.read : job.write;
}

function rawCell(lane: FioLane): Cell {
  const { percentilesUs } = lane.latency;
  return { iops: lane.iops, p50Us: percentilesUs[50], p99Us: percentilesUs[99] };
}

function engineCell(result: LoadResult): Cell {
  const lane = result.reads.ops > 0 ? result.reads : result.writes;
  return { iops: result.iops, p50Us: lane.latency.p50Us, p99Us: lane.latency.p99Us };
}

function median(cells: Cell[]): Cell {
  const sorted = [...cells].sort((a, b) => a.iops - b.iops);
  return sorted[Math.floor(sorted.length / 2)] as Cell;
}

function describe({ pattern, depth, raw: a, engine: b, ratio }: Row): string {
  const cell = ({ iops, p50Us, p99Us }: Cell) =>
    `${(iops / 1000).toFixed(1)}k IOPS ${p50Us.toFixed(0)}/${p99Us.toFixed(0)} µs`;
  const name = `${pattern} 8 KiB depth ${depth}`.padEnd(26);
  return `${name} raw ${cell(a).padEnd(28)} engine ${cell(b).padEnd(28)} ratio ${ratio.toFixed(2)}`;
}
