// What a snapshot and a clone do to those who go on writing: the longest request in each moment
// around them.
import { type Plot, TableBuilder } from "../results.js";
import { type Branches, untilLoaded } from "../subjects/branches.js";
import { pause } from "../subjects/server-process.js";
import type { SuiteContext } from "../suite.js";
import { FILL, runFioLoad, type Workload, workloadName } from "../workload.js";

const LOAD: Workload = { pattern: "randwrite", blockBytes: 8192, depth: 16 };
const VOLUME = "stalled";
const SAMPLE_MS = 20;
/** fio says when it started only to within some ten milliseconds. */
const UNCERTAIN_MS = 100;
/** Before the first call and between the calls. */
const MIN_QUIET_MS = 400;

interface Call {
  label: string;
  startedAtMs: number;
  endedAtMs: number;
}

export function stallTable(): TableBuilder {
  return new TableBuilder({
    id: "branch-stalls",
    title: `The longest request of a load around a snapshot and a clone: ${workloadName(LOAD)}`,
    metrics: [{ name: "longest", unit: "ms", better: "lower", relative: false }],
  });
}

export function stallPlot(): Plot {
  return {
    id: "branch-stalls",
    title: `The longest request of each ${SAMPLE_MS} ms: ${workloadName(LOAD)}`,
    x: { label: "seconds", scale: "linear" },
    y: { label: "ms", scale: "log" },
    lines: [],
    marks: [],
  };
}

/** The plot gets a line of the last round, and marks of the first subject's calls. */
export async function stalls(
  context: SuiteContext,
  branches: Branches,
  table: TableBuilder,
  plot: Plot,
): Promise<void> {
  const { sizeBytes, rounds } = context;
  const uri = branches.uri(VOLUME);
  context.status(`${branches.name}: writing another volume in full`);
  await branches.create(VOLUME, sizeBytes);
  await runFioLoad({ engine: "nbd", uri }, FILL, { sizeBytes, durationMs: null, seed: 1 });
  for (let round = 0; round < rounds; round++) {
    context.status(`${branches.name}: stalls, round ${round + 1} of ${rounds}`);
    const quietMs = Math.max(MIN_QUIET_MS, Math.round(context.seconds * 400));
    const limits = {
      sizeBytes,
      durationMs: quietMs * 4,
      seed: round + 2,
      sampleEveryMs: SAMPLE_MS,
    };
    const load = runFioLoad({ engine: "nbd", uri }, LOAD, limits);
    const calls = branch(branches, quietMs, round);
    const [{ samples, startedAtMs }, [snapshot, clone]] = await Promise.all([load, calls]);
    const around =
      ({ startedAtMs: from, endedAtMs: to }: Call) =>
      (timeMs: number) => {
        const at = timeMs + startedAtMs;
        return at >= from - UNCERTAIN_MS && at <= to + UNCERTAIN_MS + SAMPLE_MS;
      };
    const record = (row: string, when: (timeMs: number) => boolean): void => {
      const these = samples.filter(({ timeMs, maxLatencyUs }) => when(timeMs) && maxLatencyUs > 0);
      if (these.length === 0) throw new Error(`${branches.name}: no request ended ${row}`);
      table.add(row, branches.name, [Math.max(...these.map((each) => each.maxLatencyUs)) / 1000]);
    };
    const [nearSnapshot, nearClone] = [around(snapshot), around(clone)];
    const neither = (timeMs: number) => !nearSnapshot(timeMs) && !nearClone(timeMs);
    record("around the snapshot", nearSnapshot);
    record("around the clone", nearClone);
    record("otherwise", neither);
    if (round < rounds - 1) continue;
    const points = samples
      .filter(({ maxLatencyUs }) => maxLatencyUs > 0)
      .map(({ timeMs, maxLatencyUs }): [number, number] => [timeMs / 1000, maxLatencyUs / 1000]);
    plot.lines.push({ name: branches.name, points });
    if (plot.marks.length > 0) continue;
    for (const call of [snapshot, clone]) {
      plot.marks.push({ x: (call.startedAtMs - startedAtMs) / 1000, label: call.label });
    }
  }
}

async function branch(branches: Branches, quietMs: number, round: number): Promise<[Call, Call]> {
  const snapshot = `stall-${round}`;
  await untilLoaded(branches);
  await pause(quietMs);
  const first = await timed("snapshot", () => branches.snapshot(VOLUME, snapshot));
  await pause(quietMs);
  const clone = `stalled-${round}`;
  const second = await timed("clone", () => branches.clone(VOLUME, snapshot, clone));
  return [first, second];
}

async function timed(label: string, call: () => Promise<void>): Promise<Call> {
  const startedAtMs = Date.now();
  await call();
  return { label, startedAtMs, endedAtMs: Date.now() };
}
