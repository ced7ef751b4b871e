// Every suite of `npm run bench` from end to end, as its users run it: small, and for what it says,
// not for its figures.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { generatedText } from "../../bench/publish.js";
import { readResults } from "../../bench/results.js";
import { needsCommands, skip } from "../support/skip.js";

const missing = needsCommands(
  ...["fio", "qemu-storage-daemon", "qemu-img", "mkfs.xfs", "mkfs.btrfs", "losetup"],
);
if (missing !== null) skip(missing);

const MAIN = fileURLToPath(new URL("../../bench/main.js", import.meta.url));
const TIMEOUT_MS = 300_000;
const folder = mkdtempSync(join(tmpdir(), "bench-system-test-"));
test.after(() => rmSync(folder, { recursive: true }));

function bench(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [MAIN, ...args], { encoding: "utf8", timeout: TIMEOUT_MS });
}

for (const { suite, columns } of [
  { suite: "engine", columns: ["raw file", "engine"] },
  { suite: "nbd", columns: ["qemu, raw", "qemu, qcow2", "pando"] },
]) {
  test(`the suite ${suite} measures all of its subjects and leaves nothing behind`, () => {
    const out = join(folder, `${suite}.json`);
    const dir = join(folder, "files");
    const small = ["--size", "32MiB", "--seconds", "0.1", "--rounds", "1"];
    const run = bench(suite, ...small, "--dir", dir, "--out", out);
    assert.is(run.status, 0, run.stderr);
    assert.equal(readdirSync(dir), []);
    const results = readResults(out);
    const table = results.suites[0]?.tables[0];
    assert.equal([...new Set(table?.cells.map(({ column }) => column))], columns);
    for (const { row, column, samples } of table?.cells ?? []) {
      const [iops = [], p50 = [], p99 = [], cpu = []] = samples;
      assert.ok(iops.length === 1 && iops.every((value) => value > 0), `${row}, ${column}: IOPS`);
      assert.ok(
        p50.every((us, round) => us > 0 && us <= (p99[round] ?? 0)),
        `${row}: latency`,
      );
      assert.ok(
        cpu.every((us) => us >= 0),
        `${row}: CPU`,
      );
    }
    for (const { lines, id } of results.suites.flatMap(({ plots }) => plots)) {
      assert.ok(
        lines.every(({ points }) => points.length > 0 && points.every(([, y]) => y > 0)),
        id,
      );
    }
    assert.ok(run.stdout.startsWith(generatedText([results]).slice(0, 200)));
    assert.is(bench("compare", out, out).status, 0);
  });
}

for (const { suite, ids } of [
  { suite: "target", ids: ["target-device", "target-memory"] },
  { suite: "scale", ids: ["scale"] },
  { suite: "idle", ids: ["idle"] },
  { suite: "stalls", ids: ["stalls"] },
  { suite: "streams", ids: ["streams"] },
]) {
  test(`the suite ${suite} gives a figure for everything that it names`, () => {
    const out = join(folder, `${suite}.json`);
    const dir = join(folder, "files");
    const small = ["--size", "32MiB", "--seconds", "0.1", "--rounds", "1", "--idle-seconds", "0.1"];
    const run = bench(suite, ...small, "--dir", dir, "--out", out);
    assert.is(run.status, 0, run.stderr);
    assert.equal(readdirSync(dir), []);
    const tables = readResults(out).suites[0]?.tables ?? [];
    assert.equal(
      tables.map(({ id }) => id),
      ids,
    );
    for (const { cells } of tables) {
      assert.ok(cells.length > 0);
      for (const { row, samples } of cells) {
        assert.ok(
          samples.flat().every((value) => Number.isFinite(value) && value >= 0),
          row,
        );
      }
    }
  });
}

test("the suite branch takes every subject through every step", () => {
  const out = join(folder, "branch.json");
  const dir = join(folder, "files");
  // Long enough that a disk which stalls for half a second still answers.
  const small = ["--size", "32MiB", "--seconds", "0.5", "--rounds", "1"];
  const run = bench("branch", ...small, "--dir", dir, "--out", out);
  assert.is(run.status, 0, run.stderr);
  assert.equal(readdirSync(dir), []);
  const suite = readResults(out).suites[0];
  assert.ok(suite !== undefined);
  const reflinks = process.getuid?.() === 0 ? ["xfs reflink", "btrfs reflink"] : [];
  const here = reflinks.filter((name) => !suite.absent.some((why) => why.startsWith(name)));
  const subjects = ["pando", "qcow2", ...here];
  const ids = ["branch-calls", "branch-stalls", "branch-writes", "branch-scale"];
  assert.equal(
    suite.tables.map(({ id }) => id),
    ids,
  );
  for (const { id, cells } of suite.tables) {
    const columns = [...new Set(cells.map(({ column }) => column))];
    assert.equal(columns, id === "branch-scale" ? ["500 clones"] : subjects);
    // Idle CPU may be nothing; nothing else may.
    const measured = cells.filter(({ row }) => !row.startsWith("CPU"));
    const nothing = measured.filter(({ samples }) => !samples.flat().every((value) => value > 0));
    assert.equal(nothing, [], id);
  }
  for (const { id, lines, marks } of suite.plots) {
    assert.equal(
      lines.map(({ name }) => name),
      subjects,
    );
    assert.ok(
      lines.every(({ points }) => points.length > 1),
      id,
    );
    assert.is(marks.length, id === "branch-stalls" ? 2 : 0);
  }
});

test("what cannot be run is refused in one line", () => {
  for (const [args, message] of [
    [["no-such-suite"], /^error: .*no-such-suite/s],
    [["engine", "--size", "1MiB"], /^error: --size 1 MiB: whole MiB, at least 32/],
    [["engine", "--seconds", "0"], /^error: --seconds 0: 0\.1 to 3600\n$/],
    [["engine", "--rounds", "1.5"], /^error: --rounds 1\.5: a whole number/],
    [["target", "--spdk", "/bin/true"], /^error: --spdk \/bin\/true: no nvmf_tgt of SPDK\n$/],
    [["compare", join(folder, "none.json"), "b"], /^error: .*none\.json cannot be read/],
  ] as [string[], RegExp][]) {
    const run = bench(...args);
    assert.is(run.status, 1);
    assert.match(run.stderr, message);
  }
});

test.run();
