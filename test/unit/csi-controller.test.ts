// The CSI controller on storage nodes that are fakes. Every call is made of a controller that has
// just started, so whatever it knows it has from its nodes.
import { status } from "@grpc/grpc-js";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { groupMemberName } from "../../csi/ids.js";
import {
  BLOCK,
  GIB,
  MOUNT,
  makeWorld,
  NODE_1,
  NODE_2,
  refusesWith,
  type World,
} from "../support/csi.js";

type Answer = Record<string, unknown>;

async function create(world: World, name: string, more: object = {}): Promise<string> {
  const answer = await world.call("CreateVolume", { name, ...more });
  return (answer.volume as unknown as { volumeId: string }).volumeId;
}

async function snapshot(world: World, sourceVolumeId: string, name: string): Promise<string> {
  const answer = await world.call("CreateSnapshot", { sourceVolumeId, name });
  return (answer.snapshot as unknown as { snapshotId: string }).snapshotId;
}

const fromSnapshot = (snapshotId: string) => ({
  volumeContentSource: { snapshot: { snapshotId } },
});
const fromVolume = (volumeId: string) => ({ volumeContentSource: { volume: { volumeId } } });
const sized = (requiredBytes: number, limitBytes = 0) => ({
  capacityRange: { requiredBytes, limitBytes },
});

test("a volume is found again by its name, whoever asks", async () => {
  const world = makeWorld(["a", "b"]);
  const id = await create(world, "pvc-1");
  assert.match(id, /^[ab]\/pvc-1\/[0-9a-f-]{36}$/);
  assert.is(await create(world, "pvc-1"), id);
  await refusesWith(
    create(world, "pvc-1", sized(2 * GIB)),
    status.ALREADY_EXISTS,
    /1073741824 bytes/,
  );
  await world.call("DeleteVolume", { volumeId: id });
  await world.call("DeleteVolume", { volumeId: id });
  assert.not.equal(await create(world, "pvc-1"), id);
  await world.call("DeleteVolume", { volumeId: id });
  const { entries } = await world.call("ListVolumes", {});
  assert.is((entries as unknown as unknown[]).length, 1, "a later volume of that name stays");
});

test("a new volume goes near its pod, if there is room", async () => {
  const world = makeWorld(["a", "b", "c"]);
  const [a, b, c] = world.nodes;
  assert.ok(a && b && c);
  a.zone = "x";
  b.zone = "y";
  const zone = (name: string) => ({ segments: { "topology.kubernetes.io/zone": name } });
  let count = 0;
  const nodeFor = async (preferred: object[], requisite: object[] = []) => {
    const accessibilityRequirements = { preferred, requisite };
    const id = await create(world, `near-${count++}`, { accessibilityRequirements });
    return id.split("/")[0];
  };
  assert.is(await nodeFor([zone("x"), zone("y")]), "a");
  assert.is(await nodeFor([zone("y"), zone("x")], [zone("x"), zone("y")]), "b");
  assert.is(await nodeFor([], [zone("y")]), "b");
  assert.is(await nodeFor([zone("nowhere")]), "a", "every node can be reached from there");
  assert.is(await nodeFor([{ segments: { rack: "y" } }]), "a", "a word of others");
  b.fault.state = "down";
  assert.is(await nodeFor([zone("y")]), "a");
  await refusesWith(
    nodeFor([], []),
    status.INVALID_ARGUMENT,
    /accessibility_requirements has neither requisite nor preferred/,
  );
});

test("names may be anything, and stay apart", async () => {
  const world = makeWorld(["a"]);
  const odd = ["ü/ö @", "x".repeat(128), "x".repeat(127), `csi-${"0".repeat(40)}`, "..", "a b"];
  const ids = await Promise.all(odd.map((name) => create(world, name)));
  assert.is(new Set(ids).size, odd.length);
  for (const id of ids) assert.ok(id.length <= 128, id);
  const snapshots = await Promise.all(odd.map((name) => snapshot(world, ids[1] ?? "", name)));
  for (const id of snapshots) assert.ok(id.length <= 128, id);
  await refusesWith(
    create(world, "x".repeat(129)),
    status.INVALID_ARGUMENT,
    /^name is longer than 128/,
  );
  await refusesWith(create(world, ""), status.INVALID_ARGUMENT, /^name is missing/);
});

