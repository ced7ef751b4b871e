// What a listing says of space after what is deleted has been swept: what it keeps of frozen layers
// has to be true for good.
import { suite } from "uvu";
import { findNames } from "../sim/audit.js";
import type { Client } from "../sim/client.js";
import { addVolume, finish, smallPool, write } from "../sim/small-pool.js";
import { compareSpace } from "../sim/space.js";
import { drain } from "../sim/steps.js";

const test = suite("listed space");
async function compare({ world }: Client): Promise<void> {
  await world.run(world.pool.settle());
  await world.run(world.pool.checkpoint());
  await drain(world);
  compareSpace(world, (await findNames(world)).listed);
}

test("what a swept layer's children see is what they saw", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 8);
  await world.run(client.snapshot("a", "p"));
  await world.run(client.cloneSnapshot("a@p", "b"));
  await world.run(client.open("b"));
  await compare(client);
  for (const name of ["a", "b"]) await write(client, name, 0, 4);
  await world.run(client.checkpoint());
  await world.run(client.deleteSnapshot("a@p"));
  await compare(client);
  await addVolume(client, "c");
  await finish(client);
});

test.run();
