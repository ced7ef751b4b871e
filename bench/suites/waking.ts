// A database that sleeps is woken: from ControllerPublish, by the node plugin and a file system, to
// Postgres answering, with one volume in the pool and with very many.
//
// The compute node is a VM whose processor is emulated, which makes everything in it ten times
// slower or more: only the difference between two rows means anything.

import { PandoClient } from "../../engine/serve/client.js";
import type { WakingTimes } from "../../test/csi/guest-waking.js";
import { type CsiWorld, csiSkipReason, guestProgram, startCsiWorld } from "../../test/csi/world.js";
import { postgresPrograms } from "../../test/system/guest-postgres.js";
import { TableBuilder } from "../results.js";
import type { Suite, SuiteContext } from "../suite.js";

const MANY = 10_000;
const QUICK_MANY = 200;
const AT_ONCE = 32;
const VOLUME_BYTES = 2 ** 30;
const STEP_TIMEOUT_MS = 900_000;

export const wakingSuite: Suite = {
  name: "waking",
  describe: "Postgres on a volume from ControllerPublish to its first answer, in an emulated VM",
  needs: [],
  async run(context) {
    const missing = await csiSkipReason(postgresPrograms);
    if (missing !== null) return { tables: [], plots: [], absent: [`waking: ${missing}`] };
    const metrics = ["total", "ControllerPublish", "NodeStage", "NodePublish", "Postgres"];
    const table = new TableBuilder({
      id: "waking",
      title: "Waking a database",
      metrics: metrics.map((name) => ({ name, unit: "ms", better: "lower", relative: false })),
    });
    const many = context.seconds < 2 ? QUICK_MANY : MANY;
    const world = await startCsiWorld("waking");
    try {
      context.status("initdb");
      await runInGuest(world, "prepare");
      for (const volumes of [1, many]) {
        await fill(context, world, volumes);
        context.status(`waking, with ${volumes} volumes`);
        for (const times of await measure(world, context.rounds)) {
          const { attachMs, stageMs, publishMs, postgresMs } = times;
          const parts = [attachMs, stageMs, publishMs, postgresMs];
          const totalMs = parts.reduce((sum, part) => sum + part, 0);
          const row = volumes === 1 ? "1 volume" : `${volumes.toLocaleString("en")} volumes`;
          table.add(row, "pando", [totalMs, ...parts]);
        }
      }
    } finally {
      await world.close();
    }
    const note =
      "The compute node, with controller and node plugin, is a VM on an emulated processor (QEMU's " +
      "TCG), the storage node is not. Compare the rows; the figures themselves are those of the " +
      "emulation.";
    return { tables: [table.build(note)], plots: [], absent: [] };
  },
};

async function measure(world: CsiWorld, rounds: number): Promise<WakingTimes[]> {
  const said = await runInGuest(world, `measure ${rounds}`);
  return said
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as WakingTimes);
}

function runInGuest({ vm, configName }: CsiWorld, step: string): Promise<string> {
  const program = guestProgram("test/csi/guest-waking.js");
  return vm.must(`${program} $SHARE/${configName} ${step}`, { timeoutMs: STEP_TIMEOUT_MS });
}

/** Until there are so many. */
async function fill(context: SuiteContext, { node }: CsiWorld, volumes: number): Promise<void> {
  const client = new PandoClient(node.socket);
  let next = 1;
  const worker = async () => {
    while (next < volumes) {
      const index = next++;
      if (index % 1000 === 0) context.status(`${index} volumes`);
      await client.createVolume(`other-${index}`, VOLUME_BYTES);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  client.close();
}
