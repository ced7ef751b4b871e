// A hidden layer is folded into its only child, whatever the child does meanwhile and whenever the
// machine stops: nothing is lost, nothing is owned twice, and its space comes back. The same if the
// child absorbs it.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkStore } from "../../engine/core/check.js";
import type { Client } from "../sim/client.js";
import {
  addVolume,
  counters,
  cutAfterEachStep,
  cutPower,
  FEW_BLOCKS,
  finish,
  flush,
  read,
  smallPool,
  write,
} from "../sim/small-pool.js";
import {
  drain,
  ended,
  type Holds,
  isKind,
  type Tracked,
  take,
  track,
  until,
} from "../sim/steps.js";
import type { World } from "../sim/world.js";

const test = suite("fold");
const STORE: Holds = isKind("commit", "durable");
const FEW_ENTRIES = 2 * 2400;
/** No parent here has so many index blocks: all are folded. */
const NEVER = 1000;
/** As the test that runs has it. */
let absorbFrom = NEVER;
const absorbing = (): boolean => absorbFrom !== NEVER;

/** In both directions. */
function both(name: string, run: () => Promise<void>): void {
  test(name, run);
  test(`${name} (absorbed)`, async () => {
    absorbFrom = 1;
    try {
      await run();
    } finally {
      absorbFrom = NEVER;
    }
  });
}

/** Volume a over its snapshot s, which has spans 0, 1 and 2; a has changed some of it. */
async function overSnapshot(options = {}): Promise<Client> {
  const client = await smallPool({ absorbFrom, ...options });
  const { world } = client;
  await write(client, "a", 0, 8);
  await write(client, "a", 510, 6);
  await write(client, "a", 1030, 4);
  await world.run(client.snapshot("a", "s"));
  await write(client, "a", 2, 4);
  await flush(client, "a");
  await world.run(client.checkpoint());
  await world.quiesce();
  return client;
}

/** A fold is about to put what it merged. */
const underWay = ({ foldPhase }: World): boolean =>
  foldPhase === (absorbing() ? "absorb" : "transaction");

/** Deletes the snapshot, and stops where a fold is about to put what it merged. */
async function foldUnderWay(client: Client, key = "a@s"): Promise<void> {
  const { world } = client;
  await world.run(client.deleteSnapshot(key));
  assert.ok(await until(world, () => underWay(world)));
}

/** Fills a small index cache with something else. */
async function pushOut(client: Client): Promise<void> {
  await addVolume(client, "b");
  for (const sector of [0, 520, 1030]) await write(client, "b", sector, 1);
  await client.world.run(client.checkpoint());
  for (const sector of [0, 520, 1030, 0, 520]) await read(client, "b", sector, 1);
}

const layersOf = (client: Client): number => checkStore(client.world.store).layers;

both("a snapshot that is deleted is folded into its volume, and its space comes back", async () => {
  const client = await overSnapshot();
  const { world } = client;
  await world.run(client.deleteSnapshot("a@s"));
  await world.quiesce();
  assert.is(layersOf(client), 1);
  // 18 sectors are mapped; the 4 that were written over are free.
  assert.is(checkStore(world.store).ownedBlocks, 18);
  const info = await world.run(client.pool.info());
  assert.is(info?.value.usedBytes, 18 * 4096);
  assert.is(info?.value.reclaim.layersFolded, 1);
  // The volume has an index block of one of the three.
  assert.is(info?.value.reclaim.spansFolded, absorbing() ? 1 : 3);
  assert.is(world.absorbed, absorbing() ? 1 : 0);
  await read(client, "a", 0, 16);
  await write(client, "a", 0, 16);
  await cutPower(client);
  await finish(client);
});

