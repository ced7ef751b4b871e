// What the controllers of volumes in kube-controller-manager do, as far as the tests need it: a
// claim gets its provisioner's name, a volume and its claim are bound to each other, and what
// nobody uses loses the protection of those that do. The program itself is as large a build as the
// API server, and what it does here is what the sidecars wait for, not what they are tested with.
import { setTimeout as sleep } from "node:timers/promises";
import { ApiError, type Fields, type KubernetesApi, type Ref, type Stored } from "./api.js";

const CLAIM: Ref = { apiVersion: "v1", kind: "PersistentVolumeClaim", metadata: { name: "" } };
const VOLUME: Ref = { apiVersion: "v1", kind: "PersistentVolume", metadata: { name: "" } };
const PROVISIONER = "volume.kubernetes.io/storage-provisioner";
const PAUSE_MS = 50;

export interface Binder {
  stop(): Promise<void>;
}

export function startBinder(api: KubernetesApi, provisioner: string): Binder {
  let isStopping = false;
  const work = (async () => {
    while (!isStopping) {
      await bindAll(api, provisioner).catch(orNextTime);
      await sleep(PAUSE_MS);
    }
  })();
  // Told by `stop`.
  work.catch(() => undefined);
  return {
    async stop() {
      isStopping = true;
      await work;
    },
  };
}

/** Something has changed or gone between a look and a change. */
function orNextTime(error: unknown): void {
  if (error instanceof ApiError && (error.code === 404 || error.code === 409)) return;
  throw error;
}

async function bindAll(api: KubernetesApi, provisioner: string): Promise<void> {
  const claims = new Map((await api.list(CLAIM)).map((claim) => [claim.metadata.uid, claim]));
  const all = [...claims.values()];
  await Promise.all(all.map((claim) => prepare(api, claim, provisioner).catch(orNextTime)));
  const volumes = await api.list(VOLUME);
  await Promise.all(volumes.map((one) => bindVolume(api, one, claims).catch(orNextTime)));
}

async function prepare(api: KubernetesApi, claim: Stored, provisioner: string): Promise<void> {
  const { deletionTimestamp, annotations } = claim.metadata;
  if (deletionTimestamp !== undefined) await unprotect(api, claim);
  else if (annotations?.[PROVISIONER] === undefined) {
    await api.patch(claim, { metadata: { annotations: { [PROVISIONER]: provisioner } } });
  }
}

async function bindVolume(
  api: KubernetesApi,
  volume: Stored,
  claims: Map<string, Stored>,
): Promise<void> {
  const claimRef = volume.spec.claimRef as Fields;
  const claim = claims.get(claimRef.uid as string);
  if (volume.metadata.deletionTimestamp !== undefined) await unprotect(api, volume);
  else if (claim !== undefined) {
    if (claim.status.phase !== "Bound") await bind(api, claim, volume);
  } else if (volume.status.phase === "Bound") {
    await api.patch(volume, { status: { phase: "Released" } }, "status");
  }
}

async function bind(api: KubernetesApi, claim: Stored, volume: Stored): Promise<void> {
  const annotations = { "pv.kubernetes.io/bind-completed": "yes" };
  await api.patch(claim, {
    metadata: { annotations },
    spec: { volumeName: volume.metadata.name },
  });
  const { capacity, accessModes } = volume.spec;
  await api.patch(volume, { status: { phase: "Bound" } }, "status");
  await api.patch(claim, { status: { phase: "Bound", capacity, accessModes } }, "status");
}

/** Others' finalizers stay. */
async function unprotect(api: KubernetesApi, object: Stored): Promise<void> {
  const { finalizers = [] } = object.metadata;
  const left = finalizers.filter((name) => !/^kubernetes\.io\/pvc?-protection$/.test(name));
  if (left.length === finalizers.length) return;
  const { resourceVersion } = object.metadata;
  await api.patch(object, { metadata: { finalizers: left, resourceVersion } });
}
