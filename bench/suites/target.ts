// Over NVMe/TCP on loopback, with our own load as the host: where the device decides, and where it
// does not. The second is the same daemon on a pool in memory, so that what is left is the CPU
// time of the target. CPU is the target's. SPDK's target is measured in the same rounds, if there
// is one.
import { accessSync, constants, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type Metric, type Table, TableBuilder } from "../results.js";
import { type PandoServer, servePando } from "../subjects/pando.js";
import type { ServerProcess } from "../subjects/server-process.js";
import { serveSpdk, spdkVersion } from "../subjects/spdk.js";
import type { Suite, SuiteContext } from "../suite.js";
import {
  FILL,
  type NvmeTarget,
  runFioLoad,
  runNvmeLoad,
  type Workload,
  workloadName,
} from "../workload.js";

const VOLUME = "bench";
const HOST_NQN = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-00000000be9c";
const POOL_OVERHEAD_BYTES = 256 * 1024 * 1024;
const MEMORY = "/dev/shm";
const MEMORY_BYTES = 512 * 1024 * 1024;
const QUEUES = [1, 4];
const RAW = "raw file";

const WORKLOADS: Workload[] = [
  ...(["randread", "randwrite"] as const).flatMap((pattern) =>
    [1, 32].map((depth) => ({ pattern, blockBytes: 8192, depth })),
  ),
  { pattern: "read", blockBytes: 128 * 1024, depth: 8 },
  { pattern: "write", blockBytes: 128 * 1024, depth: 8 },
];

export const targetSuite: Suite = {
  name: "target",
  describe: "the daemon over NVMe/TCP, with the pool on the device and in memory (beside SPDK's)",
  needs: ["fio"],
  async run(context) {
    const tables = [await onDevice(context)];
    const absent: string[] = [];
    if (isWritable(MEMORY)) tables.push(await inMemory(context));
    else absent.push(`the pool in memory: ${MEMORY} is not there to be written`);
    if (context.spdk === null) absent.push("SPDK's target: --spdk names none");
    return { tables, plots: [], absent };
  },
};

const METRICS: Metric[] = [
  { name: "IOPS", unit: "", better: "higher", relative: false },
  { name: "p50", unit: "µs", better: "lower", relative: false },
  { name: "p99", unit: "µs", better: "lower", relative: false },
  { name: "CPU s per million I/O", unit: "", better: "lower", relative: false },
];
const RATIO: Metric = { name: `of ${RAW}`, unit: "", better: "higher", relative: true };

/** Beside fio with io_uring on a raw file on the same file system. */
async function onDevice(context: SuiteContext): Promise<Table> {
  const { folder, sizeBytes } = context;
  const file = { engine: "io_uring", path: join(folder, "raw"), direct: true } as const;
  context.status("writing both in full");
  await runFioLoad(file, FILL, { sizeBytes, durationMs: null, seed: 1 });
  const table = new TableBuilder({
    id: "target-device",
    title: "Over NVMe/TCP, the pool on the device",
    metrics: [...METRICS, RATIO],
  });
  const baseline = async (workload: Workload, run: { durationMs: number; seed: number }) => {
    const { figures } = await runFioLoad(file, workload, { sizeBytes, ...run });
    const { iops, p50Us, p99Us, cpuSeconds, ops } = figures;
    table.add(workloadName(workload), RAW, [iops, p50Us, p99Us, (cpuSeconds * 1e6) / ops, 1]);
    return iops;
  };
  const place = { path: join(folder, "pool"), spdkPath: join(folder, "spdk") };
  await measure(context, { ...place, regionBytes: sizeBytes, table, baseline });
  return table.build(aboutSpdk(context));
}

