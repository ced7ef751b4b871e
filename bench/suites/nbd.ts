// Over NBD on a Unix socket, with fio as the client of all: Pando's daemon, and QEMU's storage
// daemon with a raw image and with a qcow2 one, on the same file system. All are written in full
// first. CPU is the server's.
import { join } from "node:path";
import { type Comparison, sideBySide } from "../side-by-side.js";
import { type PandoServer, servePando } from "../subjects/pando.js";
import { makeQcow2, makeRaw, QemuServer } from "../subjects/qemu.js";
import type { ServerProcess } from "../subjects/server-process.js";
import type { Suite } from "../suite.js";
import { FILL, runFioLoad, type Workload } from "../workload.js";

const VOLUME = "bench";
const RAW = "qemu, raw";
const QCOW2 = "qemu, qcow2";
const PANDO = "pando";
const POOL_OVERHEAD_BYTES = 256 * 1024 * 1024;

const WORKLOADS: Workload[] = [
  ...(["randread", "randwrite"] as const).flatMap((pattern) =>
    [1, 32].map((depth) => ({ pattern, blockBytes: 8192, depth })),
  ),
  { pattern: "read", blockBytes: 128 * 1024, depth: 8 },
  { pattern: "write", blockBytes: 128 * 1024, depth: 8 },
];

interface Served {
  uri: string;
  process: ServerProcess;
}

export const nbdSuite: Suite = {
  name: "nbd",
  describe: "the daemon over NBD, beside qemu-storage-daemon with raw and qcow2 images",
  needs: ["fio", "qemu-storage-daemon", "qemu-img"],
  async run(context) {
    const { folder, sizeBytes } = context;
    let pando: PandoServer | null = null;
    const qemus: QemuServer[] = [];
    try {
      pando = await servePando(join(folder, "pool"), {
        poolBytes: sizeBytes + POOL_OVERHEAD_BYTES,
      });
      await pando.client.createVolume(VOLUME, sizeBytes);
      const served = new Map<string, Served>();
      for (const [name, format] of [
        [RAW, "raw"],
        [QCOW2, "qcow2"],
      ] as const) {
        const path = join(folder, `image.${format}`);
        if (format === "raw") makeRaw(path, sizeBytes);
        else makeQcow2(path, sizeBytes);
        const qemu = await QemuServer.start();
        qemus.push(qemu);
        await qemu.serve(VOLUME, format, path);
        served.set(name, { uri: qemu.uri(VOLUME), process: qemu.process });
      }
      served.set(PANDO, { uri: pando.uri(VOLUME), process: pando.process });
      const comparison: Comparison = {
        id: "nbd",
        title: "Over NBD",
        subjects: [RAW, QCOW2, PANDO],
        async measure(subject, workload, run) {
          const { uri, process } = found(served, subject);
          const before = process.cpuSeconds();
          const target = { engine: "nbd", uri } as const;
          const { figures } = await runFioLoad(target, workload, { sizeBytes, ...run });
          return { ...figures, cpuSeconds: process.cpuSeconds() - before };
        },
      };
      for (const [name, { uri }] of served) {
        context.status(`writing ${name} in full`);
        await runFioLoad({ engine: "nbd", uri }, FILL, { sizeBytes, durationMs: null, seed: 1 });
      }
      const table = await sideBySide(context, comparison, WORKLOADS);
      return { tables: [table], plots: [], absent: [] };
    } finally {
      await pando?.stop();
      for (const qemu of qemus) await qemu.stop();
    }
  },
};

function found(served: ReadonlyMap<string, Served>, subject: string): Served {
  const one = served.get(subject);
  if (one === undefined) throw new Error(`nobody serves ${subject}`);
  return one;
}