test("a fold goes on with what did not fit into its transaction", async () => {
  for (const kind of ["open", "cold", "frozen"]) {
    const cold = kind === "cold" ? { indexCacheBytes: FEW_ENTRIES } : {};
    const client = await overSnapshot({ foldChunks: 0, ...cold });
    const { world } = client;
    for (const sector of [0, 511, 1031]) await write(client, "a", sector, 2);
    if (kind === "frozen") await world.run(client.snapshot("a", "t"));
    await world.run(client.deleteSnapshot("a@s"));
    assert.ok(await until(world, () => world.foldPhase === "transaction"));
    assert.ok(await until(world, () => world.foldPhase === "none"));
    // The span that was left is as it was, in memory and in the store.
    await read(client, "a", 508, 8);
    const writing = track(client.write("a", { sector: 509, count: 3 }));
    assert.ok(await ended(world, writing));
    await world.quiesce();
    assert.is((await world.run(client.pool.info()))?.value.reclaim.layersFolded, 1);
    await world.run(client.checkpoint());
    assert.is(checkStore(world.store).problems.join(), "");
    await read(client, "a", 0, 16);
    await cutPower(client, { keep: "random", seed: 2 });
    await finish(client);
  }
});

both("a fold of any kind of child: closed, never opened, frozen, cold", async () => {
  for (const kind of ["closed", "never opened", "frozen", "cold"]) {
    const client = await overSnapshot(kind === "cold" ? { indexCacheBytes: FEW_ENTRIES } : {});
    const { world } = client;
    if (kind === "closed") await world.run(client.close("a"));
    if (kind === "frozen") await world.run(client.snapshot("a", "t"));
    if (kind === "never opened") {
      await world.run(client.cloneSnapshot("a@s", "b"));
      await world.run(client.deleteVolume("a"));
    }
    await world.run(client.deleteSnapshot("a@s"));
    await world.quiesce();
    assert.is(layersOf(client), kind === "frozen" ? 2 : 1, kind);
    const name = kind === "never opened" ? "b" : "a";
    await world.run(client.open(name));
    await read(client, name, 0, 16);
    await write(client, name, 4, 8);
    await write(client, name, 511, 2);
    await flush(client, name);
    await cutPower(client, { keep: "random" });
    await finish(client);
  }
});

both("what memory has is folded, not what the store has", async () => {
  const client = await overSnapshot();
  const { world } = client;
  await world.run(client.deleteSnapshot("a@s"));
  // Dirty when the fold comes to it: it is taken for neither a hole nor the parent's.
  assert.ok(await until(world, () => world.checkpointPhase === "last"));
  await ended(world, track(client.write("a", { sector: 6, count: 6 })), STORE);
  await ended(world, track(client.discard("a", { sector: 510, count: 2 })), STORE);
  await world.quiesce();
  assert.is(layersOf(client), 1);
  await read(client, "a", 0, 16);
  await cutPower(client, { keep: "none" });
  await finish(client);
});

both("no folded index block goes to the store before its records are durable", async () => {
  const client = await overSnapshot();
  const { world } = client;
  const volatile = isKind("flush", "write-durable");
  await world.run(client.deleteSnapshot("a@s"));
  assert.ok(await until(world, () => world.checkpointPhase === "last"));
  assert.ok(await ended(world, track(client.write("a", { sector: 7, count: 3 })), STORE));
  await drain(world, volatile);
  await cutPower(client, { transactions: "all" });
  await finish(client);
});

both("changes of a span wait while it is folded, and reads go on", async () => {
  const client = await overSnapshot();
  const { world } = client;
  await foldUnderWay(client);
  const works = [
    track(client.write("a", { sector: 0, count: 2 })),
    track(client.discard("a", { sector: 6, count: 2 })),
    track(client.writeZeroes("a", { sector: 511, count: 3 })),
  ];
  const reading = track(client.read("a", { sector: 0, count: 16 }));
  assert.ok(await ended(world, reading, STORE));
  await drain(world, STORE);
  assert.ok(works.every(({ state }) => state === "waiting"));
  // Committed is not enough: what they would free is decided by what is durable.
  await take(world, isKind("commit"));
  await drain(world, STORE);
  assert.ok(works.every(({ state }) => state === "waiting"));
  for (const work of works) assert.ok(await ended(world, work));
  assert.ok(((await counters(client)).foldWaits ?? 0) >= 3);
  await flush(client, "a");
  await cutPower(client);
  await finish(client);
});

