// Several subjects under the same loads, turn by turn in one run: what the machine does to one it
// does to the others, and the ratio within a round outlives the noise that the figures do not.
import { deviceTraffic } from "./machine.js";
import { type Plot, type Table, TableBuilder } from "./results.js";
import { median } from "./statistics.js";
import type { SuiteContext } from "./suite.js";
import { type Figures, type Workload, workloadName } from "./workload.js";

export interface Comparison {
  id: string;
  title: string;
  /** The first one is what the others are compared with. */
  subjects: readonly [string, ...string[]];
  measure(subject: string, workload: Workload, run: MeasureRun): Promise<Figures>;
}

export interface MeasureRun {
  durationMs: number;
  /** Another one for each measurement. */
  seed: number;
}

const SWEEP_DEPTHS = [1, 2, 4, 8, 16, 32, 64];

/** A row per workload, a column per subject. */
export async function sideBySide(
  context: SuiteContext,
  comparison: Comparison,
  workloads: readonly Workload[],
): Promise<Table> {
  const { id, title, subjects } = comparison;
  const table = new TableBuilder({
    id,
    title,
    metrics: [
      { name: "IOPS", unit: "", better: "higher", relative: false },
      { name: "p50", unit: "µs", better: "lower", relative: false },
      { name: "p99", unit: "µs", better: "lower", relative: false },
      { name: "CPU per I/O", unit: "µs", better: "lower", relative: false },
      { name: `of ${subjects[0]}`, unit: "", better: "higher", relative: true },
    ],
  });
  const asked = new ReadTraffic(context.folder);
  let seed = 0;
  for (const workload of workloads) {
    const row = workloadName(workload);
    const ratios = new Map<string, number[]>(subjects.map((subject) => [subject, []]));
    for (let round = 0; round < context.rounds; round++) {
      let baseline = 0;
      for (const subject of subjects) {
        context.status(`${row}: ${subject}, round ${round + 1} of ${context.rounds}`);
        seed += 1;
        const run = { durationMs: Math.round(context.seconds * 1000), seed };
        const figures = await comparison.measure(subject, workload, run);
        if (subject === subjects[0]) baseline = figures.iops;
        const { iops, p50Us, p99Us, cpuSeconds, ops } = figures;
        const ratio = iops / baseline;
        table.add(row, subject, [iops, p50Us, p99Us, (cpuSeconds * 1e6) / ops, ratio]);
        ratios.get(subject)?.push(ratio);
        if (workload.pattern.endsWith("read")) asked.add(ops * workload.blockBytes);
      }
    }
    const shown = subjects.slice(1).map((subject) => {
      return `${subject} ${median(ratios.get(subject) ?? []).toFixed(2)}`;
    });
    context.say(`${row}: ${shown.join(", ")} of ${subjects[0]}`);
  }
  return table.build(asked.describe());
}

/** IOPS and latency against depth, one round each. */
export async function depthSweep(
  context: SuiteContext,
  comparison: Comparison,
  workload: Omit<Workload, "depth">,
): Promise<Plot[]> {
  const iops = new Map<string, [number, number][]>();
  const p99Us = new Map<string, [number, number][]>();
  for (const depth of SWEEP_DEPTHS) {
    for (const subject of comparison.subjects) {
      context.status(`${workloadName({ ...workload, depth })}: ${subject}`);
      const run = { durationMs: Math.round(context.seconds * 1000), seed: depth };
      const figures = await comparison.measure(subject, { ...workload, depth }, run);
      iops.set(subject, [...(iops.get(subject) ?? []), [depth, figures.iops]]);
      p99Us.set(subject, [...(p99Us.get(subject) ?? []), [depth, figures.p99Us]]);
    }
  }
  const name = workloadName({ ...workload, depth: 1 }).replace(/, depth 1$/, "");
  const id = `${comparison.id}-${workload.pattern}`;
  const x = { label: "requests in flight", scale: "log" } as const;
  const lines = (points: typeof iops) =>
    [...points].map(([subject, values]) => ({ name: subject, points: values }));
  return [
    {
      id: `${id}-iops`,
      title: `IOPS against depth: ${name}`,
      x,
      y: { label: "IOPS", scale: "linear" },
      lines: lines(iops),
      marks: [],
    },
    {
      id: `${id}-p99`,
      title: `99th percentile of latency against depth: ${name}`,
      x,
      y: { label: "µs", scale: "log" },
      lines: lines(p99Us),
      marks: [],
    },
  ];
}

/** How much of what was read came from the device at all: a cache makes any figure look good. */
class ReadTraffic {
  readonly #before;
  #askedBytes = 0;

  constructor(private readonly folder: string) {
    this.#before = deviceTraffic(folder);
  }

  add(bytes: number): void {
    this.#askedBytes += bytes;
  }

  describe(): string {
    const after = deviceTraffic(this.folder);
    if (this.#before === null || after === null || this.#askedBytes === 0) return "";
    const share = (after.readBytes - this.#before.readBytes) / this.#askedBytes;
    return `Of the bytes that were read, the device gave ${(share * 100).toFixed(0)} %.`;
  }
}
