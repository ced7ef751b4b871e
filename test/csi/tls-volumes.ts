// The node plugin with a key: trixie's kernel and its tlshd, by hand, since no other test needs
// them:
//
//   npm run tls-csi
//
// Volumes of a node that has to use TLS are staged, used, grown and unstaged over TLS; a daemon
// that dies is connected to again, with the same key; another key counts from the next volume on.
// Without a key, or with one that others may read, nothing is connected, and the answer says why.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { temporaryFolder } from "../support/pando.js";
import { skip } from "../support/skip.js";
import { guestHost } from "../system/guest-nvme.js";
import { IN_TOOLS, startTlshd } from "../system/guest-tls.js";
import { timed } from "../system/timed.js";
import { provideHostTools } from "../system/vm/host-tools.js";
import { type CsiWorld, csiSkipReason, playScenario, startCsiWorld } from "./world.js";

const missing = await csiSkipReason();
if (missing !== null) skip(missing);

/** In the guest. */
const KEY_FILE = "/run/pando-tls.key";

const folder = temporaryFolder();
let world: CsiWorld;

test.before(async () => {
  const tools = await timed("the host's tools are there", () => provideHostTools());
  world = await startCsiWorld("csi-tls", { tlsKeyFile: KEY_FILE });
  await startTlshd(world.vm, tools);
  await newKey();
});

test.after(async () => {
  await world?.close();
  folder.remove();
});

const play = (scenario: string, before = "true") =>
  playScenario(world, world.vm, { scenario, before });

test("without a key nothing is connected", () => play("tls: no key"));

test("nor with one that others may read", () =>
  play("tls: a key for all", `chmod 644 ${KEY_FILE}`));

test("nor with a wrong one", async () => {
  await play("tls: a wrong key", `chmod 600 ${KEY_FILE}; nvme gen-tls-key --hmac=1 >${KEY_FILE}`);
  await newKey();
});

test("a volume is used over TLS, through a daemon's death", async () => {
  const { node } = world;
  await play("tls: begins");
  assert.equal(await connections(), [true]);
  // Of three identities, in the kernel for as long as the volume is staged.
  assert.is(await keysOfKernel(), 3);
  await node.killDaemon();
  await node.startDaemon();
  await play("tls: goes on");
  assert.equal(await connections(), [true]);
  await newKey();
  await play("tls: ends");
  assert.is(await keysOfKernel(), 0);
});

for (const scenario of ["ext4", "block"]) {
  test(`volumes on a node, over TLS: ${scenario}`, () => play(scenario));
}

test("nothing was in the open, and the pool is whole", async () => {
  assert.not.match(world.node.log(), /in the open/);
  assert.equal((await world.node.stopAndCheck()).problems, []);
});

test.run();

/** On both ends, from the next connection on. */
async function newKey(): Promise<void> {
  const { vm, node } = world;
  const key = await vm.must(`umask 077; nvme gen-tls-key --hmac=1 | tee ${KEY_FILE}`);
  const path = join(folder.path, "key");
  writeFileSync(path, key, { mode: 0o600 });
  await node.pando("host", "set-tls-key", guestHost.hostNqn, "--key-file", path);
}

/** Whether each is over TLS. */
async function connections(): Promise<unknown[]> {
  return ((await world.node.pando("host", "list")) as { tls: boolean }[]).map(({ tls }) => tls);
}

/** As the kernel sees them: one that was taken out may be in /proc/keys for a moment yet. */
async function keysOfKernel(): Promise<number> {
  const said = await world.vm.must(`${IN_TOOLS} /usr/bin/keyctl list %:.nvme`);
  return said.startsWith("keyring is empty") ? 0 : Number.parseInt(said, 10);
}