both("a look-up between a fold's commit and its durability finds what was moved", async () => {
  for (const asked of ["before the fold", "when it is committed"]) {
    const client = await smallPool({ absorbFrom, indexCacheBytes: FEW_ENTRIES });
    const { world } = client;
    await write(client, "a", 0, 8);
    await world.run(client.snapshot("a", "s"));
    await world.run(client.checkpoint());
    // The snapshot's index block is in the store only, and the volume has none of its own.
    await pushOut(client);
    const late = isKind("question");
    const reads: Tracked<unknown>[] = [];
    const submit = (): void => {
      reads.push(track(client.read("a", { sector: 0, count: 8 })));
    };
    if (asked === "before the fold") submit();
    await ended(world, track(client.deleteSnapshot("a@s")), late);
    assert.ok(await until(world, () => underWay(world), late));
    await take(world, isKind("commit"));
    submit();
    const durable = isKind("durable");
    for (const reading of reads) assert.ok(await ended(world, reading, durable), asked);
    assert.ok(underWay(world));
    await world.quiesce();
    await read(client, "a", 0, 16);
    await finish(client);
  }
});

both("a write under way when its span is folded frees what it replaces", async () => {
  for (const keep of ["none", "all"] as const) {
    const client = await overSnapshot();
    const { world } = client;
    // Its data is on the way; it was planned when the snapshot owned the blocks.
    const writing = track(client.write("a", { sector: 0, count: 8 }));
    await world.settle();
    const late = isKind("write");
    assert.ok(await ended(world, track(client.deleteSnapshot("a@s")), late));
    assert.ok(await until(world, () => underWay(world), late));
    await drain(world, STORE);
    assert.is(writing.state, "waiting");
    await world.quiesce();
    assert.is(writing.state, "done");
    await flush(client, "a");
    await world.run(client.checkpoint());
    assert.is(checkStore(world.store).ownedBlocks, 18);
    await cutPower(client, { keep });
    await finish(client);
  }
});

both("a fold that is committed and lost is no fold", async () => {
  const client = await overSnapshot();
  const { world } = client;
  await foldUnderWay(client);
  void client.discard("a", { sector: 0, count: 2 });
  await take(world, isKind("commit"));
  void client.flush("a");
  await drain(world, STORE);
  await cutPower(client, { keep: "all", transactions: "none" });
  await finish(client);
});

both("a fold's blocks are not written again while a read knows them", async () => {
  const client = await smallPool({ absorbFrom, dataBlocks: FEW_BLOCKS });
  const { world } = client;
  await addVolume(client, "b");
  await write(client, "a", 0, 24);
  await world.run(client.snapshot("a", "s"));
  const reading = track(client.read("a", { sector: 0, count: 24 }));
  await world.settle();
  const late = isKind("read");
  assert.ok(await ended(world, track(client.write("a", { sector: 0, count: 24 })), late));
  assert.ok(await ended(world, track(client.deleteSnapshot("a@s")), late));
  await drain(world, late);
  assert.is(layersOf(client), 2);
  const filling = track(client.write("b", { sector: 0, count: 40 }));
  await drain(world, late);
  assert.is(filling.state === "done" ? filling.value : filling.state, "no-space");
  assert.ok(await ended(world, reading));
  await world.quiesce();
  await finish(client);
});

both("a checkpoint's batch and a fold's do not overtake each other", async () => {
  for (let at = 0, past = false; !past; at++) {
    const client = await overSnapshot();
    const { world } = client;
    await world.run(client.deleteSnapshot("a@s"));
    assert.ok(await until(world, () => world.checkpointPhase === "last"));
    assert.ok(await ended(world, track(client.write("a", { sector: 5, count: 2 })), STORE));
    const before = world.stepCount;
    past = !(await until(world, () => world.stepCount - before === at));
    const checkpoint = track(client.checkpoint());
    assert.ok(await ended(world, checkpoint));
    await world.quiesce();
    assert.is(checkStore(world.store).problems.join(), "");
    await cutPower(client);
    await finish(client);
  }
});

