// The first writes to a clone: random 8 KiB, from the first second on, beside the same writes when
// the clone owns everything; and what they make the subject's data grow by.
import type { FioSample } from "../fio-wrapper/index.js";
import { type Plot, TableBuilder } from "../results.js";
import type { Branches } from "../subjects/branches.js";
import { pause } from "../subjects/server-process.js";
import type { SuiteContext } from "../suite.js";
import { FILL, runFioLoad, type Workload, workloadName } from "../workload.js";

const WRITES: Workload = { pattern: "randwrite", blockBytes: 8192, depth: 32 };
const MIB = 1024 * 1024;
const VOLUME = "written";
/** Of a measurement; an interval that is too short counts too few requests. */
const SAMPLES = 40;
const MIN_SAMPLE_MS = 20;
/** How much of the first writes is "first". */
const FIRST_MS = 1000;

export function writesTable(): TableBuilder {
  return new TableBuilder({
    id: "branch-writes",
    title: "First writes to a clone, beside writes to a clone that owns all of its blocks",
    metrics: [
      { name: "first second, IOPS", unit: "", better: "higher", relative: false },
      { name: "steady, IOPS", unit: "", better: "higher", relative: false },
      { name: "first of steady", unit: "", better: "higher", relative: true },
      { name: "longest of the first", unit: "ms", better: "lower", relative: false },
      { name: "bytes written per byte", unit: "", better: "lower", relative: true },
    ],
  });
}

export function writesPlot(): Plot {
  return {
    id: "branch-first-writes",
    title: `First writes to a clone: ${workloadName(WRITES)}`,
    x: { label: "seconds since the first write", scale: "linear" },
    y: { label: "IOPS", scale: "linear" },
    lines: [],
    marks: [],
  };
}

export function growthPlot(): Plot {
  return {
    id: "branch-growth",
    title: "Space that a clone takes as it is written to, 8 KiB at random places",
    x: { label: "MiB written by the client", scale: "linear" },
    y: { label: "MiB more on disk", scale: "linear" },
    lines: [],
    marks: [],
  };
}

/** Plots get a line of the last round. */
export async function firstWrites(
  context: SuiteContext,
  branches: Branches,
  table: TableBuilder,
  plots: { writes: Plot; growth: Plot },
): Promise<void> {
  const { sizeBytes, rounds } = context;
  const fill = (volume: string) => {
    const limits = { sizeBytes, durationMs: null, seed: 1 };
    return runFioLoad({ engine: "nbd", uri: branches.uri(volume) }, FILL, limits);
  };
  context.status(`${branches.name}: writing a volume in full`);
  await branches.create(VOLUME, sizeBytes);
  await fill(VOLUME);
  await branches.snapshot(VOLUME, "base");
  for (let round = 0; round < rounds; round++) {
    context.status(`${branches.name}: first writes, round ${round + 1} of ${rounds}`);
    const clone = `clone-${round}`;
    await branches.clone(VOLUME, "base", clone);
    const first = await writeTo(context, branches, clone);
    await fill(clone);
    const steady = await writeTo(context, branches, clone);
    const firstIops = iopsAtFirst(first.samples);
    const steadyIops = iopsAtFirst(steady.samples);
    table.add(workloadName(WRITES), branches.name, [
      firstIops,
      steadyIops,
      firstIops / steadyIops,
      Math.max(...first.samples.map(({ maxLatencyUs }) => maxLatencyUs)) / 1000,
      first.diskBytes / first.clientBytes,
    ]);
    await branches.deleteClone(clone);
    if (round < rounds - 1) continue;
    const points = first.samples.map(({ timeMs, iops }): [number, number] => [timeMs / 1000, iops]);
    plots.writes.lines.push({ name: branches.name, points });
    plots.growth.lines.push({ name: branches.name, points: first.growth });
  }
}

interface Written {
  samples: FioSample[];
  clientBytes: number;
  diskBytes: number;
  /** MiB written by the client, MiB more on disk. */
  growth: [number, number][];
}

async function writeTo(
  context: SuiteContext,
  branches: Branches,
  volume: string,
): Promise<Written> {
  const durationMs = Math.round(context.seconds * 2000);
  const sampleEveryMs = Math.max(MIN_SAMPLE_MS, Math.round(durationMs / SAMPLES));
  const before = await branches.allocatedBytes();
  const writtenBefore = branches.writtenBytes();
  const taken: { atMs: number; bytes: number }[] = [];
  const target = { engine: "nbd", uri: branches.uri(volume) } as const;
  const limits = { sizeBytes: context.sizeBytes, durationMs, seed: 7, sampleEveryMs };
  let running = true;
  const load = runFioLoad(target, WRITES, limits).finally(() => {
    running = false;
  });
  const watch = async (): Promise<void> => {
    while (running) {
      taken.push({ atMs: Date.now(), bytes: await branches.allocatedBytes() });
      await pause(sampleEveryMs);
    }
  };
  const [{ figures, samples, startedAtMs }] = await Promise.all([load, watch()]);
  const growth = taken
    .map(({ atMs, bytes }): [number, number] => {
      const clientBytes = writtenBy(samples, atMs - startedAtMs) * WRITES.blockBytes;
      return [clientBytes / MIB, Math.max(0, bytes - before) / MIB];
    })
    .filter(([x], index, all) => x > (all[index - 1]?.[0] ?? 0));
  return {
    samples,
    clientBytes: figures.ops * WRITES.blockBytes,
    diskBytes: branches.writtenBytes() - writtenBefore,
    growth: [[0, 0], ...growth],
  };
}

/** Requests until then. */
function writtenBy(samples: readonly FioSample[], timeMs: number): number {
  let count = 0;
  let from = 0;
  for (const sample of samples) {
    const until = Math.min(sample.timeMs, timeMs);
    if (until > from) count += (sample.iops * (until - from)) / 1000;
    from = sample.timeMs;
  }
  return count;
}

/** In the first second, which begins when fio has begun: its start is not the subject's. */
function iopsAtFirst(samples: readonly FioSample[]): number {
  const begun = samples.findIndex(({ iops }) => iops > 0);
  const from = samples[begun - 1]?.timeMs ?? 0;
  const first = samples.filter(({ timeMs }) => timeMs > from && timeMs <= from + FIRST_MS);
  return first.reduce((sum, { iops }) => sum + iops, 0) / Math.max(1, first.length);
}
