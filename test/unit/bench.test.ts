// What the benchmarks make of their figures: medians and spreads, tables, plots, the page in docs/,
// and what counts as a regression.
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { compareResults, comparisonText } from "../../bench/compare.js";
import { numberText, tableText } from "../../bench/markdown.js";
import { svg } from "../../bench/plot.js";
import { publish, replaceGenerated } from "../../bench/publish.js";
import {
  type Plot,
  RESULTS_FORMAT,
  type Results,
  readResults,
  type Table,
  TableBuilder,
  writeResults,
} from "../../bench/results.js";
import { median, quantile, spread } from "../../bench/statistics.js";
import { packagePath } from "../../engine/base/package-path.js";

const folder = mkdtempSync(join(tmpdir(), "bench-test-"));
test.after(() => rmSync(folder, { recursive: true }));

const PLOT: Plot = {
  id: "curve",
  title: "a < b",
  x: { label: "depth", scale: "log" },
  y: { label: "IOPS", scale: "linear" },
  lines: [
    {
      name: "engine",
      points: [
        [1, 100],
        [2, 150],
        [64, 900],
      ],
    },
    {
      name: "raw & file",
      points: [
        [1, 120],
        [2, 160],
        [64, 800],
      ],
    },
  ],
  marks: [{ x: 2, label: "snapshot" }],
};

function table(iops: number[], ratio: number[]): Table {
  const builder = new TableBuilder({
    id: "engine",
    title: "Engine",
    metrics: [
      { name: "IOPS", unit: "", better: "higher", relative: false },
      { name: "of raw", unit: "", better: "higher", relative: true },
    ],
  });
  for (const [index, value] of iops.entries()) {
    builder.add("random read", "engine", [value, ratio[index] ?? 0]);
  }
  return builder.build("A note.");
}

function results(tables: Table[], cpu = "one"): Results {
  return {
    format: RESULTS_FORMAT,
    startedAt: "2026-01-02T03:04:05.000Z",
    seconds: 120,
    machine: {
      cpu,
      cores: 2,
      memoryBytes: 2 ** 33,
      kernel: "6.1",
      virtual: true,
      fileSystem: "ext4 (rw)",
      device: "/dev/vda",
      versions: { fio: "fio-3.33", "qemu-storage-daemon": "", node: "v20" },
      commit: "abc",
      loadBefore: 0.1,
      loadAfter: 1.5,
    },
    options: { sizeBytes: 2 ** 30, seconds: 5, rounds: 3, idleSeconds: 60 },
    suites: [{ name: "engine", tables, plots: [PLOT], absent: ["btrfs: it is not there"] }],
  };
}

test("medians are measured values, and spreads are parts of them", () => {
  assert.is(median([3, 1, 2]), 2);
  assert.is(median([4, 1]), 1);
  assert.is(median([]), 0);
  const hundred = Array.from({ length: 100 }, (_, index) => index + 1);
  assert.is(quantile(hundred, 0.99), 99);
  assert.is(quantile([5], 0.99), 5);
  assert.is(spread([90, 100, 110]), 0.1);
  assert.is(spread([7]), 0);
  assert.is(spread([0, 0]), 0);
});

test("numbers have the digits that count", () => {
  const shown = [0, 0.9512, 9.99, 12.34, 456.7, 9999, 12_345, 1_234_567].map(numberText);
  assert.equal(shown, ["0", "0.95", "9.99", "12.3", "457", "9999", "12.3k", "1.23M"]);
});

test("a table has a row per workload and says how far the rounds lay apart", () => {
  assert.is(
    tableText(table([90, 100, 110], [0.9, 1, 1.1])),
    `**Engine.** Cells: IOPS / of raw. A note.

|  | engine |
| --- | --- |
| random read | 100 ± 10 % / 1.00 |`,
  );
  assert.throws(() => {
    const head = { id: "a", title: "a", metrics: [] };
    new TableBuilder(head).add("row", "column", [1]);
  }, /1 values for row, column/);
});

test("worse is what is worse by more than the noise of both", () => {
  const before = results([table([100, 101, 102], [1, 1, 1])]);
  const verdicts = (iops: number[], ratio: number[]) =>
    compareResults(before, results([table(iops, ratio)]), 0.05).changes.map((each) => each.verdict);
  assert.equal(verdicts([96, 97, 98], [1, 1, 1]), ["same", "same"]);
  assert.equal(verdicts([90, 90, 90], [1.2, 1.2, 1.2]), ["worse", "better"]);
  // The rounds lie further apart than the medians.
  assert.equal(verdicts([70, 90, 110], [0.7, 0.9, 1.1]), ["same", "same"]);
});

test("for a latency, less is better; for what is neither, nothing is worse", () => {
  const with_ = (better: "lower" | "neither", value: number): Results => {
    const metrics = [{ name: "p99", unit: "µs", better, relative: false }];
    const builder = new TableBuilder({ id: "t", title: "t", metrics });
    builder.add("row", "column", [value]);
    return results([builder.build()]);
  };
  const verdict = (better: "lower" | "neither", was: number, is: number) =>
    compareResults(with_(better, was), with_(better, is), 0.05).changes[0]?.verdict;
  assert.is(verdict("lower", 100, 200), "worse");
  assert.is(verdict("lower", 200, 100), "better");
  assert.is(verdict("lower", 0, 5), "worse");
  assert.is(verdict("neither", 100, 200), "same");
});

