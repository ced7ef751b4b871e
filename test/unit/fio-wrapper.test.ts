// The fio wrapper against the real fio, with jobs of a fraction of a second, and against programs
// that only claim to be fio.
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  FioError,
  type FioErrorKind,
  type FioJob,
  jobFile,
  PERCENTILES,
  parseResult,
  runFio,
} from "../../bench/fio-wrapper/index.js";
import { needsCommands, testUnless } from "../support/skip.js";

const folder = mkdtempSync(join(tmpdir(), "fio-test-"));
const path = join(folder, "data");
const withFio = testUnless(needsCommands("fio"), test);

const job: FioJob = {
  name: "job",
  target: { engine: "psync", path },
  pattern: "randwrite",
  blockBytes: 4096,
  sizeBytes: 1 << 20,
};

test.after(() => rmSync(folder, { recursive: true }));

async function refusal(run: () => unknown, kind: FioErrorKind, message: RegExp): Promise<FioError> {
  try {
    await run();
  } catch (error) {
    assert.instance(error, FioError);
    const refused = error as FioError;
    assert.is(refused.kind, kind, refused.message);
    assert.match(refused.message, message);
    return refused;
  }
  throw new Error(`expected an error: ${message}`);
}

test("a job file says everything, and nothing twice", () => {
  const text = jobFile([
    { ...job, seed: 7, verify: true, depth: 4, clones: 2, offsetBytes: 0 },
    {
      name: "mixed",
      target: { engine: "nbd", uri: "nbd+unix:///volume?socket=/run/a.sock" },
      pattern: "randrw",
      blockBytes: 8192,
      sizeBytes: 65536,
      durationMs: 1500,
      rampMs: 200,
      readPercent: 70,
      flushEvery: 32,
      ioBytes: 4096,
      afterOthers: true,
    },
    { ...job, name: "odd", target: { engine: "io_uring", path: "/a:b c#d", direct: true } },
  ]);
  assert.is(
    text,
    `[global]
thread=1
group_reporting=1
percentile_list=50:90:95:99:99.9:99.99
lat_percentiles=1
clat_percentiles=0
per_job_logs=0

[job]
new_group=1
ioengine=psync
filename=${path}
direct=0
rw=randwrite
bs=4096
iodepth=4
numjobs=2
size=1048576
offset=0
randseed=7
verify=crc32c
verify_fatal=1

[mixed]
stonewall=1
new_group=1
ioengine=nbd
uri=nbd+unix:///volume?socket=/run/a.sock
rw=randrw
bs=8192
size=65536
io_size=4096
time_based=1
runtime=1500ms
ramp_time=200ms
rwmixread=70
fsync=32

[odd]
new_group=1
ioengine=io_uring
filename=/a\\:b c#d
direct=1
rw=randwrite
bs=4096
size=1048576
`,
  );
});

test("options that fio would misread are refused before it runs", async () => {
  const refused = (change: Partial<FioJob>, message: RegExp): Promise<FioError> =>
    refusal(() => runFio([{ ...job, ...change }]), "options", message);
  await refused({ name: "a]b" }, /job name "a\]b"/);
  await refused({ name: "" }, /job name/);
  await refused({ blockBytes: 0 }, /job job: blockBytes is 0/);
  await refused({ sizeBytes: 1.5 }, /sizeBytes is 1.5/);
  await refused({ sizeBytes: Number.NaN }, /sizeBytes is NaN/);
  await refused({ depth: -1 }, /depth is -1/);
  await refused({ readPercent: 101 }, /readPercent is more than 100/);
  await refused({ rampMs: 5 }, /rampMs needs durationMs/);
  for (const wrong of ["/a\nioengine=null", "/a$b", "/a ", "/a\\b"]) {
    await refused({ target: { engine: "psync", path: wrong } }, /fio cannot take/);
  }
  await refused({ target: { engine: "nbd", uri: "" } }, /fio cannot take ""/);
  await refusal(() => runFio([]), "options", /no job/);
  await refusal(() => runFio([job, job]), "options", /same name/);
});

