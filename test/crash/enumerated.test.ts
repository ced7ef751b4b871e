// Every operation, crashed after its 1st step, its 2nd, … until it succeeds; each time with several
// sets of surviving units and of surviving transactions, by power cuts and by kills, and with a
// second crash at every step of the recovery. Whatever is found afterwards is the old or the new
// state, and the new one if the operation was acknowledged; the store is clean, and no block is
// lost when everything is deleted.
//
//   node dist/test/crash/enumerated.test.js [PART OF AN OPERATION'S NAME]
import { suite } from "uvu";
import { assert } from "../../engine/base/assert.js";
import type { Range } from "../sim/books.js";
import { Client } from "../sim/client.js";
import { until } from "../sim/steps.js";
import { type Survivors, World, type WorldOptions } from "../sim/world.js";

const test = suite("enumerated crashes");

const SECTORS = 1040;
const EDGE: Range = { sector: 508, count: 8 };
const PLACES: Range[] = [
  { sector: 0, count: 12 },
  { sector: 504, count: 16 },
  { sector: 1030, count: 20 },
];

interface Crash {
  kind: "power" | "kill";
  survivors: Survivors;
  seed: number;
  /** Of the transactions that were not durable, how many are kept. */
  keepsTransactions: boolean;
}

const cut = (survivors: Survivors, seed: number, keepsTransactions: boolean): Crash => ({
  kind: "power",
  survivors,
  seed,
  keepsTransactions,
});

const CRASHES: Crash[] = [
  cut("none", 1, false),
  cut("none", 1, true),
  cut("all", 1, false),
  cut("all", 1, true),
  cut("completed", 1, false),
  cut("completed", 1, true),
  cut("random", 1, true),
  cut("random", 2, false),
  cut("random", 3, true),
  cut("random", 4, false),
  { kind: "kill", survivors: "none", seed: 1, keepsTransactions: true },
  { kind: "kill", survivors: "none", seed: 2, keepsTransactions: true },
];
/** Units of 512 bytes differ in what is torn. */
const TORN = CRASHES.filter(({ survivors }) => survivors === "random");
/** Those after which recovery is crashed in its turn, by `AGAIN` one after the other. */
const BEFORE_RECOVERY: Crash[] = [
  cut("random", 5, true),
  { kind: "kill", survivors: "none", seed: 3, keepsTransactions: true },
];
const AGAIN: Crash[] = [
  cut("none", 6, false),
  cut("random", 7, true),
  { kind: "kill", survivors: "none", seed: 4, keepsTransactions: true },
];

interface Operation {
  name: string;
  options?: Partial<WorldOptions>;
  /** Everything here is acknowledged, and nothing is left to happen. */
  prepare?(client: Client): Promise<void>;
  /** What is under way when the operation begins; it is not waited for. */
  meanwhile?(client: Client): void;
  operate(client: Client): Promise<unknown>;
}

/** Written, flushed, checkpointed in part: journal, store and memory each have something. */
async function filledVolume(client: Client): Promise<void> {
  const { world } = client;
  await world.run(client.create("a", SECTORS));
  await world.run(client.open("a"));
  await world.run(client.write("a", EDGE));
  await world.run(client.write("a", { sector: 2, count: 6 }));
  await world.run(client.flush("a"));
  await world.run(client.checkpoint());
  await world.run(client.write("a", { sector: 1036, count: 3 }));
  await world.run(client.flush("a"));
  await world.run(client.write("a", { sector: 6, count: 4 }));
}

async function withSnapshot(client: Client): Promise<void> {
  const { world } = client;
  await filledVolume(client);
  await world.run(client.snapshot("a", "s"));
  await world.run(client.write("a", { sector: 0, count: 4 }));
  await world.run(client.flush("a"));
}

async function withClone(client: Client): Promise<void> {
  const { world } = client;
  await withSnapshot(client);
  await world.run(client.cloneSnapshot("a@s", "b"));
  await world.run(client.open("b"));
  await world.run(client.write("b", EDGE));
  await world.run(client.flush("b"));
  await world.run(client.close("b"));
}

const inFlight = (client: Client): void => {
  void client.write("a", { sector: 6, count: 4 });
  void client.write("a", { sector: 510, count: 4 });
  void client.discard("a", { sector: 2, count: 2 });
};