test("between machines only ratios are compared, and what has no counterpart is counted", () => {
  const before = results([table([100], [1])]);
  const other = { ...table([5], [0.5]), id: "nbd" };
  const after = results([table([10], [0.5]), other], "another");
  const comparison = compareResults(before, after, 0.05);
  assert.not(comparison.sameMachine);
  assert.equal(
    comparison.changes.map(({ metric, verdict }) => [metric, verdict]),
    [["of raw", "worse"]],
  );
  assert.is(
    comparisonText(comparison),
    `not the same machine: only ratios within a run are compared
worse: engine, random read, engine: of raw 1.00 -> 0.50 (-50 %, noise 5 %)
0 of 1 figures are the same within their noise
1 are in one of the two files only`,
  );
});

test("a plot is well-formed, and everything is on it", () => {
  const text = svg(PLOT);
  assert.match(text, /a &lt; b/);
  assert.match(text, /raw &amp; file/);
  assert.match(text, /snapshot/);
  const opened = [...text.matchAll(/<(\w+)[^>]*[^/]>/g)].map((found) => found[1]);
  const closed = [...text.matchAll(/<\/(\w+)>/g)].map((found) => found[1]);
  assert.equal(opened.sort(), closed.sort());
  const numbers = [...text.matchAll(/(?:c?[xy][12]?)="(-?[\d.]+|\w+)"/g)].map((found) => found[1]);
  for (const value of numbers.map(Number)) assert.ok(value >= 0 && value <= 760, `${value}`);
  for (const points of [...text.matchAll(/points="([^"]+)"/g)].map((found) => found[1] ?? "")) {
    assert.is(points.split(" ").length, 3);
    assert.not.match(points, /NaN|Infinity/);
  }
});

test("empty and degenerate plots are drawn, too", () => {
  for (const scale of ["linear", "log"] as const) {
    for (const points of [[], [[0, 0]], [[5, 5]], [[1e-3, 1e9]]] as [number, number][][]) {
      const axis = { label: "a", scale };
      const text = svg({ ...PLOT, x: axis, y: axis, lines: [{ name: "l", points }], marks: [] });
      assert.not.match(text, /NaN|Infinity/);
    }
  }
});

test("publishing replaces what was published, and nothing else", () => {
  const docs = join(folder, "docs");
  const source = readFileSync(packagePath("docs/performance.md"), "utf8");
  const page = join(docs, "performance.md");
  rmSync(docs, { recursive: true, force: true });
  assert.throws(() => publish(results([]), docs));
  publishInto(docs, source);
  const first = readFileSync(page, "utf8");
  assert.match(first, /random read \| 100/);
  assert.match(first, /!\[a < b\]\(performance\/curve\.svg\)/);
  assert.match(first, /Not measured here: btrfs: it is not there\./);
  assert.ok(first.startsWith(source.slice(0, source.indexOf("<!--"))));
  writeFileSync(join(docs, "performance", "stale.svg"), "");
  publishInto(docs, first);
  assert.is(readFileSync(page, "utf8"), first);
  assert.equal(readdirSync(join(docs, "performance")).sort(), ["curve.svg", "results-1.json"]);
  assert.equal(readResults(join(docs, "performance", "results-1.json")), published());
  assert.throws(() => replaceGenerated("no marks", "text", "a.md"), /a\.md has no place/);
});

test("suites that this run has not measured stay published, with their own run's words", () => {
  const suite = (name: string) => ({
    name,
    tables: [],
    plots: [{ ...PLOT, id: name }],
    absent: [],
  });
  const run = (day: string, seconds: number, names: string[]): Results => ({
    ...results([]),
    startedAt: `2026-01-${day}T00:00:00.000Z`,
    options: { sizeBytes: 2 ** 30, seconds, rounds: 3, idleSeconds: 60 },
    suites: names.map(suite),
  });
  const docs = join(folder, "merged");
  mkdirSync(docs);
  cpSync(packagePath("docs/performance.md"), join(docs, "performance.md"));
  publish(run("01", 5, ["engine", "nbd"]), docs);
  publish(run("02", 7, ["postgres"]), docs);
  publish(run("03", 9, ["nbd"]), docs);
  const page = readFileSync(join(docs, "performance.md"), "utf8");
  const said = [...page.matchAll(/^(?:### (\w+)|(\d) s a measurement)/gm)].map((found) => found[0]);
  const expected = ["5 s a measurement", "### engine", "7 s a measurement", "### postgres"];
  assert.equal(said, [...expected, "9 s a measurement", "### nbd"]);
  assert.is([...page.matchAll(/2 cores of/g)].length, 1);
  const files = ["engine", "nbd", "postgres"].map((name) => `${name}.svg`);
  assert.equal(
    readdirSync(join(docs, "performance")).sort(),
    [...files, ...[1, 2, 3].map((index) => `results-${index}.json`)].sort(),
  );
});

test("a file that is no result, or another format's, is refused by name", () => {
  const path = join(folder, "wrong.json");
  const refuses = (text: string, message: RegExp): void => {
    writeFileSync(path, text);
    assert.throws(() => readResults(path), message);
  };
  refuses("not json", /wrong\.json cannot be read as results/);
  refuses("[]", /wrong\.json has no results/);
  refuses('{"format": 99}', /wrong\.json has format 99; this program reads 1/);
  refuses(writeResults(published()).slice(0, 100), /cannot be read/);
});

test.run();

function published(): Results {
  return results([table([90, 100, 110], [0.9, 1, 1.1])]);
}

function publishInto(docs: string, page: string): void {
  mkdirSync(docs, { recursive: true });
  writeFileSync(join(docs, "performance.md"), page);
  publish(published(), docs);
}
