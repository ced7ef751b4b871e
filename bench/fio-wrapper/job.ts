// Job options, and the text of fio's job file that they mean.
//
// Sizes are bytes and times milliseconds here; fio's suffixes and their kilo-or-kibi switch are
// left alone. Each job is a reporting group of its own, so there is exactly one result per job,
// however many clones of it run. Jobs are threads: ending fio ends them all.
//
// What has no field here can be said in `settings`, in fio's own words; what has one cannot, so
// that no job says two things at once.
import { resolve } from "node:path";
import { FioError } from "./error.js";
import { PERCENTILES } from "./result.js";

export type Pattern =
  | "read"
  | "write"
  | "readwrite"
  | "randread"
  | "randwrite"
  | "randrw"
  | "trim"
  | "randtrim";

export interface FileTarget {
  engine: "io_uring" | "libaio" | "psync";
  /** A file, created if there is none, or a block device. */
  path: string;
  /** O_DIRECT; default false. */
  direct?: boolean;
}

export interface NbdTarget {
  engine: "nbd";
  /** nbd+unix:///EXPORT?socket=PATH */
  uri: string;
}

export interface FioJob {
  /** Unique in a run; what its result is called. */
  name: string;
  target: FileTarget | NbdTarget;
  pattern: Pattern;
  blockBytes: number;
  /** Requests in flight per clone; default 1. */
  depth?: number;
  /** Clones of the job that run at the same time; default 1. */
  clones?: number;
  sizeBytes: number;
  offsetBytes?: number;
  /** Without it each byte of the size is covered once. */
  durationMs?: number;
  /** Time before the measurement begins; only with a duration. */
  rampMs?: number;
  /** How much a duration-less job transfers instead of its size. */
  ioBytes?: number;
  /** Of the mixed patterns; default 50. */
  readPercent?: number;
  /** A flush after so many writes. */
  flushEvery?: number;
  /** A flush when the job ends. */
  flushAtEnd?: boolean;
  /** No more than so many requests a second, per clone. */
  rateIops?: number;
  /** Random requests may come to the same block twice before others came once: less memory. */
  repeatBlocks?: boolean;
  seed?: number;
  /**
   * Write checksums, and read and check them afterwards; or, where the pattern reads, check those
   * that an earlier job wrote. The first wrong one ends the job.
   */
  verify?: boolean;
  /** Starts when the jobs before it have ended, instead of together with them. */
  afterOthers?: boolean;
  /** The result says what happened in each interval of this length. */
  sampleEveryMs?: number;
  /** More of fio's options, by its names for them. */
  settings?: Readonly<Record<string, string | number>>;
}

const JOB_NAME = /^[\w.-]{1,64}$/;
const SETTING_NAME = /^[a-z][a-z0-9_]{0,63}$/;
/** Options of the whole file, and others that would change what the results mean. */
const RESERVED = new Set([
  "thread",
  "numjobs",
  "group_reporting",
  "percentile_list",
  "lat_percentiles",
  "clat_percentiles",
  "slat_percentiles",
  "per_job_logs",
  "write_lat_log",
  "write_iops_log",
  "log_avg_msec",
  "log_max_value",
  "filename",
  "uri",
  "direct",
]);

/** Throws FioError (`options`). */
export function jobFile(jobs: readonly FioJob[]): string {
  if (jobs.length === 0) throw new FioError("options", "no job to run");
  const names = new Set(jobs.map((job) => job.name));
  if (names.size < jobs.length) throw new FioError("options", "two jobs have the same name");
  const global = [
    "[global]",
    "thread=1",
    "group_reporting=1",
    `percentile_list=${PERCENTILES.join(":")}`,
    "lat_percentiles=1",
    "clat_percentiles=0",
    "per_job_logs=0",
  ];
  return `${[global.join("\n"), ...jobs.map(section)].join("\n\n")}\n`;
}

