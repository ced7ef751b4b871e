// What Kubernetes asks of the driver by its own control plane and sidecars: claims, snapshots,
// branches, growth, and nodes that a volume is attached to.
import * as assert from "uvu/assert";
import type { PandoNode, Volume } from "../system/pando-node.js";
import type { Fields, Ref, Stored } from "./api.js";
import type { Cluster } from "./cluster.js";
import {
  claim,
  DRIVER_NAME,
  named,
  namespaced,
  snapshotContent,
  snapshotOf,
  volume,
} from "./objects.js";
import type { Step } from "./steps.js";
import { STORAGE_NODE, type Storage } from "./storage.js";

const NODES = ["compute-1", "compute-2"];
const CREATE_SNAPSHOT = '"/csi.v1.Controller/CreateSnapshot"';
const LIST_SNAPSHOTS = '"/csi.v1.Controller/ListSnapshots"';
const MANY = 100;

/** They build on one another. */
export function branchingSteps(cluster: Cluster, storage: Storage): Step[] {
  const { api } = cluster;
  const node = storage.nodes[STORAGE_NODE] as PandoNode;
  const origin = claim("origin");
  const snapshot = snapshotOf("monday", "origin");

  const bound = (ref: Ref) => api.until(ref, ({ status }) => status.phase === "Bound");
  const volumeOf = async (ref: Ref): Promise<Stored> => {
    const { spec } = await bound(ref);
    const found = await api.get(volume(spec.volumeName as string));
    assert.ok(found !== null);
    return found;
  };
  const nameOf = async (ref: Ref): Promise<string> => {
    const { csi } = (await volumeOf(ref)).spec as { csi: { volumeHandle: string } };
    const [storageNode, name = ""] = csi.volumeHandle.split("/");
    assert.is(storageNode, STORAGE_NODE, "the node that Kubernetes names");
    return name;
  };
  const show = async (ref: Ref): Promise<Volume> => node.showVolume(await nameOf(ref));
  const remove = async (ref: Ref) => {
    await api.delete(ref);
    await api.untilGone(ref);
  };
  const attached = (ref: Ref) => api.until(ref, ({ status }) => status?.attached === true);
  const ready = (ref: Ref) => api.until(ref, ({ status }) => status?.readyToUse === true);

  return [
    [
      "a claim is bound",
      async () => {
        await api.create(origin);
        await bound(origin);
        const { sizeBytes } = await show(origin);
        assert.is(sizeBytes, 2 ** 30);
      },
    ],
    [
      "a snapshot is ready at the driver's first reply",
      async () => {
        await api.create(snapshot);
        const { status } = await ready(snapshot);
        assert.is(status.restoreSize, "1Gi");
        const log = storage.logOf("csi-snapshotter");
        assert.is(callsIn(log, CREATE_SNAPSHOT), 1, "one CreateSnapshot");
        assert.is(callsIn(log, LIST_SNAPSHOTS), 0, "and no asking again");
      },
    ],
    [
      "a branch of the snapshot is bound, and lives on without it",
      async () => {
        const branch = claim("branch", { from: snapshot, size: "2Gi" });
        await api.create(branch);
        const { parent, sizeBytes } = await show(branch);
        assert.match(parent ?? "", /^pvc-.*@snapshot-/);
        assert.is(sizeBytes, 2 ** 31);
        const { status } = (await api.get(snapshot)) as Stored;
        const content = snapshotContent(status.boundVolumeSnapshotContentName as string);
        await remove(snapshot);
        await api.untilGone(content);
        const { name } = await show(origin);
        const left = (await node.pando("snapshot", "list", name)) as unknown[];
        assert.equal(left, []);
        await show(branch);
      },
    ],
    [
      "a branch of a claim is bound, and lives on without its origin",
      async () => {
        const branch = claim("branch-of-claim", { from: claim("branch"), size: "2Gi" });
        await api.create(branch);
        await bound(branch);
        const gone = await volumeOf(claim("branch"));
        await remove(claim("branch"));
        await api.untilGone(gone);
        await show(branch);
      },
    ],
    [
      "a claim grows",
      async () => {
        const wanted = { spec: { resources: { requests: { storage: "3Gi" } } } };
        await api.patch(origin, wanted);
        const { metadata } = await volumeOf(origin);
        await api.until(volume(metadata.name), ({ spec }) => capacityOf(spec) === "3Gi");
        assert.is((await show(origin)).sizeBytes, 3 * 2 ** 30);
      },
    ],
    [
      "a claim's limits change",
      async () => {
        await api.create({
          ...named("storage.k8s.io/v1", "VolumeAttributesClass", "slow"),
          driverName: DRIVER_NAME,
          parameters: { iops: "500", bandwidth: "10MiB" },
        });
        await api.patch(origin, { spec: { volumeAttributesClassName: "slow" } });
        await api.until(origin, ({ status }) => status.currentVolumeAttributesClassName === "slow");
        const { limits } = (await show(origin)) as Volume & { limits: { iops: number } };
        assert.is(limits.iops, 500);
      },
    ],
    [
      "a volume is attached to its pod's node, and to another one only after that",
      async () => {
        for (const name of NODES) await createNode(cluster, name);
        const { metadata } = await volumeOf(origin);
        const [first, second] = NODES.map((name) => attachment(metadata.name, name));
        assert.ok(first && second);
        await api.create(first);
        await attached(first);
        assert.equal((await show(origin)).allowedHosts, [nqnOf(first.spec.nodeName)]);
        await api.create(second);
        const { status } = await api.until(second, (one) => one.status?.attachError !== undefined);
        const { message } = status.attachError as { message: string };
        assert.match(message, /is published to nqn/);
        await remove(first);
        await attached(second);
        assert.equal((await show(origin)).allowedHosts, [nqnOf(second.spec.nodeName)]);
        await remove(second);
        assert.equal((await show(origin)).allowedHosts, []);
      },
    ],
    [
      "a group of claims is one snapshot",
      async () => {
        const names = ["data", "wal"];
        for (const name of names) {
          const one = claim(name);
          await api.create({ ...one, metadata: { ...one.metadata, labels: { cluster: "db" } } });
          await bound(one);
        }
        const group = {
          ...namespaced("groupsnapshot.storage.k8s.io/v1", "VolumeGroupSnapshot", "group"),
          spec: {
            volumeGroupSnapshotClassName: "pando",
            source: { selector: { matchLabels: { cluster: "db" } } },
          },
        };
        await api.create(group);
        await ready(group);
        for (const name of names) {
          const { name: ours } = await show(claim(name));
          const made = (await node.pando("snapshot", "list", ours)) as unknown[];
          assert.is(made.length, 1);
        }
        await remove(group);
      },
    ],
    [
      `${MANY} branches of one snapshot, all asked for at once`,
      async () => {
        const base = snapshotOf("base", "branch-of-claim");
        await api.create(base);
        await ready(base);
        const startedAt = performance.now();
        const branches = Array.from({ length: MANY }, (_, index) =>
          claim(`many-${index}`, { from: base, size: "2Gi" }),
        );
        await Promise.all(branches.map((one) => api.create(one)));
        const ours = (all: Stored[]) => all.filter(({ metadata }) => /^many-/.test(metadata.name));
        await api.untilListed(origin, (all) => {
          const isBound = ({ status }: Stored) => status.phase === "Bound";
          return ours(all).filter(isBound).length === MANY;
        });
        const seconds = (performance.now() - startedAt) / 1000;
        console.log(`      ${MANY} claims are bound after ${seconds.toFixed(1)} s`);
        await Promise.all(branches.map((one) => api.delete(one)));
        await api.untilListed(origin, (all) => ours(all).length === 0);
      },
    ],
    [
      "nothing was forbidden to the sidecars",
      async () => {
        assert.equal(storage.forbidden(), []);
      },
    ],
  ];
}

