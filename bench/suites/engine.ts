// The engine beside the raw device: the load generator inside the process on a volume, and fio with
// io_uring on a raw file of the same size on the same file system. Both are written in full first,
// both go around the page cache.
import { join } from "node:path";
import { type Comparison, depthSweep, sideBySide } from "../side-by-side.js";
import { openEngine } from "../subjects/pando.js";
import type { Suite } from "../suite.js";
import { FILL, runEngine, runFioLoad, type Workload } from "../workload.js";

const VOLUME = "bench";
const ENGINE = "engine";
const RAW = "raw file";
/** Superblocks, journal, and room for what is written while freed blocks are on their way back. */
const POOL_OVERHEAD_BYTES = 256 * 1024 * 1024;

const WORKLOADS: Workload[] = [
  ...(["randread", "randwrite"] as const).flatMap((pattern) =>
    [4096, 8192].flatMap((blockBytes) => [1, 32].map((depth) => ({ pattern, blockBytes, depth }))),
  ),
  { pattern: "read", blockBytes: 128 * 1024, depth: 8 },
  { pattern: "write", blockBytes: 128 * 1024, depth: 8 },
];

export const engineSuite: Suite = {
  name: "engine",
  describe: "the engine in this process, beside fio with io_uring on a raw file",
  needs: ["fio"],
  async run(context) {
    const { folder, sizeBytes } = context;
    const file = { engine: "io_uring", path: join(folder, "raw"), direct: true } as const;
    const opened = await openEngine(join(folder, "pool"), {
      poolBytes: sizeBytes + POOL_OVERHEAD_BYTES,
    });
    const { pool } = opened;
    try {
      await pool.createVolume(VOLUME, sizeBytes);
      const target = { pool: pool.handle, volume: await pool.hold(VOLUME) };
      const comparison: Comparison = {
        id: "engine",
        title: "The engine beside the raw file",
        subjects: [RAW, ENGINE],
        async measure(subject, workload, run) {
          if (subject === RAW) {
            return (await runFioLoad(file, workload, { sizeBytes, ...run })).figures;
          }
          return runEngine(target, workload, { regionBytes: sizeBytes, ...run });
        },
      };
      context.status("writing both in full");
      await runEngine(target, FILL, { regionBytes: sizeBytes, durationMs: null, seed: 1 });
      await runFioLoad(file, FILL, { sizeBytes, durationMs: null, seed: 1 });
      await pool.checkpoint();
      const table = await sideBySide(context, comparison, WORKLOADS);
      const plots = [
        ...(await depthSweep(context, comparison, { pattern: "randread", blockBytes: 8192 })),
        ...(await depthSweep(context, comparison, { pattern: "randwrite", blockBytes: 8192 })),
      ];
      await pool.release(VOLUME);
      return { tables: [table], plots, absent: [] };
    } finally {
      await opened.close();
    }
  },
};
