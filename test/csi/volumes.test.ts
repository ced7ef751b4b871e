// What csi-sanity does not look at: the contents of snapshots and clones, growth, groups, fencing,
// on each file system and on raw devices. See guest-scenario.ts.
import { test } from "uvu";
import { skip } from "../support/skip.js";
import { timed } from "../system/timed.js";
import type { Vm } from "../system/vm/vm.js";
import { type CsiWorld, csiSkipReason, guestProgram, startCsiWorld } from "./world.js";

const OTHER_NODE = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-0000000000bb";

const missing = await csiSkipReason();
if (missing !== null) skip(missing);

let world: CsiWorld;

test.before(async () => {
  world = await startCsiWorld("csi-volumes");
});

test.after(() => world?.close());

for (const scenario of ["ext4", "xfs", "btrfs", "block"]) {
  test(`volumes on a node: ${scenario}`, async () => {
    const module = scenario === "btrfs" || scenario === "xfs" ? `modprobe ${scenario} && ` : "";
    await play(world.vm, scenario, module);
  });
}

test("a pod moves to a second node, and the first one is fenced", async () => {
  const second = await world.addNode("csi-second", OTHER_NODE);
  await play(world.vm, "move: begins");
  await play(second, "move: takes over");
  await play(world.vm, "move: is fenced");
  await play(second, "move: ends");
});

test.run();

async function play(vm: Vm, scenario: string, before = ""): Promise<void> {
  const program = guestProgram("test/csi/guest-scenario.js");
  const command = `${before}${program} $SHARE/${world.configName} "${scenario}" 2>&1`;
  const said = await timed(scenario, () => vm.must(command, { timeoutMs: 300_000 }));
  console.log(said.trim());
}
