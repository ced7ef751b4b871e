// One call fails, the first of its kind, then the second, … until the whole scenario needs no more
// of them: reads, writes, flushes and journal writes of the device, and commits of the store in
// each of their ways to fail. Whoever asked gets an error that says what it is, or success; nothing
// that was acknowledged is lost; opened again, the pool is clean, and works.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { isPandoError } from "../../engine/base/errors.js";
import type { Client } from "../sim/client.js";
import type { CommitFailure } from "../sim/model-store.js";
import { smallPool } from "../sim/small-pool.js";
import type { Choice, Scheduler } from "../sim/world.js";

const test = suite("n-th call fails");
const EIO = 5;
const ENOSPC = 28;
/** What one failed call may be answered with. */
const CODES = new Set(["EIO", "ENOSPC"]);
const STATUSES = new Set(["ok", "io-error", "no-space"]);

type Step = (client: Client) => Promise<unknown> | null;

const ifOpen =
  (name: string, step: Step): Step =>
  (client) =>
    client.volumes.get(name)?.held === true ? step(client) : null;
const ifThere =
  (name: string, step: Step): Step =>
  (client) =>
    client.volumes.has(name) || client.snapshots.has(name) ? step(client) : null;

/** Each is left out if what it needs is not there, because of the call that failed. */
const SCENARIO: Step[] = [
  ifOpen("a", (client) => client.write("a", { sector: 0, count: 20 })),
  ifOpen("a", (client) => client.flush("a")),
  ifOpen("a", (client) => client.write("a", { sector: 30, count: 9 })),
  (client) => client.snapshot("a", "s"),
  ifOpen("a", (client) => client.write("a", { sector: 2, count: 6 })),
  ifThere("a@s", (client) => client.cloneSnapshot("a@s", "b")),
  ifThere("b", (client) => client.open("b")),
  ifOpen("b", (client) => client.write("b", { sector: 1, count: 9 }, { fua: true })),
  ifOpen("a", (client) => client.discard("a", { sector: 4, count: 12 })),
  ifOpen("a", (client) => client.writeZeroes("a", { sector: 1, count: 2 })),
  (client) => client.checkpoint(),
  ifOpen("b", (client) => client.read("b", { sector: 0, count: 20 })),
  ifOpen("a", (client) => client.write("a", { sector: 6, count: 4 })),
  (client) => client.cloneVolume("a", "c"),
  ifThere("a@s", (client) => client.deleteSnapshot("a@s")),
  ifThere("b", (client) => client.deleteVolume("b")),
  (client) => client.pool.settle(),
  ifOpen("a", (client) => client.flush("a")),
  ifOpen("a", (client) => client.close("a")),
];

/** A call that fails: arranges for it; afterwards says whether it was reached. */
interface Fault {
  scheduler: Scheduler;
  reached(): boolean;
}

const deviceFault =
  (kind: Choice["kind"], errno: number) =>
  (number: number): Fault => {
    let left = number;
    const scheduler: Scheduler = (choices) => {
      const choice = choices[0] ?? null;
      if (choice === null || choice.kind !== kind || --left !== 0) return choice;
      return { ...choice, take: () => choice.take(errno) };
    };
    return { scheduler, reached: () => left <= 0 };
  };

const commitFault =
  (failure: CommitFailure) =>
  (number: number, client: Client): Fault => {
    let left = number;
    const scheduler: Scheduler = (choices) => {
      const choice = choices[0] ?? null;
      if (choice?.kind === "commit" && --left === 0) client.world.store.failNextCommit(failure);
      return choice;
    };
    return { scheduler, reached: () => left <= 0 };
  };

const FAULTS: Record<string, (number: number, client: Client) => Fault> = {
  "read of the device": deviceFault("read", EIO),
  "write to the device": deviceFault("write", EIO),
  "write to a device without room": deviceFault("write", ENOSPC),
  "flush of the device": deviceFault("flush", EIO),
  "journal write": deviceFault("write-durable", EIO),
  "commit of the store, without room": commitFault("ENOSPC"),
  "commit of the store": commitFault("EIO"),
  "commit of the store, in doubt": commitFault("doubt"),
};

for (const [what, faultOf] of Object.entries(FAULTS)) {
  test(`the n-th ${what} fails`, async () => {
    let number = 1;
    while (await failsAt(number, what, faultOf)) number++;
    console.log(`${what}: ${number - 1} calls, each failed in its turn`);
    assert.ok(number > 2, "the scenario needs some of them");
  });
}

/** False: the scenario needs fewer calls. */
async function failsAt(
  number: number,
  what: string,
  faultOf: (number: number, client: Client) => Fault,
): Promise<boolean> {
  const client = await smallPool({ blockSizeBytes: 16384, dataBlocks: 200 });
  const { world } = client;
  const fault = faultOf(number, client);
  const { scheduler } = fault;
  try {
    for (const step of SCENARIO) await attempt(client, step, scheduler);
    await world.quiesce(scheduler);
    const reached = fault.reached();
    if (number % 2 === 0) world.cutPower("random", number, (limit) => number % limit);
    else world.kill(number);
    client.died(number % 2 === 0 ? "power" : "kill");
    await world.open();
    await client.resume();
    await world.run(client.create("new", 1040));
    await world.run(client.open("new"));
    const written = await world.run(client.write("new", { sector: 0, count: 8 }, { fua: true }));
    assert.is(written?.value, "ok", "the pool works again");
    await client.compareAll();
    await client.deleteAll();
    world.destroy();
    return reached;
  } catch (error) {
    throw new Error(`${what} ${number}: ${(error as Error).message}`, { cause: error });
  }
}

async function attempt(client: Client, step: Step, scheduler: Scheduler): Promise<void> {
  const work = step(client);
  if (work === null) return;
  try {
    const outcome = (await client.world.run(work, { scheduler }))?.value;
    if (typeof outcome === "string") assert.ok(STATUSES.has(outcome), outcome);
  } catch (error) {
    if (!isPandoError(error)) throw error;
    assert.ok(CODES.has(error.code) && error.message.length > 10, String(error));
  }
}

test.run();