const OPERATIONS: Operation[] = [
  {
    name: "create volume",
    operate: (client) => client.create("n", SECTORS),
  },
  {
    name: "write, then flush",
    prepare: filledVolume,
    operate: async (client) => {
      await client.write("a", { sector: 500, count: 20 });
      await client.flush("a");
    },
  },
  {
    name: "write with FUA",
    prepare: filledVolume,
    operate: (client) => client.write("a", { sector: 5, count: 5 }, { fua: true }),
  },
  {
    name: "write with FUA in place",
    // Its blocks are new: what maps them is in the journal's memory only.
    prepare: async (client) => {
      await filledVolume(client);
      await client.world.run(client.write("a", { sector: 8, count: 4 }));
    },
    operate: (client) => client.write("a", { sector: 9, count: 2 }, { fua: true }),
  },
  {
    name: "flush after the volume was opened again",
    prepare: async (client) => {
      await filledVolume(client);
      await client.world.run(client.close("a"));
      await client.world.run(client.open("a"));
    },
    operate: (client) => client.flush("a"),
  },
  {
    name: "snapshot of a volume that nobody has open",
    prepare: async (client) => {
      await filledVolume(client);
      await client.world.run(client.write("a", { sector: 8, count: 4 }));
      await client.world.run(client.close("a"));
    },
    operate: (client) => client.snapshot("a", "s"),
  },
  {
    name: "partial write, then flush (blocks of 16 KiB)",
    options: { blockSizeBytes: 16384, dataBlocks: 120 },
    prepare: withSnapshot,
    operate: async (client) => {
      await client.write("a", { sector: 1, count: 6 });
      await client.writeZeroes("a", { sector: 9, count: 2 });
      await client.flush("a");
    },
  },
  {
    name: "discard, then flush",
    prepare: withSnapshot,
    operate: async (client) => {
      await client.discard("a", { sector: 1, count: 6 });
      await client.discard("a", { sector: 510, count: 4 });
      await client.flush("a");
    },
  },
  {
    name: "snapshot, writes in flight",
    prepare: filledVolume,
    meanwhile: inFlight,
    operate: (client) => client.snapshot("a", "s"),
  },
  {
    name: "group snapshot, writes in flight",
    prepare: async (client) => {
      await withClone(client);
      await client.world.run(client.open("b"));
      await client.world.run(client.write("b", { sector: 2, count: 2 }));
    },
    meanwhile: (client) => {
      void client.write("a", { sector: 6, count: 4 });
      void client.write("b", { sector: 510, count: 4 });
    },
    operate: (client) => client.snapshotGroup(["a", "b"], "g"),
  },
  {
    name: "roll back",
    prepare: async (client) => {
      await withClone(client);
      await client.world.run(client.snapshot("a", "t"));
      await client.world.run(client.write("a", { sector: 4, count: 6 }));
    },
    operate: (client) => client.rollBack("a@s"),
  },
  {
    name: "clone of a snapshot",
    prepare: withSnapshot,
    operate: (client) => client.cloneSnapshot("a@s", "c"),
  },
  {
    name: "clone of a live volume, writes in flight",
    prepare: withSnapshot,
    meanwhile: inFlight,
    operate: (client) => client.cloneVolume("a", "c"),
  },
  {
    name: "delete volume",
    prepare: withClone,
    operate: (client) => client.deleteVolume("a"),
  },
  {
    name: "delete snapshot",
    prepare: withClone,
    operate: (client) => client.deleteSnapshot("a@s"),
  },
  {
    name: "checkpoint",
    prepare: withClone,
    meanwhile: inFlight,
    operate: (client) => client.checkpoint(),
  },
  {
    name: "reclaim",
    prepare: withClone,
    operate: async (client) => {
      await client.deleteSnapshot("a@s");
      await client.deleteVolume("b");
      await client.deleteVolume("a");
      await client.pool.settle();
    },
  },
  {
    name: "fold, writes in flight",
    prepare: withSnapshot,
    meanwhile: inFlight,
    operate: async (client) => {
      await client.deleteSnapshot("a@s");
      await client.pool.settle();
    },
  },
  {
    name: "fold into a snapshot",
    prepare: async (client) => {
      await withSnapshot(client);
      await client.world.run(client.snapshot("a", "t"));
      await client.world.run(client.write("a", { sector: 508, count: 8 }));
    },
    operate: async (client) => {
      await client.deleteSnapshot("a@s");
      await client.pool.settle();
    },
  },
  {
    name: "resize",
    prepare: filledVolume,
    operate: (client) => client.resize("a", SECTORS + 12),
  },
];