withFio("results are what fio did", async () => {
  const { version, jobs } = await runFio([
    { ...job, name: "fill", pattern: "write", blockBytes: 65536, flushEvery: 4 },
    { ...job, name: "read", pattern: "randread", clones: 2, afterOthers: true },
    { ...job, name: "same-time", pattern: "randread", blockBytes: 8192 },
  ]);
  assert.match(version, /^fio-\d/);
  assert.equal(
    jobs.map(({ name }) => name),
    ["fill", "read", "same-time"],
  );
  const [fill, read, sameTime] = jobs;
  assert.ok(fill !== undefined && read !== undefined && sameTime !== undefined);
  assert.is(fill.write.ios, 16);
  assert.is(fill.write.bytes, 1 << 20);
  assert.is(fill.read.ios, 0);
  assert.is(fill.read.latency.percentilesUs[99], 0);
  assert.ok(fill.flush.count >= 3 && fill.flush.meanUs > 0);
  assert.is(read.read.ios, 512, "both clones in one result");
  assert.is(sameTime.read.ios, 128, "and no other job in it");
  const { latency } = read.read;
  assert.is(latency.count, 512);
  assert.ok(read.read.iops > 0 && read.read.bytesPerSecond > 0);
  assert.ok(latency.minUs > 0 && latency.minUs <= latency.meanUs);
  assert.ok(latency.meanUs <= latency.maxUs);
  const rising = PERCENTILES.map((percentile) => latency.percentilesUs[percentile]);
  assert.equal(
    rising,
    [...rising].sort((a, b) => a - b),
  );
  assert.ok(rising.every((us) => us > 0 && us <= latency.maxUs * 1.05));
});

withFio("a duration ends a job", async () => {
  const { jobs } = await runFio([{ ...job, pattern: "randrw", readPercent: 80, durationMs: 300 }]);
  const result = jobs[0];
  assert.ok(result !== undefined);
  const ran = Math.max(result.read.runtimeMs, result.write.runtimeMs);
  assert.ok(ran >= 250 && ran < 5000, `${ran} ms`);
  assert.ok(result.read.ios > result.write.ios && result.write.ios > 0);
});

withFio("data that is not what was written is an error that says so", async () => {
  await runFio([{ ...job, verify: true, seed: 3 }]);
  await runFio([{ ...job, pattern: "randread", verify: true, seed: 3 }]);
  const file = openSync(path, "r+");
  writeSync(file, Buffer.alloc(4096, 0xee), 0, 4096, 8192);
  closeSync(file);
  const wrong = (): unknown => runFio([{ ...job, pattern: "randread", verify: true, seed: 3 }]);
  await refusal(wrong, "failed", /verify: bad/);
});

withFio("fio's own words reach the error", async () => {
  const socket = join(folder, "none.sock");
  const uri = `nbd+unix:///volume?socket=${socket}`;
  const unreachable = (): unknown =>
    runFio([{ ...job, pattern: "read", target: { engine: "nbd", uri } }]);
  await refusal(unreachable, "failed", /exit code 1.*No such file or directory/s);
  const below = join(path, "below-a-file");
  const unopened = (): unknown => runFio([{ ...job, target: { engine: "psync", path: below } }]);
  await refusal(unopened, "failed", /error=Not a directory/);
});

withFio("an abort ends fio and leaves nothing behind", async () => {
  const started = Date.now();
  const reason = new Error("enough");
  const abort = new AbortController();
  const before = leftovers();
  setTimeout(() => abort.abort(reason), 300);
  await runFio([{ ...job, durationMs: 60_000 }], { signal: abort.signal }).then(
    () => assert.unreachable("it was aborted"),
    (error) => assert.is(error, reason),
  );
  assert.ok(Date.now() - started < 20_000);
  assert.equal(leftovers(), before);
  // The file that it wrote to rests.
  const { mtimeMs } = statSync(path);
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.is(statSync(path).mtimeMs, mtimeMs);
});

test("an abort before the start starts nothing", async () => {
  const reason = new Error("never mind");
  await runFio([job], { signal: AbortSignal.abort(reason), program: "/no/such/fio" }).then(
    () => assert.unreachable("it was aborted"),
    (error) => assert.is(error, reason),
  );
});

