// What csi-sanity does not look at: the contents of snapshots and clones, growth, groups,
// on each file system and on raw devices. See guest-scenario.ts.
import { test } from "uvu";
import { skip } from "../support/skip.js";
import { type CsiWorld, csiSkipReason, playScenario, startCsiWorld } from "./world.js";

const missing = await csiSkipReason();
if (missing !== null) skip(missing);

let world: CsiWorld;

test.before(async () => {
  world = await startCsiWorld("csi-volumes");
});

test.after(() => world?.close());

for (const scenario of ["ext4", "xfs", "btrfs", "block"]) {
  test(`volumes on a node: ${scenario}`, async () => {
    const module = scenario === "btrfs" || scenario === "xfs" ? `modprobe ${scenario}` : "true";
    await playScenario(world, world.vm, { scenario, before: module });
  });
}

test.run();