/** A world in which nothing is left to happen before the operation. */
async function begin(operation: Operation, atomicUnit: 512 | 4096): Promise<Client> {
  const world = new World({
    dataBlocks: 400,
    journalBlocks: 64,
    atomicUnit,
    indexCacheBytes: 8 * 2400,
    ...operation.options,
  });
  await world.format();
  await world.open();
  const client = new Client(world, PLACES);
  await operation.prepare?.(client);
  await world.quiesce();
  return client;
}

interface Run {
  client: Client;
  /** Steps taken since the operation began. */
  steps: number;
  acknowledged: boolean;
}

/** Runs the operation for `limit` steps, or until it is acknowledged. */
async function run(operation: Operation, atomicUnit: 512 | 4096, limit: number): Promise<Run> {
  const client = await begin(operation, atomicUnit);
  const before = client.world.stepCount;
  operation.meanwhile?.(client);
  let acknowledged = false;
  let failure: unknown = null;
  operation.operate(client).then(
    () => {
      acknowledged = true;
    },
    (error: unknown) => {
      failure = error;
    },
  );
  const steps = (): number => client.world.stepCount - before;
  await until(client.world, () => acknowledged || failure !== null || steps() === limit);
  if (failure !== null) throw failure;
  return { client, steps: steps(), acknowledged };
}

function crash(client: Client, how: Crash): void {
  if (how.kind === "kill") client.world.kill(how.seed);
  else client.world.cutPower(how.survivors, how.seed, (n) => (how.keepsTransactions ? n - 1 : 0));
  client.died(how.kind);
}

async function verify(client: Client): Promise<void> {
  await client.resume();
  await client.compareAll();
  await client.deleteAll();
}

/** Crashes at one point in every way. False: the operation was acknowledged before. */
async function crashAt(
  operation: Operation,
  atomicUnit: 512 | 4096,
  step: number,
  tally: { points: number; recoveries: number },
): Promise<boolean> {
  let acknowledged = false;
  for (const how of atomicUnit === 512 ? TORN : CRASHES) {
    const what = `${operation.name}, ${atomicUnit}, step ${step}, ${JSON.stringify(how)}`;
    await explain(what, async () => {
      const { client, ...ran } = await run(operation, atomicUnit, step);
      acknowledged = ran.acknowledged;
      crash(client, how);
      await client.world.open();
      await verify(client);
      client.world.destroy();
    });
  }
  for (const how of BEFORE_RECOVERY) {
    for (let at = 0; ; at++) {
      const again = AGAIN[(step + at) % AGAIN.length] as Crash;
      const what = `${operation.name}, ${atomicUnit}, step ${step}, ${JSON.stringify(how)}, then ${JSON.stringify(again)} in recovery after ${at}`;
      const opened = await explain(what, () =>
        crashRecovery(operation, atomicUnit, { step, how, at, again }),
      );
      if (opened) break;
      tally.recoveries++;
    }
  }
  tally.points++;
  return !acknowledged;
}

/** True: recovery was through before its step `at`. */
async function crashRecovery(
  operation: Operation,
  atomicUnit: 512 | 4096,
  { step, how, at, again }: { step: number; how: Crash; at: number; again: Crash },
): Promise<boolean> {
  const { client } = await run(operation, atomicUnit, step);
  const { world } = client;
  crash(client, how);
  const before = world.stepCount;
  const opened = await world.open({ interrupt: () => world.stepCount - before === at });
  if (!opened) {
    crash(client, again);
    await world.open();
    await verify(client);
  }
  world.destroy();
  return opened;
}

async function explain<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new Error(`${what}: ${(error as Error).message}`, { cause: error });
  }
}

const only = process.argv[2] ?? "";
for (const operation of OPERATIONS.filter(({ name }) => name.includes(only))) {
  test(operation.name, async () => {
    for (const atomicUnit of [4096, 512] as const) {
      const whole = await run(operation, atomicUnit, Number.POSITIVE_INFINITY);
      assert(whole.acknowledged, "the operation succeeds");
      whole.client.world.destroy();
      const tally = { points: 0, recoveries: 0 };
      for (let step = 0; await crashAt(operation, atomicUnit, step, tally); step++) {
        assert(step <= whole.steps, "a run takes no more steps than the one without a crash");
      }
      console.log(
        `${operation.name}, units of ${atomicUnit}: ${whole.steps} steps, ${tally.points} points tried, ` +
          `${atomicUnit === 512 ? TORN.length : CRASHES.length} crashes at each, and ${tally.recoveries} in recovery`,
      );
      assert(tally.points > whole.steps, "every step was a point");
    }
  });
}

test.run();