/** The attach and detach controller's, for a pod on that node. */
function attachment(persistentVolumeName: string, nodeName: string) {
  return {
    ...named("storage.k8s.io/v1", "VolumeAttachment", `on-${nodeName}`),
    spec: { attacher: DRIVER_NAME, nodeName, source: { persistentVolumeName } },
  };
}

/** What kubelet and the registrar write down of a compute node. */
async function createNode({ api }: Cluster, name: string): Promise<void> {
  const { uid } = (await api.create({ ...named("v1", "Node", name) })).metadata;
  await api.create({
    apiVersion: "storage.k8s.io/v1",
    kind: "CSINode",
    metadata: { name, ownerReferences: [{ apiVersion: "v1", kind: "Node", name, uid }] },
    spec: { drivers: [{ name: DRIVER_NAME, nodeID: nqnOf(name), topologyKeys: [] }] },
  });
}

function nqnOf(node: string): string {
  const digits = String(NODES.indexOf(node) + 1).padStart(12, "0");
  return `nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-${digits}`;
}

function capacityOf(spec: Fields): unknown {
  return (spec.capacity as Fields).storage;
}

/** By what the sidecars' own library says of each call. */
function callsIn(log: string, method: string): number {
  return log.split("\n").filter((line) => line.includes(method) && /GRPC call/.test(line)).length;
}