test("a new volume goes where there is most room", async () => {
  const world = makeWorld(["a", "b"]);
  const [a] = world.nodes;
  const info = a?.pool.info.bind(a.pool);
  if (a !== undefined && info !== undefined) {
    a.pool.info = async () => ({ ...(await info()), freeBytes: 4096 });
  }
  assert.match(await create(world, "one"), /^b\//);
  const pinned = { parameters: { storageNode: "a" } };
  assert.match(await create(world, "two", pinned), /^a\//);
  const nowhere = { parameters: { storageNode: "c" } };
  await refusesWith(create(world, "three", nowhere), status.INVALID_ARGUMENT, /storageNode\] is c/);
  await refusesWith(create(world, "one", pinned), status.ALREADY_EXISTS, /on storage node b/);
  const huge = create(world, "huge", sized(2 ** 41));
  await refusesWith(huge, status.RESOURCE_EXHAUSTED, /no storage node has room/);
});

test("sizes: rounded up to blocks, within the limit, never less than the source", async () => {
  const world = makeWorld(["a"]);
  const answer = await world.call("CreateVolume", { name: "odd", ...sized(4097) });
  assert.is((answer.volume as unknown as Answer).capacityBytes, 8192);
  const sizeOf = async (name: string, range: object) => {
    const { volume } = await world.call("CreateVolume", { name, ...range });
    return (volume as unknown as Answer).capacityBytes;
  };
  assert.is(await sizeOf("any", { capacityRange: null }), GIB);
  assert.is(await sizeOf("at most", sized(0, 10_000)), 8192);
  await refusesWith(
    create(world, "tight", sized(4097, 4098)),
    status.OUT_OF_RANGE,
    /at most 4098 bytes/,
  );
  await refusesWith(create(world, "vast", sized(2 ** 51)), status.OUT_OF_RANGE, /capacity_range/);
  await refusesWith(create(world, "minus", sized(-1)), status.INVALID_ARGUMENT, /required_bytes/);
  await refusesWith(
    create(world, "mixed", sized(8192, 4096)),
    status.INVALID_ARGUMENT,
    /limit_bytes/,
  );
  const origin = await create(world, "origin");
  const small = { ...fromVolume(origin), ...sized(4096, 8192) };
  await refusesWith(create(world, "small", small), status.OUT_OF_RANGE, /needs 1073741824/);
  assert.is(world.nodes[0]?.pool.volumes.has("small"), false, "nothing is left of it");
});

test("clones and snapshots stay on their origin's node, and grow if they are to", async () => {
  const world = makeWorld(["a", "b"]);
  const origin = await create(world, "origin", { parameters: { storageNode: "b" } });
  const snap = await snapshot(world, origin, "snap");
  assert.is(await snapshot(world, origin, "snap"), snap);
  const clone = await create(world, "clone", { ...fromSnapshot(snap), ...sized(3 * GIB) });
  assert.match(clone, /^b\//);
  const branch = await create(world, "branch", fromVolume(clone));
  assert.is((await world.nodes[1]?.pool.getVolume("branch"))?.sizeBytes, 3 * GIB);
  await refusesWith(create(world, "clone"), status.ALREADY_EXISTS, /a clone of origin@snap/);
  await refusesWith(
    create(world, "clone", fromVolume(origin)),
    status.ALREADY_EXISTS,
    /origin@snap/,
  );
  // In any order: parents first.
  await world.call("DeleteVolume", { volumeId: origin });
  const later = await create(world, "later", fromSnapshot(snap));
  await world.call("DeleteSnapshot", { snapshotId: snap });
  await world.call("DeleteSnapshot", { snapshotId: snap });
  for (const volumeId of [clone, branch, later]) await world.call("DeleteVolume", { volumeId });
});

test("sources that are not there", async () => {
  const world = makeWorld(["a"]);
  const gone = "a/v/00000000-0000-4000-8000-000000000000";
  await refusesWith(
    create(world, "1", fromVolume(gone)),
    status.NOT_FOUND,
    /there is no volume a\/v/,
  );
  await refusesWith(create(world, "2", fromVolume("junk")), status.NOT_FOUND, /no volume junk/);
  await refusesWith(
    create(world, "3", fromSnapshot("a/v@s")),
    status.NOT_FOUND,
    /no snapshot a\/v@s/,
  );
  await refusesWith(create(world, "4", fromSnapshot("")), status.INVALID_ARGUMENT, /snapshot_id/);
  const none = { volumeContentSource: {} };
  await refusesWith(create(world, "5", none), status.INVALID_ARGUMENT, /volume_content_source/);
  await refusesWith(snapshot(world, gone, "s"), status.NOT_FOUND, /no volume/);
  await refusesWith(snapshot(world, "", "s"), status.INVALID_ARGUMENT, /source_volume_id/);
});

test("a snapshot's name is one for all volumes", async () => {
  const world = makeWorld(["a", "b"]);
  const one = await create(world, "one", { parameters: { storageNode: "a" } });
  const two = await create(world, "two", { parameters: { storageNode: "b" } });
  const first = await snapshot(world, one, "snap");
  await refusesWith(snapshot(world, two, "snap"), status.ALREADY_EXISTS, /of volume one/);
  await world.call("DeleteSnapshot", { snapshotId: first });
  await snapshot(world, two, "snap");
});

test("publishing lets one node in, and unpublishing fences it", async () => {
  const world = makeWorld(["a"]);
  const volumeId = await create(world, "v");
  const publish = (nodeId: string, more = {}) =>
    world.call("ControllerPublishVolume", { volumeId, nodeId, ...more });
  const { publishContext } = await publish(NODE_1);
  const { traddr, trsvcid, nqn } = publishContext as unknown as Record<string, string>;
  assert.equal([traddr, trsvcid], ["10.0.0.1", "4420"]);
  assert.is(nqn?.endsWith(volumeId.split("/")[2] ?? "-"), true);
  assert.equal(await publish(NODE_1), { publishContext });
  await world.nodes[0]?.pool.setHostTlsKey(NODE_2);
  assert.equal(await publish(NODE_1), { publishContext });
  await world.nodes[0]?.pool.setHostTlsKey(NODE_1);
  const demanded = { ...(publishContext as unknown as object), tls: "required" };
  assert.equal(await publish(NODE_1), { publishContext: demanded });
  await refusesWith(publish(NODE_2), status.FAILED_PRECONDITION, /is published to nqn\S+:node-1/);
  await refusesWith(publish("node-1"), status.NOT_FOUND, /^node_id: node-1 is no node/);
  await refusesWith(publish(""), status.INVALID_ARGUMENT, /^node_id/);
  await refusesWith(publish(NODE_1, { readonly: true }), status.INVALID_ARGUMENT, /^readonly/);
  await refusesWith(
    publish(NODE_1, { volumeCapability: null }),
    status.INVALID_ARGUMENT,
    /capability/,
  );
  const many = { ...MOUNT, accessMode: { mode: "MULTI_NODE_MULTI_WRITER" } };
  await refusesWith(
    publish(NODE_1, { volumeCapability: many }),
    status.INVALID_ARGUMENT,
    /MULTI_NODE/,
  );
  const unpublish = (nodeId: string) =>
    world.call("ControllerUnpublishVolume", { volumeId, nodeId });
  await unpublish(NODE_2);
  await unpublish(NODE_1);
  await unpublish(NODE_1);
  await publish(NODE_2);
  await unpublish("");
  assert.equal((await world.nodes[0]?.pool.getVolume("v"))?.allowedHosts, []);
  await world.call("ControllerUnpublishVolume", { volumeId: "junk", nodeId: NODE_1 });
  const gone = world.call("ControllerPublishVolume", { volumeId: "junk", nodeId: NODE_1 });
  await refusesWith(gone, status.NOT_FOUND, /no volume junk/);
});

test("a node takes as many volumes as it may, and no more", async () => {
  const world = makeWorld(["a", "b"], 2);
  const publish = (volumeId: string) =>
    world.call("ControllerPublishVolume", { volumeId, nodeId: NODE_1 });
  const ids = [await create(world, "1"), await create(world, "2"), await create(world, "3")];
  await publish(ids[0] ?? "");
  await publish(ids[1] ?? "");
  await publish(ids[1] ?? "");
  await refusesWith(
    publish(ids[2] ?? ""),
    status.RESOURCE_EXHAUSTED,
    /has 2 volumes, and may have 2/,
  );
});

test("a volume that a host has open is not deleted", async () => {
  const world = makeWorld(["a"]);
  const volumeId = await create(world, "v");
  world.nodes[0]?.pool.open("v", { frontEnd: "nvme-tcp", hostNqn: NODE_1, count: 1 });
  const deleting = world.call("DeleteVolume", { volumeId });
  await refusesWith(deleting, status.FAILED_PRECONDITION, /in use/);
});

test("a storage node that is down fails its own volumes' calls only", async () => {
  const world = makeWorld(["a", "b"]);
  const on = (storageNode: string) => ({ parameters: { storageNode } });
  const lost = await create(world, "lost", on("a"));
  const well = await create(world, "well", on("b"));
  const snap = await snapshot(world, lost, "lost-snap");
  const [a] = world.nodes;
  if (a !== undefined) a.fault.state = "down";
  const down = status.UNAVAILABLE;
  await refusesWith(world.call("DeleteVolume", { volumeId: lost }), down, /no daemon answers/);
  await refusesWith(create(world, "c", fromSnapshot(snap)), down, /no daemon answers/);
  await refusesWith(create(world, "d", on("a")), down, /storage node a does not take writes/);
  await refusesWith(world.call("ListVolumes", {}), down, /no daemon answers/);
  const nowhere = "z/v/00000000-0000-4000-8000-000000000000";
  await refusesWith(
    world.call("DeleteVolume", { volumeId: nowhere }),
    down,
    /z is not in the driver/,
  );
  assert.match(await create(world, "new"), /^b\//);
  await snapshot(world, well, "well-snap");
  await world.call("ControllerPublishVolume", { volumeId: well, nodeId: NODE_1 });
  const { availableCapacity } = await world.call("GetCapacity", {});
  assert.is(availableCapacity as unknown as number, 2 ** 40 - 4096);
  if (a !== undefined) a.fault.state = null;
  assert.is(await create(world, "lost", on("a")), lost);
});

test("lists are cut into pages, and go on where they ended", async () => {
  const world = makeWorld(["a", "b"]);
  const ids: string[] = [];
  for (const name of ["1", "2", "3", "4", "5"]) {
    const storageNode = Number(name) % 2 === 0 ? "a" : "b";
    ids.push(await create(world, name, { parameters: { storageNode } }));
    await snapshot(world, ids.at(-1) ?? "", `s${name}`);
  }
  for (const [method, of] of [
    ["ListVolumes", (entry: Answer) => (entry.volume as Answer).volumeId],
    ["ListSnapshots", (entry: Answer) => (entry.snapshot as Answer).snapshotId],
  ] as const) {
    const seen: unknown[] = [];
    let startingToken = "";
    do {
      const page = await world.call(method, { maxEntries: 2, startingToken });
      seen.push(...(page.entries as unknown as Answer[]).map(of));
      startingToken = page.nextToken as unknown as string;
    } while (startingToken !== "");
    assert.is(new Set(seen).size, 5, method);
    await refusesWith(
      world.call(method, { startingToken: "junk" }),
      status.ABORTED,
      /starting_token/,
    );
    await refusesWith(
      world.call(method, { maxEntries: -1 }),
      status.INVALID_ARGUMENT,
      /max_entries/,
    );
  }
  const select = async (filter: object) =>
    ((await world.call("ListSnapshots", filter)).entries as unknown as unknown[]).length;
  assert.is(await select({ sourceVolumeId: ids[0] }), 1);
  assert.is(await select({ snapshotId: "b/1@s1" }), 1);
  assert.is(await select({ snapshotId: "b/1@s1", sourceVolumeId: ids[1] }), 0);
  assert.is(await select({ snapshotId: "junk" }), 0);
  assert.is(await select({ sourceVolumeId: "junk" }), 0);
});

test("a list of very many fits into what the sidecars take", async () => {
  const world = makeWorld(["a"]);
  const volumes = 9000;
  // As long as they get.
  const longest = "x".repeat(40);
  for (let index = 0; index < volumes; index++) {
    await world.nodes[0]?.pool.createVolume(`${longest}${10_000 + index}`, GIB);
  }
  const seen = new Set<unknown>();
  for (const maxEntries of [0, volumes]) {
    let startingToken = "";
    let pages = 0;
    do {
      const page = await world.call("ListVolumes", { maxEntries, startingToken });
      const entries = page.entries as unknown as { volume: Answer }[];
      for (const { volume } of entries) seen.add(volume.volumeId);
      assert.ok(JSON.stringify(entries).length < 4 * 2 ** 20, `${entries.length} entries`);
      startingToken = page.nextToken as unknown as string;
      pages += 1;
    } while (startingToken !== "");
    assert.is(seen.size, volumes);
    assert.is(pages, 3);
    seen.clear();
  }
});

test("what can be asked of a volume is checked, not refused", async () => {
  const world = makeWorld(["a"]);
  const volumeId = await create(world, "v");
  const validate = (volumeCapabilities: object[]) =>
    world.call("ValidateVolumeCapabilities", { volumeId, volumeCapabilities });
  assert.ok((await validate([MOUNT, BLOCK])).confirmed);
  const ntfs = { ...MOUNT, mount: { ...MOUNT.mount, fsType: "ntfs" } };
  const answer = await validate([ntfs]);
  assert.is(answer.confirmed as unknown, null);
  assert.match(answer.message as unknown as string, /ntfs; there are ext4, xfs, btrfs/);
});

test("a volume grows, once, and to what was asked", async () => {
  const world = makeWorld(["a"]);
  const volumeId = await create(world, "v");
  const expand = (requiredBytes: number, more = {}) =>
    world.call("ControllerExpandVolume", { volumeId, ...sized(requiredBytes), ...more });
  const grown = { capacityBytes: 2 * GIB, nodeExpansionRequired: true };
  assert.equal(await expand(2 * GIB), grown);
  assert.equal(await expand(GIB), grown);
  const raw = await expand(2 * GIB, { volumeCapability: BLOCK });
  assert.is(raw.nodeExpansionRequired as unknown, false);
  await refusesWith(expand(GIB, sized(GIB, GIB)), status.OUT_OF_RANGE, /needs 2147483648/);
  await refusesWith(expand(0, { capacityRange: null }), status.INVALID_ARGUMENT, /capacity_range/);
});

test("limits come from a class of volume attributes, and can be changed", async () => {
  const world = makeWorld(["a"]);
  const limits = async () => (await world.nodes[0]?.pool.getVolume("v"))?.limits;
  const slow = { mutableParameters: { iops: "500", bandwidth: "20MiB" } };
  const volumeId = await create(world, "v", slow);
  assert.equal(await limits(), { iops: 500, bytesPerSecond: 20 * 2 ** 20 });
  const modify = (mutableParameters: object) =>
    world.call("ControllerModifyVolume", { volumeId, mutableParameters });
  await modify({ iops: "none" });
  await modify({});
  const wrong: [object, RegExp][] = [
    [{ bandwidth: "1GiB", speed: "high" }, /unknown key speed/],
    [{ bandwidth: "1GiB", iops: "0" }, /iops/],
    [{ iops: "7", bandwidth: "1" }, /bandwidth\] is 1, not from 65536/],
    [{ iops: "many" }, /iops/],
  ];
  for (const [parameters, message] of wrong) {
    await refusesWith(modify(parameters), status.INVALID_ARGUMENT, message);
  }
  assert.equal(await limits(), { iops: null, bytesPerSecond: 20 * 2 ** 20 });
  const broken = create(world, "w", { mutableParameters: { speed: "high" } });
  await refusesWith(broken, status.INVALID_ARGUMENT, /unknown key speed/);
  assert.is(world.nodes[0]?.pool.volumes.has("w"), false, "nothing is made");
});

test("unknown parameters are refused, Kubernetes' own are not", async () => {
  const world = makeWorld(["a"]);
  const withParameters = (parameters: object) => create(world, "v", { parameters });
  await withParameters({ "csi.storage.k8s.io/pvc/name": "db", ioQueues: "4" });
  await refusesWith(
    withParameters({ iOQueues: "4" }),
    status.INVALID_ARGUMENT,
    /unknown key iOQueues/,
  );
  await refusesWith(
    withParameters({ ioQueues: "0" }),
    status.INVALID_ARGUMENT,
    /ioQueues\] is "0"/,
  );
  await refusesWith(withParameters({ ctrlLossSeconds: "10" }), status.INVALID_ARGUMENT, /ctrlLoss/);
});

test("a group is cut at once, on one node, and is deleted whole", async () => {
  const world = makeWorld(["a", "b"]);
  const on = (storageNode: string) => ({ parameters: { storageNode } });
  const ids = [await create(world, "1", on("a")), await create(world, "2", on("a"))];
  const far = await create(world, "3", on("b"));
  const group = (sourceVolumeIds: string[], name = "g") =>
    world.call("CreateVolumeGroupSnapshot", { name, sourceVolumeIds });
  const made = (await group(ids)).groupSnapshot as unknown as {
    groupSnapshotId: string;
    snapshots: { snapshotId: string; sourceVolumeId: string; groupSnapshotId: string }[];
  };
  assert.equal(made.snapshots.map(({ sourceVolumeId }) => sourceVolumeId).sort(), ids);
  assert.equal((await group([...ids].reverse())).groupSnapshot as unknown, made);
  const other = status.ALREADY_EXISTS;
  await refusesWith(group(ids.slice(1)), other, /of other volumes/);
  await refusesWith(group([far]), other, /of other volumes/);
  await refusesWith(
    group([ids[0] ?? "", far], "h"),
    status.FAILED_PRECONDITION,
    /two storage nodes/,
  );
  await refusesWith(group([], "h"), status.INVALID_ARGUMENT, /source_volume_ids/);
  await refusesWith(group(["junk"], "h"), status.NOT_FOUND, /no volume junk/);
  const { groupSnapshotId, snapshots } = made;
  const [first] = snapshots;
  assert.is(first?.groupSnapshotId, groupSnapshotId);
  const snapshotId = first?.snapshotId ?? "";
  const alone = world.call("DeleteSnapshot", { snapshotId });
  await refusesWith(alone, status.INVALID_ARGUMENT, /is a member of/);
  await create(world, "clone", fromSnapshot(snapshotId));
  const snapshotIds = snapshots.map((one) => one.snapshotId);
  const get = (more: object) =>
    world.call("GetVolumeGroupSnapshot", { groupSnapshotId, snapshotIds, ...more });
  assert.equal((await get({})).groupSnapshot as unknown, made);
  await refusesWith(get({ snapshotIds: ["a/x@y"] }), status.INVALID_ARGUMENT, /not of the group/);
  const remove = () => world.call("DeleteVolumeGroupSnapshot", { groupSnapshotId, snapshotIds });
  await remove();
  await remove();
  await refusesWith(get({}), status.NOT_FOUND, /no group snapshot/);
});

test("a crash before or after any change, then the same call again", async () => {
  const calls: [string, Call][] = [
    ["create", (world) => create(world, "new")],
    ["clone larger", (world, id) => create(world, "new", { ...fromVolume(id), ...sized(2 * GIB) })],
    ["create with limits", (world) => create(world, "new", { mutableParameters: { iops: "9" } })],
    ["snapshot", (world, id) => snapshot(world, id, "snap")],
    ["publish", (world, id) => world.call("ControllerPublishVolume", toNode(id))],
    ["unpublish", (world, id) => world.call("ControllerUnpublishVolume", toNode(id))],
    ["expand", (world, id) => world.call("ControllerExpandVolume", larger(id))],
    ["modify", (world, volumeId) => world.call("ControllerModifyVolume", slower(volumeId))],
    ["clone of a snapshot", (world) => create(world, "new", fromSnapshot("a/old@old-snap"))],
    ["delete", (world, volumeId) => world.call("DeleteVolume", { volumeId })],
    [
      "delete a snapshot",
      (world) => world.call("DeleteSnapshot", { snapshotId: "a/old@old-snap" }),
    ],
    ["delete a group", (world) => world.call("DeleteVolumeGroupSnapshot", oldGroup())],
    ["group", (world, id) => world.call("CreateVolumeGroupSnapshot", groupOf(world, id))],
  ];
  for (const [what, call] of calls) {
    const reference = await settled(call, null);
    assert.ok(reference.changes > 0, what);
    for (let dieAtChange = 1; dieAtChange <= reference.changes; dieAtChange++) {
      for (const before of [true, false]) {
        const { state } = await settled(call, { dieAtChange, before });
        assert.equal(state, reference.state, `${what}, change ${dieAtChange}, before: ${before}`);
      }
    }
  }
});

test.run();

/** `volumeId`: of a volume that is there from the start. */
type Call = (world: World, volumeId: string) => Promise<unknown>;

function toNode(volumeId: string): object {
  return { volumeId, nodeId: NODE_1 };
}

function larger(volumeId: string): object {
  return { volumeId, ...sized(2 * GIB) };
}

function slower(volumeId: string): object {
  return { volumeId, mutableParameters: { iops: "9", bandwidth: "1MiB" } };
}

function groupOf({ nodes }: World, volumeId: string): object {
  const uuid = nodes[0]?.pool.volumes.get("other")?.uuid;
  return { name: "g", sourceVolumeIds: [volumeId, `a/other/${uuid}`] };
}

/** As Kubernetes knows it: with all the members that it had. */
function oldGroup(): object {
  const name = groupMemberName("old-group");
  return { groupSnapshotId: `a/${name}`, snapshotIds: [`a/old@${name}`, `a/other@${name}`] };
}

/** What is there when a call has been repeated until it was answered. */
async function settled(
  call: Call,
  fault: { dieAtChange: number; before: boolean } | null,
): Promise<{ state: unknown; changes: number }> {
  const world = makeWorld(["a"]);
  const volumeId = await create(world, "old");
  const [node] = world.nodes;
  if (node === undefined) throw new Error("no node");
  const otherId = await create(world, "other");
  await snapshot(world, volumeId, "old-snap");
  const both = [volumeId, otherId];
  await world.call("CreateVolumeGroupSnapshot", { name: "old-group", sourceVolumeIds: both });
  node.fault.changes = 0;
  node.fault.state = fault;
  if (fault !== null) {
    await refusesWith(call(world, volumeId), status.UNAVAILABLE, /no daemon answers/);
    node.fault.state = null;
  }
  await call(world, volumeId);
  const volumes = [...node.pool.volumes.values()].map(
    ({ uuid: _uuid, createdAt: _createdAt, ...rest }) => rest,
  );
  const snapshots = [...node.pool.snapshots.values()].map(
    ({ volume, name }) => `${volume}@${name}`,
  );
  return { state: { volumes, snapshots }, changes: node.fault.changes };
}
