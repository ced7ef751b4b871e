// Postgres on a volume, on a fresh clone of one, and on the raw file under the same file system,
// with fsync on; qcow2 images, alone and over a backing file, beside them. All of them have the
// same bytes, copied from one cluster, and take turns within each round.
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Table, TableBuilder } from "../results.js";
import { median } from "../statistics.js";
import type { Branches } from "../subjects/branches.js";
import { mountNbd, nbdMountAbsence } from "../subjects/nbd-mount.js";
import { pandoBranches } from "../subjects/pando-branches.js";
import { initPostgres, postgresPrograms, RunningPostgres } from "../subjects/postgres.js";
import { qcow2Branches } from "../subjects/qcow2-branches.js";
import { makeRaw, QemuServer } from "../subjects/qemu.js";
import type { Suite, SuiteContext } from "../suite.js";
import { FILL, runFioLoad } from "../workload.js";

const MIB = 1024 * 1024;
const RAW = "raw file";
const VOLUME = "database";
/** That is branched: a volume that has a snapshot writes to new places itself. */
const ORIGIN = "origin";
const SNAPSHOT = "base";
const CLIENTS = [1, 8];
/** pgbench's unit of scale, with its indexes; the rest of the volume is for what is written. */
const SCALE_BYTES = 16 * MIB;
const MIN_VOLUME_BYTES = 1024 * MIB;

export const postgresSuite: Suite = {
  name: "postgres",
  describe: "pgbench on a volume, on a fresh clone, on a raw file and on qcow2 images",
  needs: ["fio", "qemu-storage-daemon", "qemu-img"],
  async run(context) {
    const missing = postgresPrograms() === null ? "there is no Postgres" : nbdMountAbsence();
    if (missing !== null) return { tables: [], plots: [], absent: [`Postgres: ${missing}`] };
    const sizeBytes = Math.max(MIN_VOLUME_BYTES, context.sizeBytes / 2);
    const raw = await rawFile(context.folder, sizeBytes);
    const branched: Branches[] = [];
    try {
      context.status("a cluster on the raw file");
      const scale = Math.floor(sizeBytes / 4 / SCALE_BYTES);
      await makeCluster(raw.uri, scale);
      branched.push(await pandoBranches(context.folder, sizeBytes * 4));
      branched.push(await qcow2Branches(context.folder));
      for (const branches of branched) {
        context.status(`${branches.name}: copies of it`);
        await copyInto(branches, raw.uri, sizeBytes);
      }
      return { tables: [await measureAll(context, raw, branched, scale)], plots: [], absent: [] };
    } finally {
      for (const { stop } of [raw, ...branched]) await stop();
    }
  },
};

interface RawFile {
  uri: string;
  writtenBytes(): number;
  stop(): Promise<void>;
}

/** Written in full. */
async function rawFile(folder: string, sizeBytes: number): Promise<RawFile> {
  const path = join(folder, "database.raw");
  makeRaw(path, sizeBytes);
  const server = await QemuServer.start();
  await server.serve(VOLUME, "raw", path);
  const uri = server.uri(VOLUME);
  await runFioLoad({ engine: "nbd", uri }, FILL, { sizeBytes, durationMs: null, seed: 1 });
  return {
    uri,
    writtenBytes: () => server.process.writtenBytes(),
    stop: () => server.stop(),
  };
}

async function makeCluster(uri: string, scale: number): Promise<void> {
  const mounted = await mountNbd(uri, { make: true });
  try {
    await initPostgres(mounted.place, scale);
  } finally {
    await mounted.unmount();
  }
}

/** Two volumes; one of them has a snapshot. */
async function copyInto(branches: Branches, uri: string, sizeBytes: number): Promise<void> {
  for (const volume of [VOLUME, ORIGIN]) {
    await branches.create(volume, sizeBytes);
    // Whole: what is zero is written, too.
    const args = ["--sparse=0", "--flush", uri, branches.uri(volume)];
    await promisify(execFile)("nbdcopy", args);
  }
  await branches.snapshot(ORIGIN, SNAPSHOT);
}

async function measureAll(
  context: SuiteContext,
  raw: RawFile,
  branched: readonly Branches[],
  scale: number,
): Promise<Table> {
  const table = new TableBuilder({
    id: "postgres",
    title: "pgbench's TPC-B, fsync on",
    metrics: [
      { name: "TPS", unit: "", better: "higher", relative: false },
      { name: "latency", unit: "ms", better: "lower", relative: false },
      { name: "written per transaction", unit: "KiB", better: "lower", relative: false },
      { name: `of ${RAW}`, unit: "", better: "higher", relative: true },
    ],
  });
  const baselines = new Map<number, number>();
  const ratios = new Map<string, number[]>();
  const record = async (column: string, uri: string, writtenBytes: () => number) => {
    const mounted = await mountNbd(uri);
    try {
      const postgres = await RunningPostgres.start(mounted.place);
      try {
        for (const clients of CLIENTS) {
          const before = writtenBytes();
          const figures = await postgres.measure({ clients, seconds: context.seconds });
          const writtenKiB = (writtenBytes() - before) / 1024 / figures.transactions;
          if (column === RAW) baselines.set(clients, figures.tps);
          const ratio = figures.tps / (baselines.get(clients) ?? Number.NaN);
          const row = clients === 1 ? "1 client" : `${clients} clients`;
          table.add(row, column, [figures.tps, figures.latencyMs, writtenKiB, ratio]);
          ratios.set(column, [...(ratios.get(column) ?? []), ratio]);
        }
      } finally {
        await postgres.stop();
      }
    } finally {
      await mounted.unmount();
    }
  };
  for (let round = 0; round < context.rounds; round++) {
    const status = (what: string) =>
      context.status(`${what}, round ${round + 1} of ${context.rounds}`);
    status(RAW);
    await record(RAW, raw.uri, raw.writtenBytes);
    for (const branches of branched) {
      status(branches.name);
      await record(branches.name, branches.uri(VOLUME), branches.writtenBytes);
      status(`${branches.name}, clone`);
      const clone = `clone-${round}`;
      await branches.clone(ORIGIN, SNAPSHOT, clone);
      await record(`${branches.name}, fresh clone`, branches.uri(clone), branches.writtenBytes);
      await branches.deleteClone(clone);
    }
  }
  for (const [column, these] of ratios) {
    if (column !== RAW) context.say(`${column}: ${median(these).toFixed(2)} of ${RAW}`);
  }
  return table.build(
    `Scale ${scale}. All over NBD, nbdfuse, a loop device and ext4, the raw file, too: ratios count, not TPS.`,
  );
}
