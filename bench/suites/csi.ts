// What Kubernetes gets: volumes made of one snapshot through the CSI controller, one call after
// another and many at once, as a provisioner asks for them.
import { TableBuilder } from "../results.js";
import { quantile } from "../statistics.js";
import { type CsiDriver, startCsiDriver } from "../subjects/csi-driver.js";
import type { Suite, SuiteContext } from "../suite.js";

const VOLUMES = 1000;
const QUICK_VOLUMES = 50;
const VOLUME_BYTES = 1024 ** 3;
const POOL_BYTES = 4 * 1024 ** 3;
/** The provisioner's own threads: 100. */
const AT_ONCE = [1, 10, 100];

export const csiSuite: Suite = {
  name: "csi",
  describe: `${VOLUMES} CreateVolume calls from one snapshot, through the CSI controller`,
  needs: [],
  async run(context) {
    const table = new TableBuilder({
      id: "csi-clones",
      title: "CreateVolume from a snapshot",
      metrics: [
        { name: "rate", unit: "calls/s", better: "higher", relative: true },
        { name: "p50", unit: "ms", better: "lower", relative: false },
        { name: "p99", unit: "ms", better: "lower", relative: false },
      ],
    });
    const volumes = context.seconds < 2 ? QUICK_VOLUMES : VOLUMES;
    const driver = await startCsiDriver(context.folder, POOL_BYTES);
    try {
      const originId = await driver.createVolume("origin", { sizeBytes: VOLUME_BYTES });
      const snapshotId = await driver.createSnapshot(originId, "origin-snapshot");
      for (let round = 0; round < context.rounds; round++) {
        for (const atOnce of AT_ONCE) {
          const clones = { snapshotId, volumes, atOnce, tag: `${round}-${atOnce}` };
          const { elapsedMs, times } = await makeClones(context, driver, clones);
          const rate = (volumes * 1000) / elapsedMs;
          const row = atOnce === 1 ? "one at a time" : `${atOnce} at once`;
          table.add(row, "pando", [rate, quantile(times, 0.5), quantile(times, 0.99)]);
        }
      }
    } finally {
      await driver.stop();
    }
    const note = `${volumes} volumes of one snapshot; they are deleted again between two rows.`;
    return { tables: [table.build(note)], plots: [], absent: [] };
  },
};

async function makeClones(
  context: SuiteContext,
  driver: CsiDriver,
  clones: { snapshotId: string; volumes: number; atOnce: number; tag: string },
): Promise<{ elapsedMs: number; times: number[] }> {
  const { snapshotId, volumes, atOnce, tag } = clones;
  context.status(`pando: ${volumes} clones, ${atOnce} at once`);
  const times: number[] = [];
  const ids: string[] = [];
  const startedAt = performance.now();
  await inParallel(volumes, atOnce, async (index) => {
    const calledAt = performance.now();
    ids.push(await driver.createVolume(`pvc-${tag}-${index}`, { snapshotId }));
    times.push(performance.now() - calledAt);
  });
  const elapsedMs = performance.now() - startedAt;
  await inParallel(ids.length, AT_ONCE[1] ?? 1, async (index) => {
    await driver.deleteVolume(ids[index] ?? "");
  });
  return { elapsedMs, times };
}

async function inParallel(
  count: number,
  atOnce: number,
  work: (index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}
