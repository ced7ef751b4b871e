// New volumes near their pods, with Kubernetes' own scheduler and controllers: a set of pods has
// its claims made from templates, each waits for its pod's node, and is made in that node's zone.
// A zone keeps no pod from its volume: one that has to move to another takes it along.
//
// Nobody runs the pods. That they are attached is what a kubelet would wait for.
import * as assert from "uvu/assert";
import type { Fields, Manifest, Ref, Stored } from "./api.js";
import type { Cluster } from "./cluster.js";
import { DRIVER_NAME, named } from "./objects.js";
import type { Step } from "./steps.js";
import { type Storage, ZONE, ZONES } from "./storage.js";

const CLASS = "pando";
const SET = "db";
/** One in each zone. */
const WORKERS = Object.keys(ZONES).map((zone, index) => ({
  name: `worker-${index + 1}`,
  zone,
  nqn: `nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-00000000000${index + 1}`,
}));

interface Placed {
  worker: (typeof WORKERS)[number];
  volume: Stored;
  /** NODE/NAME/UUID */
  handle: string[];
}

/** `texts`: the driver's manifests, with zones. */
export function zoneSteps(cluster: Cluster, storage: Storage, texts: string[]): Step[] {
  const { api } = cluster;
  const pods = WORKERS.map((_, index) => `${SET}-${index}`);
  const before = new Map<string, Placed>();

  /** When the pod has a node, and its volume is attached there. */
  const placed = async (pod: string): Promise<Placed> => {
    const { spec } = await api.until(named("v1", "Pod", pod), (one) => one.spec.nodeName != null);
    const worker = WORKERS.find(({ name }) => name === spec.nodeName);
    assert.ok(worker, `${pod} is on ${spec.nodeName}`);
    const claim = named("v1", "PersistentVolumeClaim", `data-${pod}`);
    const { spec: bound } = await api.until(claim, ({ status }) => status.phase === "Bound");
    const volume = await api.get(named("v1", "PersistentVolume", bound.volumeName as string));
    assert.ok(volume !== null);
    await api.untilListed(ATTACHMENT, (all) =>
      all.some(
        ({ spec: { nodeName, source }, status }) =>
          nodeName === worker.name &&
          (source as Fields).persistentVolumeName === volume.metadata.name &&
          status?.attached === true,
      ),
    );
    const { volumeHandle } = (volume.spec as { csi: { volumeHandle: string } }).csi;
    return { worker, volume, handle: volumeHandle.split("/") };
  };
  const hostsOf = async ([storageNode = "", name = ""]: string[]): Promise<string[]> =>
    (await storage.nodes[storageNode]?.showVolume(name))?.allowedHosts ?? [];

  return [
    [
      "the driver's manifests are applied with zones",
      async () => {
        // How a class binds cannot be changed.
        await api.delete(named("storage.k8s.io/v1", "StorageClass", CLASS));
        const documents: Stored[] = [];
        for (const text of texts) documents.push(await api.apply(text));
        await storage.restartController(documents);
      },
    ],
    [
      "each pod of a set gets a volume in the zone of its node, attached there",
      async () => {
        for (const worker of WORKERS) await createWorker(cluster, worker);
        await api.create(setOf(pods.length));
        for (const pod of pods) {
          const { worker, volume, handle } = await placed(pod);
          assert.is(handle[0], ZONES[worker.zone], `${pod} is in ${worker.zone}`);
          assert.is(volume.spec.nodeAffinity, undefined, "it can be had from everywhere");
          assert.equal(await hostsOf(handle), [worker.nqn]);
          before.set(pod, { worker, volume, handle });
        }
        assert.is(new Set([...before.values()].map(({ worker }) => worker.zone)).size, 2);
      },
    ],
    [
      "a pod that has to leave its zone takes its volume along",
      async () => {
        const [pod = ""] = pods;
        const first = before.get(pod);
        assert.ok(first !== undefined);
        await api.patch(named("v1", "Node", first.worker.name), { spec: { unschedulable: true } });
        await api.delete(named("v1", "Pod", pod), { gracePeriodSeconds: 0 });
        await api.until(named("v1", "Pod", pod), ({ spec }) =>
          WORKERS.some(({ name }) => name === spec.nodeName && name !== first.worker.name),
        );
        const { worker, handle } = await placed(pod);
        assert.equal(handle, first.handle);
        assert.equal(await hostsOf(handle), [worker.nqn], "the first node is fenced");
      },
    ],
    [
      "with the set and its claims everything goes",
      async () => {
        const set = named("apps/v1", "StatefulSet", SET);
        await api.patch(set, { spec: { replicas: 0 } });
        for (const pod of pods) {
          await api.delete(named("v1", "Pod", pod), { gracePeriodSeconds: 0 });
          await api.untilGone(named("v1", "Pod", pod));
        }
        await api.untilListed(ATTACHMENT, (all) => all.length === 0);
        for (const { handle } of before.values()) assert.equal(await hostsOf(handle), []);
        await api.delete(set);
        for (const [pod, { volume, handle }] of before) {
          await api.delete(named("v1", "PersistentVolumeClaim", `data-${pod}`));
          await api.untilGone(volume);
          const [storageNode = "", name] = handle;
          const left = (await storage.nodes[storageNode]?.pando("volume", "list")) as Fields[];
          assert.not.ok(left.some((one) => one.name === name));
        }
        assert.equal(storage.forbidden(), []);
      },
    ],
  ];
}

const ATTACHMENT: Ref = named("storage.k8s.io/v1", "VolumeAttachment", "");

/** What a kubelet and the registrar write down of a machine that is well. */
async function createWorker(
  { api }: Cluster,
  { name, zone, nqn }: (typeof WORKERS)[number],
): Promise<void> {
  const node = named("v1", "Node", name);
  const annotations = { "volumes.kubernetes.io/controller-managed-attach-detach": "true" };
  const labels = { [ZONE]: zone, "kubernetes.io/hostname": name };
  const { uid } = (await api.create({ ...node, metadata: { name, annotations, labels } })).metadata;
  const room = { cpu: "4", memory: "8Gi", pods: "20" };
  await api.patch(node, { status: { capacity: room, allocatable: room } }, "status");
  // As for every new node, until somebody hears of it.
  await api.patch(node, { spec: { taints: null } });
  await api.create({
    apiVersion: "storage.k8s.io/v1",
    kind: "CSINode",
    metadata: { name, ownerReferences: [{ apiVersion: "v1", kind: "Node", name, uid }] },
    spec: { drivers: [{ name: DRIVER_NAME, nodeID: nqn, topologyKeys: [ZONE] }] },
  });
}

function setOf(replicas: number): Manifest {
  const labels = { app: SET };
  const spread = {
    maxSkew: 1,
    topologyKey: ZONE,
    // Else a pod could not leave its zone.
    whenUnsatisfiable: "ScheduleAnyway",
    labelSelector: { matchLabels: labels },
  };
  const container = {
    name: "postgres",
    image: "postgres",
    volumeMounts: [{ name: "data", mountPath: "/data" }],
  };
  const claim = {
    metadata: { name: "data" },
    spec: {
      accessModes: ["ReadWriteOnce"],
      storageClassName: CLASS,
      resources: { requests: { storage: "1Gi" } },
    },
  };
  return {
    ...named("apps/v1", "StatefulSet", SET),
    spec: {
      replicas,
      serviceName: SET,
      podManagementPolicy: "Parallel",
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: { topologySpreadConstraints: [spread], containers: [container] },
      },
      volumeClaimTemplates: [claim],
    },
  };
}
