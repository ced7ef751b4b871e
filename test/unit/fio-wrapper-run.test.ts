// What a run of the fio wrapper gives beside its result: samples over time, progress, the files
// that it worked with; and what `settings` takes.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  describeProgress,
  type FioJob,
  type FioProgress,
  jobFile,
  parseProgress,
  runFio,
  terminalProgress,
} from "../../bench/fio-wrapper/index.js";
import { parseSamples } from "../../bench/fio-wrapper/samples.js";
import { needsCommands, testUnless } from "../support/skip.js";

const folder = mkdtempSync(join(tmpdir(), "fio-run-test-"));
const withFio = testUnless(needsCommands("fio"), test);

const job: FioJob = {
  name: "job",
  target: { engine: "psync", path: join(folder, "data") },
  pattern: "randwrite",
  blockBytes: 4096,
  sizeBytes: 1 << 20,
};

test.after(() => rmSync(folder, { recursive: true }));

withFio("samples cover the time of the job", async () => {
  const sampled = { ...job, durationMs: 1000, rateIops: 2000, clones: 2, sampleEveryMs: 100 };
  const { jobs } = await runFio([
    { ...job, name: "other" },
    { ...sampled, afterOthers: true },
  ]);
  assert.equal(jobs[0]?.samples, []);
  const samples = jobs[1]?.samples ?? [];
  assert.ok(samples.length >= 7 && samples.length <= 11, `${samples.length} samples`);
  assert.ok(samples.every(({ timeMs }, i) => timeMs > (samples[i - 1]?.timeMs ?? 0)));
  assert.ok(samples.every(({ timeMs }) => timeMs % 100 === 0 && timeMs <= 1200));
  const total = samples.reduce((sum, { iops }) => sum + iops, 0) / 10;
  const ios = jobs[1]?.write.ios ?? 0;
  assert.ok(total > ios * 0.5 && total < ios * 1.5, `${total} in samples, ${ios} in the result`);
  const longest = Math.max(...samples.map(({ maxLatencyUs }) => maxLatencyUs));
  assert.ok(longest > 0 && longest <= (jobs[1]?.write.latency.maxUs ?? 0) * 1.05);
});

test("samples of clones and directions come together by time", () => {
  const iops = "99, 10, 0, 4096, 0\n100, 20, 1, 4096, 0\n201, 40, 0, 4096, 0\n";
  const latency = "100, 9000, 0, 4096, 0\n100, 5000, 1, 4096, 0\n";
  assert.equal(parseSamples({ iops, latency }, 100), [
    { timeMs: 100, iops: 30, maxLatencyUs: 9 },
    { timeMs: 200, iops: 40, maxLatencyUs: 0 },
  ]);
  assert.throws(() => parseSamples({ iops: "much, 1\n", latency }, 100), /fio logged "much, 1"/);
});

withFio("fio says how far it is", async () => {
  const said: FioProgress[] = [];
  const seen = new Error("seen");
  const enough = new AbortController();
  const onProgress = (progress: FioProgress): void => {
    said.push(progress);
    if (progress.iops > 0) enough.abort(seen);
  };
  const long = { ...job, durationMs: 60_000, rateIops: 1000 };
  await runFio([long], { onProgress, signal: enough.signal }).then(
    () => assert.unreachable("it said nothing of its rate"),
    (error) => assert.is(error, seen),
  );
  assert.ok(said.every(({ percent }) => percent === null || (percent >= 0 && percent <= 100)));
});

test("a status line is read", () => {
  const bracket = "[r=3.5k,w=250 IOPS][eta 01h:02m:03s]";
  assert.equal(parseProgress(`Jobs: 2 (f=2): [m(2)][12.5%][r=14MiB/s,w=1MiB/s]${bracket}`), {
    percent: 12.5,
    iops: 3750,
    secondsLeft: 3723,
  });
  const early = { percent: null, iops: 0, secondsLeft: null };
  assert.equal(parseProgress("Jobs: 1 (f=1): [w(1)][-.-%][eta unknown]"), early);
  assert.equal(parseProgress("Jobs: 1 (f=1)"), early);
  assert.is(parseProgress("nbd: connected"), null);
  const told = describeProgress({ percent: 12.5, iops: 3750.4, secondsLeft: 3 });
  assert.is(told, "12 %, 3750 IOPS, 3 s left");
});

test("progress is one line of a terminal, and nothing elsewhere", () => {
  let written = "";
  const write = (text: string): boolean => {
    written += text;
    return true;
  };
  const stream = (isTTY: boolean) => ({ isTTY, columns: 40, write }) as never;
  const progress = { percent: 50, iops: 100, secondsLeft: 2 };
  const file = terminalProgress("load", stream(false));
  file.onProgress(progress);
  file.clear();
  assert.is(written, "");
  const terminal = terminalProgress("load", stream(true));
  terminal.onProgress(progress);
  terminal.clear();
  assert.is(written, "\r\x1b[Kload: 50 %, 100 IOPS, 2 s left\r\x1b[K");
});

withFio("the files of a run are kept where the caller says, even if it fails", async () => {
  const keepIn = join(folder, "kept");
  await runFio([job], { keepIn });
  assert.is(readFileSync(join(keepIn, "jobs.fio"), "utf8"), jobFile([job]));
  const byHand = spawnSync("fio", [join(keepIn, "jobs.fio")], { cwd: keepIn, encoding: "utf8" });
  assert.is(byHand.status, 0, byHand.stderr);
  assert.ok(JSON.parse(readFileSync(join(keepIn, "result.json"), "utf8")).jobs.length === 1);

  const wrong = { ...job, target: { engine: "psync", path: "/dev/null/no" } } as const;
  await runFio([wrong], { keepIn }).then(
    () => assert.unreachable("it must fail"),
    (error) => assert.is(error.kind, "failed"),
  );
  assert.is(readFileSync(join(keepIn, "jobs.fio"), "utf8"), jobFile([wrong]));
});

test("a result of an earlier run is not taken for this one's", async () => {
  const keepIn = join(folder, "stale");
  const silent = join(folder, "silent-fio");
  writeFileSync(silent, "#!/bin/sh\nexit 0\n", { mode: 0o755 });
  await runFio([job], { keepIn, program: "true" }).catch(() => {});
  writeFileSync(join(keepIn, "result.json"), '{"fio version": "fio-3", "jobs": []}');
  await runFio([job], { keepIn, program: silent }).then(
    () => assert.unreachable("it must fail"),
    (error) => assert.match(error.message, /fio wrote no result/),
  );
  assert.not(existsSync(join(keepIn, "result.json")));
});

test("settings say what has no field, and nothing else", () => {
  const text = jobFile([
    { ...job, repeatBlocks: true, flushAtEnd: true, settings: { random_distribution: "zipf:1.2" } },
  ]);
  assert.match(text, /\nend_fsync=1\nnorandommap=1\nrandom_distribution=zipf:1\.2\n/);
  const refused = (settings: Record<string, string>, message: RegExp): void => {
    assert.throws(
      () => jobFile([{ ...job, settings }]),
      (error: Error & { kind?: string }) => error.kind === "options" && message.test(error.message),
    );
  };
  for (const taken of ["bs", "rw", "fsync", "uri", "numjobs", "write_lat_log", "percentile_list"]) {
    refused({ [taken]: "1" }, /job job: \w+ is not for settings/);
  }
  refused({ "a b": "1" }, /"a b" is no option of fio/);
  refused({ ioscheduler: "none\nexec_prerun=reboot" }, /fio cannot take/);
});

test.run();
