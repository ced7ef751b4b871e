// The calls of Kubernetes' sidecars, in their order and with what they send, over the socket: a
// claim, a snapshot of it, a claim of the snapshot, growth, and everything deleted in the order in
// which Kubernetes does it. After each call the answer is lost once and the call is made again.
import { join } from "node:path";
import { pino } from "pino";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { controllerServices } from "../../csi/controller.js";
import { identityService } from "../../csi/identity.js";
import { type CsiServer, startCsiServer } from "../../csi/server.js";
import { StorageNodes } from "../../csi/storage-nodes.js";
import { FakeNode, GIB, NODE_1, NODE_2 } from "../support/csi.js";
import { CsiClient } from "../support/csi-client.js";
import { temporaryFolder } from "../support/pando.js";

type Fields = Record<string, unknown>;

const folder = temporaryFolder();
const node = new FakeNode("a");
let server: CsiServer;
let csi: CsiClient;

test.before(async () => {
  const socket = join(folder.path, "csi.sock");
  server = await startCsiServer({
    socket,
    services: {
      Identity: identityService({ driverName: "csi.pando.io", version: "1", zones: false }),
      ...controllerServices({ nodes: new StorageNodes([node]), maxVolumesPerNode: null }),
    },
    log: pino({ level: "silent" }),
  });
  csi = new CsiClient(socket);
});

test.after(async () => {
  csi?.close();
  await server?.close();
  folder.remove();
});

/** As a sidecar that did not hear the answer. */
async function call(method: string, request: object): Promise<Fields> {
  const first = await csi.call("Controller", method, request);
  const second = await csi.call("Controller", method, request);
  assert.equal(second, first, `${method}, again`);
  return second;
}

const capability = (fsType: string) => ({
  mount: { fsType, mountFlags: ["discard"] },
  accessMode: { mode: "SINGLE_NODE_MULTI_WRITER" },
});

/** What external-provisioner sends for a claim, with `--extra-create-metadata`. */
const claim = (uid: string, sizeBytes: number, more: object = {}) => ({
  name: `pvc-${uid}`,
  capacityRange: { requiredBytes: sizeBytes },
  volumeCapabilities: [capability("ext4")],
  parameters: {
    "csi.storage.k8s.io/pvc/name": `claim-${uid}`,
    "csi.storage.k8s.io/pvc/namespace": "default",
    "csi.storage.k8s.io/pv/name": `pvc-${uid}`,
  },
  secrets: {},
  ...more,
});

const volumeOf = (answer: Fields) =>
  answer.volume as { volumeId: string; volumeContext: object; capacityBytes: number };

test("each sidecar finds at its start what it looks for", async () => {
  const { name } = await csi.call("Identity", "GetPluginInfo", {});
  assert.is(name, "csi.pando.io");
  const plugin = await csi.call("Identity", "GetPluginCapabilities", {});
  const services = (plugin.capabilities as Fields[]).map((one) => (one.service as Fields)?.type);
  for (const type of ["CONTROLLER", "GROUP_CONTROLLER", "SNAPSHOT_METADATA"]) {
    assert.ok(services.includes(`${type}_SERVICE`), type);
  }
  assert.not.ok(services.includes("VOLUME_ACCESSIBILITY_CONSTRAINTS"), "no topology is asked for");
  const controller = await csi.call("Controller", "ControllerGetCapabilities", {});
  const can = (controller.capabilities as { rpc: { type: string } }[]).map(({ rpc }) => rpc.type);
  for (const type of [
    ...["CREATE_DELETE_VOLUME", "CLONE_VOLUME", "SINGLE_NODE_MULTI_WRITER"], // provisioner
    ...["PUBLISH_UNPUBLISH_VOLUME", "LIST_VOLUMES_PUBLISHED_NODES"], // attacher
    ...["CREATE_DELETE_SNAPSHOT", "LIST_SNAPSHOTS"], // snapshotter
    ...["EXPAND_VOLUME", "MODIFY_VOLUME"], // resizer
  ]) {
    assert.ok(can.includes(type), type);
  }
});

test("a branch, from its claim to its end", async () => {
  const origin = volumeOf(await call("CreateVolume", claim("1", GIB)));
  await call("ControllerPublishVolume", attachment(origin.volumeId, NODE_1));

  // external-snapshotter: what is ready in the first answer is never polled for.
  const snapshotName = { name: "snapshot-1", sourceVolumeId: origin.volumeId, parameters: {} };
  const made = (await call("CreateSnapshot", snapshotName)).snapshot as Fields;
  assert.is(made.readyToUse, true);
  assert.is(made.sizeBytes, GIB);
  assert.is(made.sourceVolumeId, origin.volumeId);
  assert.ok(Number((made.creationTime as Fields).seconds) > 0);
  const snapshotId = made.snapshotId as string;
  const listed = await csi.call("Controller", "ListSnapshots", { snapshotId });
  assert.is((listed.entries as unknown[]).length, 1);

  // external-provisioner, for a claim with that snapshot as its source, and a larger one.
  const source = { volumeContentSource: { snapshot: { snapshotId } } };
  const branch = volumeOf(await call("CreateVolume", claim("2", 2 * GIB, source)));
  assert.is(branch.capacityBytes, 2 * GIB);

  // external-attacher: in a job on one node, then in the instance on another.
  for (const nodeId of [NODE_1, NODE_2]) {
    const { publishContext } = await call(
      "ControllerPublishVolume",
      attachment(branch.volumeId, nodeId),
    );
    assert.equal(Object.keys(publishContext as object).sort(), ["nqn", "traddr", "trsvcid"]);
    const volumes = await csi.call("Controller", "ListVolumes", {});
    const nodes = (volumes.entries as { volume: Fields; status: Fields }[]).find(
      ({ volume }) => volume.volumeId === branch.volumeId,
    )?.status.publishedNodeIds;
    assert.equal(nodes, [nodeId]);
    if (nodeId === NODE_2) break;
    await call("ControllerUnpublishVolume", { volumeId: branch.volumeId, nodeId });
  }

  // The snapshot goes while its clone is in use; then its origin.
  await call("DeleteSnapshot", { snapshotId });
  await call("ControllerUnpublishVolume", { volumeId: origin.volumeId, nodeId: NODE_1 });
  await call("DeleteVolume", { volumeId: origin.volumeId });

  // external-resizer.
  const grown = await call("ControllerExpandVolume", {
    volumeId: branch.volumeId,
    capacityRange: { requiredBytes: 3 * GIB },
    volumeCapability: capability("ext4"),
  });
  assert.equal(grown, { capacityBytes: 3 * GIB, nodeExpansionRequired: true });
  const mutableParameters = { iops: "2000", bandwidth: "100MiB" };
  await call("ControllerModifyVolume", { volumeId: branch.volumeId, mutableParameters });

  // A clone with no snapshot object, of the branch: the provisioner again.
  const cloned = { volumeContentSource: { volume: { volumeId: branch.volumeId } } };
  const leaf = volumeOf(await call("CreateVolume", claim("3", 3 * GIB, cloned)));
  await call("ControllerUnpublishVolume", { volumeId: branch.volumeId, nodeId: NODE_2 });
  await call("DeleteVolume", { volumeId: branch.volumeId });
  await call("DeleteVolume", { volumeId: leaf.volumeId });
  assert.is(node.pool.volumes.size + node.pool.snapshots.size, 0, "nothing is left");
});

test.run();

function attachment(volumeId: string, nodeId: string): object {
  return { volumeId, nodeId, volumeCapability: capability("ext4"), readonly: false };
}