async function inMemory(context: SuiteContext): Promise<Table> {
  const folder = mkdtempSync(join(MEMORY, "pando-bench-"));
  const table = new TableBuilder({
    id: "target-memory",
    title: "Over NVMe/TCP, the pool in memory",
    metrics: METRICS,
  });
  const regionBytes = Math.min(MEMORY_BYTES, context.sizeBytes);
  try {
    const place = { path: join(folder, "pool"), spdkPath: null };
    await measure(context, { ...place, regionBytes, table, baseline: null });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const about = `A set of ${regionBytes / 2 ** 20} MiB; the daemon copies each block itself, from a file on tmpfs.`;
  return table.build(`${about} ${aboutSpdk(context)}`.trim());
}

function aboutSpdk({ spdk }: SuiteContext): string {
  if (spdk === null) return "";
  return `${spdkVersion(spdk)}: a thin logical volume; its target spins on one core, and is stopped while ours is measured.`;
}

interface Measured {
  path: string;
  /** Of SPDK's file; null: in memory. */
  spdkPath: string | null;
  regionBytes: number;
  table: TableBuilder;
  /** Gives the IOPS that the others are compared with; without one there is no ratio. */
  baseline:
    | ((workload: Workload, run: { durationMs: number; seed: number }) => Promise<number>)
    | null;
}

interface Subject {
  /** Before the number of queues, in a column's name. */
  name: string;
  target: NvmeTarget;
  process: ServerProcess;
  /** Takes the CPU from others even when nobody asks it for anything. */
  spins: boolean;
  stop(): Promise<void>;
}

async function measure(context: SuiteContext, measured: Measured): Promise<void> {
  const { regionBytes, table, baseline } = measured;
  const subjects: Subject[] = [];
  try {
    for await (const subject of served(context, measured)) {
      subjects.push(subject);
      const fill = { regionBytes, durationMs: null, seed: 1 };
      await runNvmeLoad(subject.target, { ...FILL, queues: 1 }, fill);
      if (subject.spins) subject.process.pause();
    }
    let seed = 0;
    for (const workload of WORKLOADS) {
      const row = workloadName(workload);
      for (let round = 0; round < context.rounds; round++) {
        seed += 1;
        const run = { durationMs: Math.round(context.seconds * 1000), seed };
        context.status(`${row}, round ${round + 1} of ${context.rounds}`);
        const compared = baseline === null ? null : await baseline(workload, run);
        for (const queues of QUEUES) {
          for (const { name, target, process, spins } of subjects) {
            if (spins) process.goOn();
            const before = process.cpuSeconds();
            const load = { ...workload, queues };
            const figures = await runNvmeLoad(target, load, { regionBytes, ...run });
            const cpu = process.cpuSeconds() - before;
            if (spins) process.pause();
            const { iops, p50Us, p99Us, ops } = figures;
            const ratio = compared === null ? [] : [iops / compared];
            const column = `${name}${queues === 1 ? "1 queue" : `${queues} queues`}`;
            table.add(row, column, [iops, p50Us, p99Us, (cpu * 1e6) / ops, ...ratio]);
          }
        }
      }
    }
  } finally {
    for (const { process, spins, stop } of subjects) {
      if (spins) process.goOn();
      await stop();
    }
  }
}

async function* served(context: SuiteContext, measured: Measured): AsyncGenerator<Subject> {
  const { path, spdkPath, regionBytes: sizeBytes } = measured;
  const server = await servePando(path, { poolBytes: sizeBytes + POOL_OVERHEAD_BYTES });
  const { process } = server;
  yield {
    name: "",
    target: await serve(server, sizeBytes),
    process,
    spins: false,
    stop: server.stop,
  };
  if (context.spdk === null) return;
  const peer = await serveSpdk(context.spdk, { path: spdkPath, sizeBytes, hostNqn: HOST_NQN });
  yield { name: "SPDK, ", spins: true, ...peer };
}

async function serve(server: PandoServer, sizeBytes: number): Promise<NvmeTarget> {
  await server.client.createVolume(VOLUME, sizeBytes);
  const { nqn } = await server.client.allowHost(VOLUME, HOST_NQN);
  return { ...server.target, subsystemNqn: nqn, hostNqn: HOST_NQN };
}

function isWritable(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