both("an answer that was read before a fold does not count after it", async () => {
  const client = await overSnapshot({ indexCacheBytes: FEW_ENTRIES });
  const { world } = client;
  await world.run(client.close("a"));
  await pushOut(client);
  await world.run(client.open("a"));
  await foldUnderWay(client);
  const ANSWER: Holds = isKind("answer");
  const before = (await counters(client)).indexStaleAnswers ?? 0;
  const reading = track(client.read("a", { sector: 512, count: 4 }));
  await take(world, isKind("question"));
  await drain(world, ANSWER);
  // It rests after a batch of the fold, with the record of the folded layer still there.
  assert.is(layersOf(client), absorbing() ? 2 : 3);
  assert.is(reading.state, "waiting");
  assert.ok(await ended(world, reading));
  assert.is((await counters(client)).indexStaleAnswers, before + 1);
  // Its blocks are the volume's own now.
  await write(client, "a", 512, 4);
  await world.run(client.checkpoint());
  assert.is(checkStore(world.store).problems.join(), "");
  await cutPower(client);
  await finish(client);
});

both(
  "a question that comes after a fold's commit and before memory is told finds the child's",
  async () => {
    for (const later of [false, true]) {
      const client = await overSnapshot({ indexCacheBytes: FEW_ENTRIES });
      const { world } = client;
      // The live layer was made here, and had no index block of this span.
      await pushOut(client);
      const QUESTION: Holds = isKind("question", "answer");
      const early = later ? null : track(client.read("a", { sector: 512, count: 4 }));
      await world.settle();
      assert.ok(await ended(world, track(client.deleteSnapshot("a@s")), QUESTION));
      assert.ok(await until(world, () => underWay(world), QUESTION));
      const reading = early ?? track(client.read("a", { sector: 512, count: 4 }));
      await take(world, isKind("commit"));
      // It is read now, answered now, and the fold is not durable: memory has not heard of it.
      assert.ok(await ended(world, reading, STORE));
      assert.is(reading.value, "ok");
      await world.quiesce();
      await write(client, "a", 510, 5);
      await read(client, "a", 508, 8);
      await world.run(client.checkpoint());
      assert.is(checkStore(world.store).problems.join(), "");
      await cutPower(client);
      await finish(client);
    }
  },
);

both("a look-up of a layer that was folded away begins again", async () => {
  const client = await smallPool({ absorbFrom, indexCacheBytes: FEW_ENTRIES });
  const { world } = client;
  await write(client, "a", 0, 8);
  await world.run(client.snapshot("a", "s"));
  await world.run(client.checkpoint());
  await pushOut(client);
  // The live layer was made here and has nothing: memory asks for the snapshot's.
  const reading = track(client.read("a", { sector: 0, count: 8 }));
  await world.settle();
  const QUESTION: Holds = isKind("question", "answer");
  assert.ok(world.choices().some(QUESTION));
  assert.ok(await ended(world, track(client.deleteSnapshot("a@s")), QUESTION));
  await drain(world, QUESTION);
  assert.is(layersOf(client), 2);
  assert.ok(await ended(world, reading));
  assert.is(reading.value, "ok");
  await finish(client);
});

both("the child may be snapshotted, cloned and deleted while it is folded into", async () => {
  const changes: ((client: Client) => Promise<unknown>)[] = [
    (client) => client.snapshot("a", "t"),
    (client) => client.cloneVolume("a", "c"),
    (client) => client.deleteVolume("a"),
  ];
  for (const change of changes) {
    for (let at = 0, past = false; !past; at++) {
      const client = await overSnapshot();
      const { world } = client;
      await world.run(client.deleteSnapshot("a@s"));
      const before = world.stepCount;
      past = !(await until(world, () => world.stepCount - before === at));
      assert.ok(await ended(world, track(change(client))));
      await world.quiesce();
      await client.compareAll();
      await cutPower(client, { keep: "random", seed: at });
      await finish(client);
    }
  }
});

