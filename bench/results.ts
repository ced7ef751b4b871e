// What a run of the benchmarks gives: tables and plots as plain data, with the machine that they
// were made on. The file is JSON; everything else (Markdown, SVG, comparisons) is made from it.
import { readFileSync } from "node:fs";
import type { Machine } from "./machine.js";

/** Raised when a field changes its meaning. */
export const RESULTS_FORMAT = 1;

export interface Metric {
  name: string;
  /** "" for a count or a ratio. */
  unit: string;
  /** Which way is better; "neither" is never a regression. */
  better: "higher" | "lower" | "neither";
  /** A part of another figure of the same run: comparable between machines. */
  relative: boolean;
}

export interface Cell {
  row: string;
  column: string;
  /** Per metric of the table, one number per round. */
  samples: number[][];
}

export interface Table {
  /** Unique in a run. */
  id: string;
  title: string;
  /** What a reader must know, in Markdown. */
  note: string;
  metrics: Metric[];
  cells: Cell[];
}

export interface Line {
  name: string;
  points: [x: number, y: number][];
}

export interface Axis {
  label: string;
  scale: "linear" | "log";
}

export interface Plot {
  /** Unique in a run; the name of its file. */
  id: string;
  title: string;
  x: Axis;
  y: Axis;
  lines: Line[];
  /** Moments, drawn as vertical lines. */
  marks: { x: number; label: string }[];
}

export interface SuiteResult {
  name: string;
  tables: Table[];
  plots: Plot[];
  /** What could not be measured here, and why. */
  absent: string[];
}

export interface RunOptions {
  sizeBytes: number;
  seconds: number;
  rounds: number;
  /** Of watching what does nothing. */
  idleSeconds: number;
}

export interface Results {
  format: number;
  startedAt: string;
  seconds: number;
  machine: Machine;
  options: RunOptions;
  suites: SuiteResult[];
}

/** Throws an Error that names the file. */
export function readResults(path: string): Results {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`${path} cannot be read as results: ${why}`, { cause });
  }
  if (typeof parsed !== "object" || parsed === null || !("format" in parsed)) {
    throw new Error(`${path} has no results of these benchmarks`);
  }
  if (parsed.format !== RESULTS_FORMAT) {
    throw new Error(`${path} has format ${parsed.format}; this program reads ${RESULTS_FORMAT}`);
  }
  return parsed as Results;
}

export function writeResults(results: Results): string {
  return `${JSON.stringify(results, null, 1)}\n`;
}

/** Fills a table cell by cell, round by round. */
export class TableBuilder {
  readonly #cells = new Map<string, Cell>();

  constructor(private readonly head: Omit<Table, "cells" | "note">) {}

  /** One round: a value per metric, in their order. */
  add(row: string, column: string, values: readonly number[]): void {
    if (values.length !== this.head.metrics.length) {
      throw new Error(`${this.head.id}: ${values.length} values for ${row}, ${column}`);
    }
    const key = JSON.stringify([row, column]);
    let cell = this.#cells.get(key);
    if (cell === undefined) {
      cell = { row, column, samples: values.map(() => []) };
      this.#cells.set(key, cell);
    }
    for (const [index, value] of values.entries()) cell.samples[index]?.push(value);
  }

  build(note = ""): Table {
    return { ...this.head, note, cells: [...this.#cells.values()] };
  }
}