test("a program that is missing or is not fio", async () => {
  const program = join(folder, "not-fio");
  const ends = (script: string, kind: FioErrorKind, message: RegExp): Promise<FioError> => {
    writeFileSync(program, `#!/bin/sh\nout=\${1#--output=}\n${script}\n`);
    chmodSync(program, 0o755);
    return refusal(() => runFio([job], { program }), kind, message);
  };
  const missing = (): unknown => runFio([job], { program: join(folder, "no-fio") });
  await refusal(missing, "missing", /cannot run .*no-fio: it is not installed/);
  await ends("exit 0", "output", /wrote no result/);
  await ends("echo hello > $out", "output", /wrote no JSON result/);
  await ends(
    'echo \'{"fio version": "fio-9", "timestamp_ms": 1}\' > $out',
    "output",
    /result has no "jobs"/,
  );
  const none = `echo '{"fio version": "fio-9", "timestamp_ms": 1, "jobs": []}' > $out`;
  await ends(none, "output", /results of no job/);
  const twice = await ends("echo bad disk >&2; echo bad disk >&2; exit 3", "failed", /exit code 3/);
  assert.is(twice.message, "fio failed (exit code 3)\n  bad disk");
  await ends("kill -KILL $$", "failed", /killed by SIGKILL/);
});

test("a result is checked field by field", async () => {
  const lane = {
    total_ios: 2,
    io_bytes: 8192,
    iops: 2,
    bw_bytes: 8192,
    runtime: 1000,
    lat_ns: {
      min: 1000,
      max: 3000,
      mean: 2000,
      N: 2,
      percentile: Object.fromEntries(PERCENTILES.map((each) => [each.toFixed(6), each * 10])),
    },
  };
  const idle = { ...lane, total_ios: 0, lat_ns: { min: 0, max: 0, mean: 0, N: 0 } };
  const entry = {
    jobname: "job",
    error: 0,
    read: lane,
    write: idle,
    trim: idle,
    sync: { lat_ns: { min: 0, max: 0, mean: 0, N: 0 } },
    usr_cpu: 1.5,
    sys_cpu: 2.5,
  };
  const text = (change: object): string =>
    JSON.stringify({
      "fio version": "fio-9",
      timestamp_ms: 12,
      jobs: [{ ...entry, ...change }],
    });

  const { jobs } = parseResult(`note: both engines are slow\n${text({})}`);
  const result = jobs[0];
  assert.ok(result !== undefined);
  assert.is(result.read.latency.percentilesUs[99.9], 0.999);
  assert.is(result.read.latency.maxUs, 3);
  assert.is(result.write.latency.percentilesUs[50], 0);
  assert.is(result.systemCpuPercent, 2.5);

  const wrong = (change: object, kind: FioErrorKind, message: RegExp): Promise<FioError> =>
    refusal(() => parseResult(text(change)), kind, message);
  await wrong({ error: 28 }, "failed", /job job ended with error 28/);
  await wrong({ usr_cpu: "much" }, "output", /result\.jobs\[0\]\.usr_cpu is not a number/);
  await wrong({ sys_cpu: -1 }, "output", /sys_cpu is not a number/);
  await wrong({ jobname: 5 }, "output", /jobname is not a text/);
  await wrong({ read: { ...lane, iops: null } }, "output", /read\.iops is not a number/);
  const percentile = { "50.000000": 1 };
  const few = { ...lane, lat_ns: { ...lane.lat_ns, percentile } };
  await wrong({ read: few }, "output", /lat_ns\.percentile has no "90\.000000"/);
  await refusal(() => parseResult('{"jobs": 5}'), "output", /has no "fio version"/);
});

test.run();

function leftovers(): { folders: string[]; processes: string } {
  return {
    folders: readdirSync(tmpdir()).filter((name) => name.startsWith("fio-wrapper-")),
    processes: spawnSync("pgrep", ["-P", `${process.pid}`, "-x", "fio"], { encoding: "utf8" })
      .stdout,
  };
}
