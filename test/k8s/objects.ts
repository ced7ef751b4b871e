// Objects of Kubernetes as the tests name and make them.
import type { Manifest, Ref } from "./api.js";

export const DRIVER_NAME = "csi.pando.io";

export function named(apiVersion: string, kind: string, name: string): Ref {
  return { apiVersion, kind, metadata: { name } };
}

export function namespaced(apiVersion: string, kind: string, name: string): Ref {
  return { apiVersion, kind, metadata: { name, namespace: "default" } };
}

export const volume = (name: string): Ref => named("v1", "PersistentVolume", name);
export const snapshotContent = (name: string): Ref =>
  named("snapshot.storage.k8s.io/v1", "VolumeSnapshotContent", name);

export function claim(
  name: string,
  { from, size = "1Gi" }: { from?: Ref; size?: string } = {},
): Manifest {
  const [group = ""] = from?.apiVersion.match(/^.*(?=\/)/) ?? [];
  const dataSource = from && {
    ...(group !== "" && { apiGroup: group }),
    kind: from.kind,
    name: from.metadata.name,
  };
  return {
    ...namespaced("v1", "PersistentVolumeClaim", name),
    spec: {
      accessModes: ["ReadWriteOnce"],
      storageClassName: "pando",
      resources: { requests: { storage: size } },
      ...(dataSource && { dataSource }),
    },
  };
}

export function snapshotOf(name: string, persistentVolumeClaimName: string): Manifest {
  return {
    ...namespaced("snapshot.storage.k8s.io/v1", "VolumeSnapshot", name),
    spec: { volumeSnapshotClassName: "pando", source: { persistentVolumeClaimName } },
  };
}
