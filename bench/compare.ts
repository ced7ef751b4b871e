// Which figures of a new run are worse than those of an old one, by more than the noise of either.
//
// Ratios within a run are the figures to trust: absolute ones are compared only between runs on the
// same machine.
import { numberText } from "./markdown.js";
import type { Metric, Results, Table } from "./results.js";
import { median, spread } from "./statistics.js";

export interface Change {
  table: string;
  row: string;
  column: string;
  metric: string;
  before: number;
  after: number;
  /** 0.1: a tenth more. */
  change: number;
  /** Beyond it the change is not noise. */
  tolerance: number;
  verdict: "better" | "worse" | "same";
}

export interface Comparison {
  sameMachine: boolean;
  changes: Change[];
  /** In one of the two only: "table, row, column, metric". */
  unmatched: string[];
}

/** `floor`: a smaller change is noise, whatever the rounds say. */
export function compareResults(before: Results, after: Results, floor: number): Comparison {
  const sameMachine = sameHardware(before, after);
  const old = figures(before, sameMachine);
  const unmatched = new Set(old.keys());
  const changes: Change[] = [];
  for (const [key, { table, row, column, metric, samples }] of figures(after, sameMachine)) {
    const previous = old.get(key);
    if (previous === undefined) {
      unmatched.add(key);
      continue;
    }
    unmatched.delete(key);
    const was = median(previous.samples);
    const is = median(samples);
    const change = was === 0 ? Math.sign(is) : (is - was) / Math.abs(was);
    const tolerance = Math.max(floor, spread(previous.samples) + spread(samples));
    const { name, better } = metric;
    const verdict = judge(change, tolerance, better);
    const place = { table, row, column, metric: name };
    changes.push({ ...place, before: was, after: is, change, tolerance, verdict });
  }
  return { sameMachine, changes, unmatched: [...unmatched] };
}

function judge(change: number, tolerance: number, better: Metric["better"]): Change["verdict"] {
  if (better === "neither" || Math.abs(change) <= tolerance) return "same";
  return change > 0 === (better === "higher") ? "better" : "worse";
}

interface Figure {
  table: string;
  row: string;
  column: string;
  metric: Metric;
  samples: number[];
}

function figures(results: Results, absolute: boolean): Map<string, Figure> {
  const found = new Map<string, Figure>();
  for (const table of results.suites.flatMap((suite) => suite.tables)) {
    for (const figure of tableFigures(table)) {
      if (!absolute && !figure.metric.relative) continue;
      const { row, column, metric } = figure;
      found.set([table.id, row, column, metric.name].join(", "), figure);
    }
  }
  return found;
}

function tableFigures({ id, metrics, cells }: Table): Figure[] {
  return cells.flatMap(({ row, column, samples }) =>
    metrics.map((metric, index) => ({
      table: id,
      row,
      column,
      metric,
      samples: samples[index] ?? [],
    })),
  );
}

function sameHardware(a: Results, b: Results): boolean {
  const same = ["cpu", "cores", "memoryBytes", "kernel", "device", "fileSystem"] as const;
  return same.every((field) => a.machine[field] === b.machine[field]);
}

/** What has changed, worst first, a line each; the rest counted. */
export function comparisonText({ sameMachine, changes, unmatched }: Comparison): string {
  const lines: string[] = [];
  if (!sameMachine) lines.push("not the same machine: only ratios within a run are compared");
  for (const verdict of ["worse", "better"] as const) {
    const these = changes.filter((change) => change.verdict === verdict);
    these.sort((a, b) => Math.abs(b.change) - Math.abs(a.change));
    lines.push(...these.map(changeText));
  }
  const same = changes.filter(({ verdict }) => verdict === "same").length;
  lines.push(`${same} of ${changes.length} figures are the same within their noise`);
  if (unmatched.length > 0) lines.push(`${unmatched.length} are in one of the two files only`);
  return lines.join("\n");
}

function changeText(change: Change): string {
  const { table, row, column, metric, verdict } = change;
  const percent = (part: number) => `${(part * 100).toFixed(0)} %`;
  const figures = `${numberText(change.before)} -> ${numberText(change.after)}`;
  const by = `${change.change > 0 ? "+" : ""}${percent(change.change)}`;
  const noise = `noise ${percent(change.tolerance)}`;
  return `${verdict}: ${table}, ${row}, ${column}: ${metric} ${figures} (${by}, ${noise})`;
}
