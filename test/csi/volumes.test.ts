// What csi-sanity does not look at: the contents of snapshots and clones, growth, groups, fencing,
// on each file system and on raw devices. See guest-scenario.ts.
import { test } from "uvu";
import { skip } from "../support/skip.js";
import { timed } from "../system/timed.js";
import { type CsiWorld, csiSkipReason, guestProgram, startCsiWorld } from "./world.js";

const missing = await csiSkipReason();
if (missing !== null) skip(missing);

let world: CsiWorld;

test.before(async () => {
  world = await startCsiWorld("csi-volumes");
});

test.after(() => world?.close());

for (const scenario of ["ext4", "xfs", "btrfs", "block", "move"]) {
  test(`volumes on a node: ${scenario}`, async () => {
    const program = guestProgram("test/csi/guest-scenario.js");
    const module = scenario === "btrfs" || scenario === "xfs" ? `modprobe ${scenario} && ` : "";
    const said = await timed(scenario, () =>
      world.vm.must(`${module}${program} $SHARE/${world.configName} ${scenario} 2>&1`, {
        timeoutMs: 180_000,
      }),
    );
    console.log(said.trim());
  });
}

test.run();
