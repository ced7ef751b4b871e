// Results for people: Markdown tables. Of each cell the medians of the rounds, and after the first
// metric how far the rounds lay apart.
import { formatSize } from "../engine/base/size.js";
import type { Cell, Metric, Results, SuiteResult, Table } from "./results.js";
import { median, spread } from "./statistics.js";

/** A spread below this is not shown. */
const SHOWN_SPREAD = 0.005;

export function tableText(table: Table): string {
  const rows = [...new Set(table.cells.map((cell) => cell.row))];
  const columns = [...new Set(table.cells.map((cell) => cell.column))];
  const lines = [
    ["", ...columns],
    columns.map(() => "---").concat("---"),
    ...rows.map((row) => [
      row,
      ...columns.map((column) => {
        const cell = table.cells.find((each) => each.row === row && each.column === column);
        return cell === undefined ? "–" : cellText(cell, table.metrics);
      }),
    ]),
  ].map((fields) => `| ${fields.join(" | ")} |`);
  const about = [`Cells: ${table.metrics.map(metricName).join(" / ")}.`, table.note];
  return [`**${table.title}.** ${about.filter(Boolean).join(" ")}`, "", ...lines].join("\n");
}

/** `plotPath`: where the picture of a plot is, as the document has to say it. */
export function suiteText(suite: SuiteResult, plotPath: (id: string) => string): string {
  return [
    `### ${suite.name}`,
    ...suite.tables.map(tableText),
    ...suite.plots.map((plot) => `![${plot.title}](${plotPath(plot.id)})`),
    ...suite.absent.map((why) => `Not measured here: ${why}.`),
  ].join("\n\n");
}

export function machineText({ machine }: Results): string {
  const { cpu, cores, memoryBytes, kernel, virtual, fileSystem, device, versions } = machine;
  const programs = Object.entries(versions)
    .filter(([, version]) => version !== "")
    .map(([name, version]) => (version.startsWith(name) ? version : `${name} ${version}`));
  const where = virtual ? " in a virtual machine" : "";
  return [
    `- ${cores} cores of ${cpu}${where}, ${formatSize(memoryBytes)} memory, Linux ${kernel}.`,
    `- ${device}; ${fileSystem}.`,
    `- ${programs.join("; ")}.`,
  ].join("\n");
}

export function runText({ suites, machine, options, startedAt, seconds }: Results): string {
  const { commit, loadBefore, loadAfter } = machine;
  const names = suites.map(({ name }) => name).join(", ");
  return [
    `${startedAt.slice(0, 10)}, commit ${commit}: ${names}.`,
    `The run took ${Math.round(seconds / 60)} minutes; a working set of ${formatSize(options.sizeBytes)},`,
    `${options.seconds} s a measurement, medians of ${options.rounds} rounds; ± is half the range of the rounds.`,
    `Noise: load average ${loadBefore} before the run, ${loadAfter} after it.`,
  ].join("\n");
}

function metricName({ name, unit }: Metric): string {
  return unit === "" ? name : `${name} (${unit})`;
}

function cellText(cell: Cell, metrics: readonly Metric[]): string {
  return metrics
    .map((_, index) => {
      const samples = cell.samples[index] ?? [];
      const apart = index === 0 ? spread(samples) : 0;
      const around = apart < SHOWN_SPREAD ? "" : ` ± ${(apart * 100).toFixed(0)} %`;
      return `${numberText(median(samples))}${around}`;
    })
    .join(" / ");
}

/** Three digits that count. */
export function numberText(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e6) return `${(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  return size === 0 ? "0" : value.toFixed(2);
}
