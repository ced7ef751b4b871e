// SnapshotMetadata on a storage node that is a fake: how ranges become messages, what is refused,
// and that an answer of the daemon that is cut is gone on with. Real diffs: test/csi/metadata.
import { status } from "@grpc/grpc-js";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { MetadataMessage } from "../../csi/messages.js";
import { PandoError } from "../../engine/base/errors.js";
import type { ChangedRange } from "../../engine/core/api.js";
import { makeWorld, refusesWith, type World } from "../support/csi.js";

const MIB = 1024 ** 2;

/** A volume with two snapshots, and what a diff of them says, batch by batch. */
async function makeSnapshots(batches: ChangedRange[][]) {
  const world = makeWorld(["a", "b"]);
  const [node] = world.nodes;
  if (node === undefined) throw new Error("no node");
  await node.pool.createVolume("v", 64 * MIB);
  await node.pool.createSnapshot("v", "one");
  await node.pool.createSnapshot("v", "two");
  const asked: number[] = [];
  const answers = { cutAfter: Number.POSITIVE_INFINITY };
  node.daemon.diff = async function* ({ startBytes }) {
    asked.push(startBytes);
    let given = 0;
    for (const batch of batches) {
      const rest = batch.filter((one) => one.offsetBytes + one.lengthBytes > startBytes);
      if (rest.length === 0) continue;
      if (given++ === answers.cutAfter) throw new PandoError("ECLOSED", "no daemon answers");
      yield rest;
    }
  };
  return { world, node, asked, answers };
}

const range = (offsetBytes: number, lengthBytes = 4096, zero = false): ChangedRange => ({
  offsetBytes,
  lengthBytes,
  zero,
});
const tuples = (messages: MetadataMessage[]) =>
  messages.flatMap(({ blockMetadata }) =>
    blockMetadata.map(({ byteOffset, sizeBytes }) => [byteOffset, sizeBytes]),
  );
const delta = (world: World, more: object = {}) =>
  world.read("GetMetadataDelta", {
    baseSnapshotId: "a/v@one",
    targetSnapshotId: "a/v@two",
    ...more,
  });

const BATCHES = [
  [range(0), range(8192)],
  [range(16384, 8192, true), range(MIB)],
  [range(2 * MIB, MIB)],
];
const ALL = [
  [0, 4096],
  [8192, 4096],
  [16384, 8192],
  [MIB, 4096],
  [2 * MIB, MIB],
];

test("ranges come in order, zeroes too, and no more in a message than are asked for", async () => {
  const { world } = await makeSnapshots(BATCHES);
  const messages = await delta(world);
  assert.equal(tuples(messages), ALL);
  for (const { blockMetadataType, volumeCapacityBytes } of messages) {
    assert.is(blockMetadataType, "VARIABLE_LENGTH");
    assert.is(volumeCapacityBytes, 64 * MIB);
  }
  const single = await delta(world, { maxResults: 1 });
  assert.is(single.length, ALL.length);
  assert.equal(tuples(single), ALL);
  const allocated = await world.read("GetMetadataAllocated", { snapshotId: "a/v@two" });
  assert.equal(tuples(allocated), ALL);
});

test("a stream begins where it is told", async () => {
  const { world, asked } = await makeSnapshots(BATCHES);
  assert.equal(tuples(await delta(world, { startingOffset: MIB })), ALL.slice(3));
  assert.equal(await delta(world, { startingOffset: 64 * MIB }), [
    { blockMetadataType: "VARIABLE_LENGTH", volumeCapacityBytes: 64 * MIB, blockMetadata: [] },
  ]);
  assert.equal(asked, [MIB, 64 * MIB]);
});

test("an answer that is cut is gone on with, as long as it gets on", async () => {
  const { world, asked, answers } = await makeSnapshots(BATCHES);
  answers.cutAfter = 1;
  assert.equal(tuples(await delta(world)), ALL);
  assert.equal(asked, [0, 12288, MIB + 4096]);
  answers.cutAfter = 0;
  await refusesWith(delta(world), status.UNAVAILABLE, /no daemon answers/);
});

test("what cannot be told is refused, with the field", async () => {
  const { world, node } = await makeSnapshots(BATCHES);
  const wrong: [object, status, RegExp][] = [
    [{ baseSnapshotId: "" }, status.INVALID_ARGUMENT, /^base_snapshot_id is missing/],
    [{ targetSnapshotId: "" }, status.INVALID_ARGUMENT, /^target_snapshot_id is missing/],
    [{ baseSnapshotId: "junk" }, status.NOT_FOUND, /^base_snapshot_id: there is no snapshot junk/],
    [{ targetSnapshotId: "a/v@x" }, status.NOT_FOUND, /^target_snapshot_id: .* a\/v@x/],
    [{ startingOffset: -1 }, status.OUT_OF_RANGE, /^starting_offset is -1, not from 0 to 67108864/],
    [{ startingOffset: 64 * MIB + 1 }, status.OUT_OF_RANGE, /^starting_offset/],
    [{ maxResults: -1 }, status.INVALID_ARGUMENT, /^max_results is negative/],
  ];
  for (const [more, code, message] of wrong) await refusesWith(delta(world, more), code, message);
  const none = world.read("GetMetadataAllocated", { snapshotId: "" });
  await refusesWith(none, status.INVALID_ARGUMENT, /^snapshot_id is missing/);

  const far = world.nodes[1];
  await far?.pool.createVolume("v", 64 * MIB);
  await far?.pool.createSnapshot("v", "one");
  const elsewhere = delta(world, { baseSnapshotId: "b/v@one" });
  await refusesWith(elsewhere, status.INVALID_ARGUMENT, /of another volume: it is on b/);

  // The engine knows no line between the two.
  node.daemon.diff = () => {
    throw new PandoError("EINVAL", "there is no line between them");
  };
  await refusesWith(delta(world), status.FAILED_PRECONDITION, /rolled back since/);
  const turned = { baseSnapshotId: "a/v@two", targetSnapshotId: "a/v@one" };
  await refusesWith(delta(world, turned), status.INVALID_ARGUMENT, /^base_snapshot_id and target/);
});

test.run();
