// A volume that the kernel's target serves: durable before it is, and kept from what would take it
// away under its hosts.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { KernelTarget } from "../../engine/core/shares.js";
import { cutPower, finish, SECTORS, smallPool } from "../sim/small-pool.js";
import { rejects } from "../support/refuses.js";

const test = suite("shared");

function target(applied: string[][], { growing = false } = {}): KernelTarget {
  return {
    async apply(volumes) {
      applied.push(volumes.map(({ name }) => name));
      return new Map();
    },
    tls: false,
    hostsMayBeConnected: async () => false,
    canGrow: () => growing,
    fence: async () => ({ controllers: 0, ended: true }),
  };
}

test("a shared volume stays, as it is and shared, until it is unshared", async () => {
  const client = await smallPool();
  const { world } = client;
  const applied: string[][] = [];
  await world.run(client.create("b", SECTORS));
  await client.pool.shares.attach(target(applied));
  await rejects(world.run(client.pool.shareVolume("a")), "EBUSY", /volume a is in use/);
  const shared = await world.run(client.pool.shareVolume("b"));
  assert.is(shared?.value.sharedVia, "nvmet");
  const larger = 2 * (shared?.value.sizeBytes ?? 0);
  await rejects(world.run(client.pool.resizeVolume("b", larger)), "EBUSY", /shared via nvmet/);
  await rejects(world.run(client.pool.deleteVolume("b")), "EBUSY", /shared via nvmet/);

  await cutPower(client);
  const later: string[][] = [];
  await client.pool.shares.attach(target(later, { growing: true }));
  assert.equal(later, [["b"]], "it was durable before the kernel was told");
  await world.run(client.resize("b", larger / 512));
  assert.equal(later, [["b"], ["b"]], "the kernel is told");
  await world.run(client.pool.unshareVolume("b", { force: false }));
  assert.equal([applied.at(-1), later.at(-1)], [["b"], []]);
  await cutPower(client);
  assert.is(client.pool.shares.uuids().size, 0);
  await finish(client);
});

test.run();
