// How long a snapshot, a clone and a delete take for the caller: idle, under a load of writes, and
// against how much has been written.
import { formatSize } from "../../engine/base/size.js";
import { type Plot, TableBuilder } from "../results.js";
import { median, quantile } from "../statistics.js";
import { type Branches, untilLoaded } from "../subjects/branches.js";
import { syncTimes } from "../subjects/disk-sync.js";
import type { SuiteContext } from "../suite.js";
import { FILL, runFioLoad, type Workload } from "../workload.js";

const LOAD: Workload = { pattern: "randwrite", blockBytes: 8192, depth: 16 };
/** Scattered, so that a map of extents is as long as it gets. */
const SCATTER: Workload = { pattern: "randwrite", blockBytes: 8192, depth: 32 };
const MIB = 1024 * 1024;
const VOLUME = "called";
const MIN_CALLS = 3;
const MAX_CALLS = 200;
const CALLS_PER_SECOND = 50;
const SIZE_PARTS = [64, 16, 4, 1];
const CALLS_PER_SIZE = 5;

export function callsTable(): TableBuilder {
  return new TableBuilder({
    id: "branch-calls",
    title: "What the caller waits for",
    metrics: [
      { name: "p50", unit: "ms", better: "lower", relative: false },
      { name: "p99", unit: "ms", better: "lower", relative: false },
      { name: "longest", unit: "ms", better: "lower", relative: false },
    ],
  });
}

export function sizePlot(): Plot {
  return {
    id: "branch-clone-size",
    title: "A snapshot and a clone of it, against what was written at random places",
    x: { label: "MiB written before", scale: "log" },
    y: { label: "ms", scale: "log" },
    lines: [],
    marks: [],
  };
}

/** Leaves the subject with all the snapshots: the last step. */
export async function callTimes(
  context: SuiteContext,
  branches: Branches,
  table: TableBuilder,
  plot: Plot,
): Promise<void> {
  plot.lines.push({ name: branches.name, points: await againstSize(context, branches) });
  context.status(`${branches.name}: calls`);
  const sizeBytes = wholeMiB(context.sizeBytes / 4);
  await branches.create(VOLUME, sizeBytes);
  const target = { engine: "nbd", uri: branches.uri(VOLUME) } as const;
  await runFioLoad(target, FILL, { sizeBytes, durationMs: null, seed: 1 });
  const count = Math.min(
    MAX_CALLS,
    Math.max(MIN_CALLS, Math.round(context.seconds * CALLS_PER_SECOND)),
  );
  const record = (row: string, times: number[]) => {
    table.add(row, branches.name, [median(times), quantile(times, 0.99), quantile(times, 1)]);
  };

  record("4 KiB written and synced, no subject", await syncTimes(context.folder, count));
  const { nothing } = branches;
  if (nothing !== null) {
    const times: number[] = [];
    for (let i = 0; i < count; i++) times.push(await elapsed(nothing));
    record("a call that does nothing", times);
  }
  const idle = await callAll(branches, "idle", { count, goOn: () => true });
  record("snapshot, idle", idle.snapshots);
  record("clone of it, served, idle", idle.clones);
  record("delete of the clone, idle", idle.deletes);

  let loading = true;
  const durationMs = Math.round(context.seconds * 2000);
  const load = runFioLoad(target, LOAD, { sizeBytes, durationMs, seed: 2 }).finally(() => {
    loading = false;
  });
  const calls = untilLoaded(branches).then(() => {
    return callAll(branches, "busy", { count, goOn: () => loading });
  });
  const [, busy] = await Promise.all([load, calls]);
  record("snapshot, under load", busy.snapshots);
  record("clone of it, served, under load", busy.clones);
  record("delete of the clone, under load", busy.deletes);
}

interface CallTimes {
  snapshots: number[];
  clones: number[];
  deletes: number[];
}

/** At least once. */
async function callAll(
  branches: Branches,
  tag: string,
  until: { count: number; goOn: () => boolean },
): Promise<CallTimes> {
  const times: CallTimes = { snapshots: [], clones: [], deletes: [] };
  for (let i = 0; i === 0 || (i < until.count && until.goOn()); i++) {
    const [snapshot, clone] = [`${tag}-${i}`, `called-${tag}-${i}`];
    times.snapshots.push(await elapsed(() => branches.snapshot(VOLUME, snapshot)));
    times.clones.push(await elapsed(() => branches.clone(VOLUME, snapshot, clone)));
    times.deletes.push(await elapsed(() => branches.deleteClone(clone)));
  }
  return times;
}

async function againstSize(context: SuiteContext, branches: Branches): Promise<[number, number][]> {
  const points: [number, number][] = [];
  for (const part of SIZE_PARTS) {
    const sizeBytes = wholeMiB(context.sizeBytes / part);
    context.status(`${branches.name}: clones of ${formatSize(sizeBytes)}`);
    const volume = `sized-${part}`;
    await branches.create(volume, sizeBytes);
    const target = { engine: "nbd", uri: branches.uri(volume) } as const;
    await runFioLoad(target, SCATTER, { sizeBytes, durationMs: null, seed: part });
    const times: number[] = [];
    for (let i = 0; i < CALLS_PER_SIZE; i++) {
      const clone = `${volume}-clone-${i}`;
      const ms = await elapsed(async () => {
        await branches.snapshot(volume, `s${i}`);
        await branches.clone(volume, `s${i}`, clone);
      });
      times.push(ms);
      await branches.deleteClone(clone);
    }
    points.push([sizeBytes / MIB, median(times)]);
  }
  return points;
}

function wholeMiB(bytes: number): number {
  return Math.max(1, Math.floor(bytes / MIB)) * MIB;
}

async function elapsed(call: () => Promise<void>): Promise<number> {
  const started = performance.now();
  await call();
  return performance.now() - started;
}
