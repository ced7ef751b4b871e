// The loads of the suites, as one description for every generator, and what each of them gives.
import { formatSize } from "../engine/base/size.js";
import { LOAD_PATTERN, type LoadResult, native } from "../native/native.js";
import {
  type FileTarget,
  type FioJob,
  type FioJobResult,
  type FioSample,
  type NbdTarget,
  runFio,
} from "./fio-wrapper/index.js";

export interface Workload {
  pattern: "read" | "write" | "randread" | "randwrite";
  blockBytes: number;
  depth: number;
}

/** What one measurement gives; microseconds. */
export interface Figures {
  ops: number;
  iops: number;
  p50Us: number;
  p99Us: number;
  /** CPU time of the client and, in an engine inside this process, of the engine. */
  cpuSeconds: number;
}

const NAMES = {
  read: "sequential read",
  write: "sequential write",
  randread: "random read",
  randwrite: "random write",
} as const;

export const FILL: Workload = { pattern: "write", blockBytes: 128 * 1024, depth: 8 };

export function workloadName({ pattern, blockBytes, depth }: Workload): string {
  return `${NAMES[pattern]} ${formatSize(blockBytes)}, depth ${depth}`;
}

/** An open volume of a pool in this process. */
export interface EngineTarget {
  /** The addon's handle. */
  pool: number;
  volume: number;
}

/** `durationMs` null: each byte once. */
export async function runEngine(
  target: EngineTarget,
  workload: Workload,
  limits: { regionBytes: number; durationMs: number | null; seed: number },
): Promise<Figures> {
  const before = process.cpuUsage();
  const result = await engineLoad(target, { ...workload, readPercent: 0 }, limits);
  const cpu = process.cpuUsage(before);
  return engineFigures(result, (cpu.user + cpu.system) / 1e6);
}

/** Reads and writes together, each with its own latencies. */
export async function runEngineMix(
  target: EngineTarget,
  mix: { blockBytes: number; depth: number; readPercent: number },
  limits: { regionBytes: number; durationMs: number; seed: number },
): Promise<LoadResult> {
  return engineLoad(target, { ...mix, pattern: "randrw" }, limits);
}

async function engineLoad(
  target: EngineTarget,
  workload: Omit<Workload, "pattern"> & { pattern: keyof typeof LOAD_PATTERN; readPercent: number },
  limits: { regionBytes: number; durationMs: number | null; seed: number },
): Promise<LoadResult> {
  const { regionBytes, durationMs, seed } = limits;
  const result = await native.loadRun(target.pool, target.volume, {
    pattern: LOAD_PATTERN[workload.pattern],
    readPercent: workload.readPercent,
    blockBytes: workload.blockBytes,
    depth: workload.depth,
    regionBytes,
    durationMs: durationMs ?? 0,
    opCount: durationMs === null ? regionBytes / workload.blockBytes : 0,
    flushEvery: 0,
    seed,
    verify: false,
  });
  if (result.errors > 0) throw new Error(`${result.errors} requests to the engine failed`);
  return result;
}

function engineFigures(
  result: Pick<LoadResult, "reads" | "writes" | "iops">,
  cpuSeconds: number,
): Figures {
  const lane = result.reads.ops > 0 ? result.reads : result.writes;
  const { p50Us, p99Us } = lane.latency;
  return { ops: lane.ops, iops: result.iops, p50Us, p99Us, cpuSeconds };
}

/** A volume as its host sees it: over NVMe/TCP. */
export interface NvmeTarget {
  address: string;
  port: number;
  subsystemNqn: string;
  hostNqn: string;
}

/** The depth of the workload is each queue's; `durationMs` null: each byte once. CPU is ours. */
export async function runNvmeLoad(
  target: NvmeTarget,
  workload: Workload & { queues: number },
  limits: { regionBytes: number; durationMs: number | null; seed: number },
): Promise<Figures> {
  const before = process.cpuUsage();
  const { pattern, blockBytes, depth, queues } = workload;
  const { regionBytes, durationMs, seed } = limits;
  const result = await native.nvmeLoadRun({
    ...target,
    pattern: LOAD_PATTERN[pattern],
    readPercent: 0,
    blockBytes,
    queues,
    depth,
    regionBytes,
    durationMs: durationMs ?? 0,
    opCount: durationMs === null ? regionBytes / blockBytes : 0,
    seed,
  });
  const cpu = process.cpuUsage(before);
  if (result.errors > 0) throw new Error(`${result.errors} requests failed: ${result.firstError}`);
  return engineFigures(result, (cpu.user + cpu.system) / 1e6);
}

export interface FioRun {
  figures: Figures;
  samples: FioSample[];
  /** Of what the samples' times count from; milliseconds since 1970, give or take some ten. */
  startedAtMs: number;
}

export async function runFioLoad(
  target: FileTarget | NbdTarget,
  workload: Workload,
  limits: { sizeBytes: number; durationMs: number | null; seed: number; sampleEveryMs?: number },
): Promise<FioRun> {
  const { sizeBytes, durationMs, seed, sampleEveryMs } = limits;
  const job: FioJob = {
    name: "load",
    target,
    ...workload,
    sizeBytes,
    seed,
    // A map of what has been written would cost the client time that the engine's does not spend.
    ...(durationMs === null ? { flushAtEnd: true } : { durationMs, repeatBlocks: true }),
    ...(sampleEveryMs === undefined ? {} : { sampleEveryMs }),
  };
  const { jobs, endedAtMs } = await runFio([job]);
  const [result] = jobs;
  if (result === undefined) throw new Error("fio gave no result");
  const runtimeMs = Math.max(result.read.runtimeMs, result.write.runtimeMs);
  const { samples } = result;
  return { figures: fioFigures(result), samples, startedAtMs: endedAtMs - runtimeMs };
}

function fioFigures(job: FioJobResult): Figures {
  const lane = job.read.ios > 0 ? job.read : job.write;
  const { percentilesUs } = lane.latency;
  const cpuShare = (job.userCpuPercent + job.systemCpuPercent) / 100;
  return {
    ops: lane.ios,
    iops: lane.iops,
    p50Us: percentilesUs[50],
    p99Us: percentilesUs[99],
    cpuSeconds: (cpuShare * lane.runtimeMs) / 1000,
  };
}