function section(job: FioJob): string {
  if (!JOB_NAME.test(job.name)) {
    throw new FioError("options", `job name ${JSON.stringify(job.name)}: letters, digits, . _ -`);
  }
  if (job.rampMs !== undefined && job.durationMs === undefined) {
    throw new FioError("options", `job ${job.name}: rampMs needs durationMs`);
  }
  const count = (field: keyof FioJob & string, least = 1): string | null => {
    const value = job[field];
    if (value === undefined) return null;
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= least) {
      return `${value}`;
    }
    throw new FioError("options", `job ${job.name}: ${field} is ${value}, not a whole number`);
  };
  const readPercent = count("readPercent", 0);
  if (Number(readPercent) > 100) {
    throw new FioError("options", `job ${job.name}: readPercent is more than 100`);
  }
  const durationMs = count("durationMs");
  const rampMs = count("rampMs", 0);
  const settings: [string, string | null][] = [
    ["stonewall", job.afterOthers === true ? "1" : null],
    ["new_group", "1"],
    ...target(job),
    ["rw", job.pattern],
    ["bs", count("blockBytes")],
    ["iodepth", count("depth")],
    ["numjobs", count("clones")],
    ["size", count("sizeBytes")],
    ["offset", count("offsetBytes", 0)],
    ["io_size", count("ioBytes")],
    ["time_based", durationMs === null ? null : "1"],
    ["runtime", durationMs === null ? null : `${durationMs}ms`],
    ["ramp_time", rampMs === null ? null : `${rampMs}ms`],
    ["rwmixread", readPercent],
    ["fsync", count("flushEvery")],
    ["end_fsync", job.flushAtEnd === true ? "1" : null],
    ["rate_iops", count("rateIops")],
    ["norandommap", job.repeatBlocks === true ? "1" : null],
    ["randseed", count("seed", 0)],
    ["verify", job.verify === true ? "crc32c" : null],
    ["verify_fatal", job.verify === true ? "1" : null],
    ...samples(job, count("sampleEveryMs")),
  ];
  settings.push(...otherSettings(job, new Set(settings.map(([key]) => key))));
  const lines = settings.flatMap(([key, value]) => (value === null ? [] : [`${key}=${value}`]));
  return [`[${job.name}]`, ...lines].join("\n");
}

function target(job: FioJob): [string, string | null][] {
  const { target } = job;
  if (target.engine === "nbd") {
    return [
      ["ioengine", "nbd"],
      ["uri", plain(job, target.uri)],
    ];
  }
  // Absolute, since fio runs in a folder of its own. A colon would separate two files.
  const path = plain(job, resolve(target.path)).replaceAll(":", "\\:");
  return [
    ["ioengine", target.engine],
    ["filename", path],
    ["direct", target.direct === true ? "1" : "0"],
  ];
}

/** Averages hide a stall, so latencies are each interval's longest; rates are averages anyhow. */
function samples(job: FioJob, intervalMs: string | null): [string, string | null][] {
  return [
    ["write_iops_log", intervalMs === null ? null : job.name],
    ["write_lat_log", intervalMs === null ? null : job.name],
    ["log_avg_msec", intervalMs],
    ["log_max_value", intervalMs === null ? null : "1"],
  ];
}

function otherSettings(job: FioJob, taken: ReadonlySet<string>): [string, string][] {
  return Object.entries(job.settings ?? {}).map(([key, value]) => {
    if (!SETTING_NAME.test(key)) {
      throw new FioError("options", `job ${job.name}: ${JSON.stringify(key)} is no option of fio`);
    }
    if (taken.has(key) || RESERVED.has(key)) {
      const why = "is not for settings: the wrapper sets it";
      throw new FioError("options", `job ${job.name}: ${key} ${why}`);
    }
    return [key, plain(job, `${value}`)];
  });
}

/** fio has no quoting for what a line of its file cannot hold, and expands `${…}` and `$…`. */
function plain(job: FioJob, value: string): string {
  if (value === "" || value !== value.trim() || /[\p{Cc}$\\"]/u.test(value)) {
    throw new FioError("options", `job ${job.name}: fio cannot take ${JSON.stringify(value)}`);
  }
  return value;
}