both("a line of deleted layers becomes one, in any order", async () => {
  for (const order of [
    ["s0", "s1", "s2"],
    ["s2", "s1", "s0"],
    ["s1", "s0", "s2"],
  ]) {
    const client = await smallPool({ absorbFrom });
    const { world } = client;
    for (const name of ["s0", "s1", "s2"]) {
      await write(client, "a", 2 * Number(name.slice(1)), 6);
      await write(client, "a", 1030, 2);
      await world.run(client.snapshot("a", name));
    }
    await world.run(client.discard("a", { sector: 0, count: 3 }));
    for (const name of order) {
      await world.run(client.deleteSnapshot(`a@${name}`));
      if (name === "s0") await world.quiesce();
    }
    await world.quiesce();
    assert.is(layersOf(client), 1);
    assert.is(checkStore(world.store).ownedBlocks, 9);
    await cutPower(client);
    await finish(client);
  }
});

both("a hidden layer waits for its last child but one", async () => {
  const client = await overSnapshot();
  const { world } = client;
  await world.run(client.cloneSnapshot("a@s", "b"));
  await world.run(client.cloneSnapshot("a@s", "c"));
  await world.run(client.open("b"));
  await write(client, "b", 4, 4);
  await world.run(client.close("b"));
  await world.run(client.deleteSnapshot("a@s"));
  await world.quiesce();
  assert.is(layersOf(client), 4);
  await world.run(client.deleteVolume("c"));
  await world.quiesce();
  assert.is(layersOf(client), 3);
  await world.run(client.deleteVolume("a"));
  await world.quiesce();
  assert.is(layersOf(client), 1);
  assert.is(checkStore(world.store).ownedBlocks, 18);
  await cutPower(client);
  await finish(client);
});

both("a layer is folded after a checkpoint that began when it was deleted already", async () => {
  const client = await smallPool({ absorbFrom });
  const { world } = client;
  await write(client, "a", 0, 4);
  await flush(client, "a");
  // This checkpoint covers the records so far, and not those that follow.
  const checkpoint = track(client.checkpoint());
  assert.ok(await until(world, () => world.checkpointPhase === "batches"));
  assert.ok(await ended(world, track(client.write("a", { sector: 4, count: 4 })), STORE));
  const snapshot = track(client.snapshot("a", "s"));
  assert.ok(await ended(world, snapshot));
  const deleted = track(client.deleteSnapshot("a@s"));
  assert.ok(await ended(world, deleted));
  assert.ok(await ended(world, checkpoint));
  assert.ok(await until(world, () => layersOf(client) === 1));
  await cutPower(client, { transactions: "all" });
  await finish(client);
});

both("a fold that fails for want of room in the store is tried again", async () => {
  const client = await overSnapshot();
  const { world } = client;
  await foldUnderWay(client);
  world.store.failNextCommit("ENOSPC");
  const writing = track(client.write("a", { sector: 0, count: 2 }));
  await world.quiesce();
  assert.is(writing.state, "done");
  world.tick();
  await world.quiesce();
  assert.is(layersOf(client), 1);
  await cutPower(client);
  await finish(client);
});

both("a cut after any step finds every block owned, or free", async () => {
  const client = await overSnapshot();
  const { world } = client;
  await world.run(client.deleteSnapshot("a@s"));
  await cutAfterEachStep(client, track(client.pool.settle()));
  assert.is(layersOf(client), 1);
  await finish(client);
});

test("folds rest while hosts are at work, and not when space is wanted", async () => {
  const client = await overSnapshot();
  const { world } = client;
  await world.run(client.deleteSnapshot("a@s"));
  assert.ok(await until(world, () => underWay(world)));
  const reading = track(client.read("a", { sector: 0, count: 1 }));
  assert.ok(await ended(world, reading, STORE));
  await drain(world);
  assert.is(layersOf(client), 2, "it rests after the batch");
  world.tick();
  await drain(world);
  assert.is(layersOf(client), 1);
  await finish(client);
});

test.run();
