// fio's logs of a job: what happened in each interval of its time.
//
// A log has a line per interval, direction and clone: `milliseconds, value, direction, …`. Rates of
// one interval add up; of latencies, which the job file asks for as maxima, the longest counts.
import { FioError } from "./error.js";
import type { FioSample } from "./result.js";

export interface SampleLogs {
  iops: string;
  /** Nanoseconds. */
  latency: string;
}

/** Throws FioError (`output`). */
export function parseSamples(logs: SampleLogs, intervalMs: number): FioSample[] {
  const byInterval = new Map<number, FioSample>();
  const sampleAt = (timeMs: number): FioSample => {
    // fio's clock ticks a little late: the interval that ended last.
    const interval = Math.max(1, Math.round(timeMs / intervalMs));
    let sample = byInterval.get(interval);
    if (sample === undefined) {
      sample = { timeMs: interval * intervalMs, iops: 0, maxLatencyUs: 0 };
      byInterval.set(interval, sample);
    }
    return sample;
  };
  for (const { timeMs, value } of parseLog(logs.iops)) sampleAt(timeMs).iops += value;
  for (const { timeMs, value } of parseLog(logs.latency)) {
    const sample = sampleAt(timeMs);
    sample.maxLatencyUs = Math.max(sample.maxLatencyUs, value / 1000);
  }
  return [...byInterval.values()].sort((a, b) => a.timeMs - b.timeMs);
}

function parseLog(text: string): { timeMs: number; value: number }[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [timeMs, value] = line.split(",").map((field) => Number(field.trim()));
      if (Number.isFinite(timeMs) && Number.isFinite(value)) {
        return { timeMs: timeMs as number, value: value as number };
      }
      throw new FioError("output", `fio logged ${JSON.stringify(line)}`);
    });
}
