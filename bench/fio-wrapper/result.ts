// fio's JSON, checked field by field: what comes out is complete and has the right types, or an
// error names the first field that does not.
import { FioError } from "./error.js";

/** The percentiles that are asked for, and so present wherever something was measured. */
export const PERCENTILES = [50, 90, 95, 99, 99.9, 99.99] as const;
export type Percentile = (typeof PERCENTILES)[number];

export interface FioLatency {
  count: number;
  minUs: number;
  meanUs: number;
  maxUs: number;
  /** All 0 if nothing was measured. */
  percentilesUs: Record<Percentile, number>;
}

/** One direction of a job. */
export interface FioLane {
  ios: number;
  bytes: number;
  iops: number;
  bytesPerSecond: number;
  runtimeMs: number;
  /**
   * fio's lat: from the beginning of the request's submission to its completion. Without the
   * submission (clat) a request that the kernel completes inside it would take no time at all.
   */
  latency: FioLatency;
}

/** What happened in one interval, if the job asked for samples. */
export interface FioSample {
  /** Of the interval's end, from the job's start. */
  timeMs: number;
  iops: number;
  maxLatencyUs: number;
}

export interface FioJobResult {
  name: string;
  read: FioLane;
  write: FioLane;
  trim: FioLane;
  /** The flushes that `flushEvery` asked for. */
  flush: FioLatency;
  userCpuPercent: number;
  systemCpuPercent: number;
  /** By time; empty unless the job asked with `sampleEveryMs`. All directions together. */
  samples: FioSample[];
}

export interface FioResult {
  version: string;
  /** Milliseconds since 1970, by fio's clock: about when the last job ended. */
  endedAtMs: number;
  jobs: FioJobResult[];
}

/** Throws FioError: `failed` if a job ended with an error, `output` if the text is no result. */
export function parseResult(text: string): FioResult {
  const root = new Field(parseJson(text), "result");
  return {
    version: root.get("fio version").string(),
    endedAtMs: root.get("timestamp_ms").number(),
    jobs: root.get("jobs").array().map(jobResult),
  };
}

/** Warnings come before the object, on lines of their own. */
function parseJson(text: string): unknown {
  const start = text.startsWith("{") ? 0 : text.indexOf("\n{") + 1;
  try {
    return JSON.parse(text.slice(start));
  } catch (cause) {
    throw new FioError("output", "fio wrote no JSON result", { cause });
  }
}

function jobResult(job: Field): FioJobResult {
  const name = job.get("jobname").string();
  const error = job.get("error").number();
  if (error !== 0) throw new FioError("failed", `fio job ${name} ended with error ${error}`);
  return {
    name,
    read: lane(job.get("read")),
    write: lane(job.get("write")),
    trim: lane(job.get("trim")),
    flush: latency(job.get("sync").get("lat_ns")),
    userCpuPercent: job.get("usr_cpu").number(),
    systemCpuPercent: job.get("sys_cpu").number(),
    samples: [],
  };
}

function lane(field: Field): FioLane {
  return {
    ios: field.get("total_ios").number(),
    bytes: field.get("io_bytes").number(),
    iops: field.get("iops").number(),
    bytesPerSecond: field.get("bw_bytes").number(),
    runtimeMs: field.get("runtime").number(),
    latency: latency(field.get("lat_ns")),
  };
}

function latency(field: Field): FioLatency {
  const us = (key: string): number => field.get(key).number() / 1000;
  const count = field.get("N").number();
  const percentilesUs = Object.fromEntries(
    PERCENTILES.map((percentile) => {
      if (count === 0) return [percentile, 0];
      const ns = field.get("percentile").get(percentile.toFixed(6)).number();
      return [percentile, ns / 1000];
    }),
  ) as Record<Percentile, number>;
  return { count, minUs: us("min"), meanUs: us("mean"), maxUs: us("max"), percentilesUs };
}

/** A value of the JSON with the path to it, for errors. */
class Field {
  constructor(
    private readonly value: unknown,
    private readonly path: string,
  ) {}

  get(key: string): Field {
    const { value } = this;
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) {
      throw new FioError("output", `fio's ${this.path} has no "${key}"`);
    }
    return new Field((value as Record<string, unknown>)[key], `${this.path}.${key}`);
  }

  number(): number {
    if (typeof this.value === "number" && this.value >= 0) return this.value;
    throw this.wrong("a number from 0 up");
  }

  string(): string {
    if (typeof this.value === "string") return this.value;
    throw this.wrong("a text");
  }

  array(): Field[] {
    if (!Array.isArray(this.value)) throw this.wrong("a list");
    return this.value.map((value, index) => new Field(value, `${this.path}[${index}]`));
  }

  private wrong(expected: string): FioError {
    return new FioError("output", `fio's ${this.path} is not ${expected}`);
  }
}
