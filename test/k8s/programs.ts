// Kubernetes' control plane and its storage sidecars, built from their Go modules: what a cluster
// runs between a pod and our driver.
//
// They are built as one module, because most of them is the same packages; its versions are those
// that our manifests name. The first time takes half an hour on two processors.
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { vmCacheDir } from "../system/vm/host.js";
import { provideGoModule } from "./go.js";

export const KUBERNETES = { module: "k8s.io/kubernetes", version: "v1.37.2" };
export const SNAPSHOTS = {
  module: "github.com/kubernetes-csi/external-snapshotter/client/v8",
  version: "v8.7.0",
};

const ETCD = { module: "go.etcd.io/etcd/server/v3", version: "v3.6.8" };
const PROVISIONER = {
  module: "github.com/kubernetes-csi/external-provisioner/v6",
  version: "v6.4.0",
};
const ATTACHER = { module: "github.com/kubernetes-csi/external-attacher/v4", version: "v4.13.0" };
const RESIZER = { module: "github.com/kubernetes-csi/external-resizer/v2", version: "v2.3.0" };
const SNAPSHOTTER = {
  module: "github.com/kubernetes-csi/external-snapshotter/v8",
  version: "v8.7.0",
};
const MODULES = [KUBERNETES, SNAPSHOTS, ETCD, PROVISIONER, ATTACHER, RESIZER, SNAPSHOTTER];

const PACKAGES = {
  etcd: ETCD.module,
  "kube-apiserver": `${KUBERNETES.module}/cmd/kube-apiserver`,
  "kube-controller-manager": `${KUBERNETES.module}/cmd/kube-controller-manager`,
  "kube-scheduler": `${KUBERNETES.module}/cmd/kube-scheduler`,
  "csi-provisioner": `${PROVISIONER.module}/cmd/csi-provisioner`,
  "csi-attacher": `${ATTACHER.module}/cmd/csi-attacher`,
  "csi-resizer": `${RESIZER.module}/cmd/csi-resizer`,
  "csi-snapshotter": `${SNAPSHOTTER.module}/cmd/csi-snapshotter`,
  "snapshot-controller": `${SNAPSHOTTER.module}/cmd/snapshot-controller`,
};
export type ProgramName = keyof typeof PACKAGES;
/** Paths. */
export type Programs = Record<ProgramName, string>;

const METADATA = {
  module: "github.com/kubernetes-csi/external-snapshot-metadata",
  version: "v1.1.0",
};
/** The one that it names itself is not to be had from Go's proxy. */
export const METADATA_CLIENT = { module: `${METADATA.module}/client`, version: "v1.0.0" };

const BUILD_TIMEOUT_MS = 3_600_000;

/** The sidecar between backup software and the driver: a module of its own, with its files. */
export interface MetadataSidecar {
  program: string;
  /** What its callers may do, and its protocol. */
  module: string;
  /** Its custom resource. */
  client: string;
}

export async function provideMetadataSidecar(go: string): Promise<MetadataSidecar> {
  const name = "csi-snapshot-metadata";
  const folder = join(vmCacheDir(), `${name}-${METADATA.version}`);
  const module = await provideGoModule(go, METADATA);
  const client = await provideGoModule(go, METADATA_CLIENT);
  mkdirSync(folder, { recursive: true });
  if (!existsSync(join(folder, "go.mod"))) {
    const goMod = [
      `module program\n\n${goVersionOf(module)}\n`,
      `require ${METADATA.module} ${METADATA.version}\n`,
      `replace ${METADATA_CLIENT.module} => ${METADATA_CLIENT.module} ${METADATA_CLIENT.version}\n`,
    ].join("\n");
    writeFileSync(join(folder, "go.mod"), goMod);
  }
  await build(go, { folder, name, package: `${METADATA.module}/cmd/${name}` });
  return { program: join(folder, name), module, client };
}

export async function providePrograms(go: string): Promise<Programs> {
  const goMod = await moduleText(go);
  const hash = createHash("sha256").update(goMod).digest("hex").slice(0, 12);
  const folder = join(vmCacheDir(), `kubernetes-${KUBERNETES.version}-${hash}`);
  mkdirSync(folder, { recursive: true });
  if (!existsSync(join(folder, "go.mod"))) writeFileSync(join(folder, "go.mod"), goMod);
  const names = Object.keys(PACKAGES) as ProgramName[];
  for (const name of names) await build(go, { folder, name, package: PACKAGES[name] });
  return Object.fromEntries(names.map((name) => [name, join(folder, name)])) as Programs;
}

async function build(
  go: string,
  what: { folder: string; name: string; package: string },
): Promise<void> {
  const { folder, name } = what;
  if (existsSync(join(folder, name))) return;
  console.log(`building ${name}`);
  const version = `-s -w -X k8s.io/component-base/version.gitVersion=${KUBERNETES.version}`;
  const args = ["build", "-mod=mod", "-buildvcs=false", "-ldflags", version];
  // Under another name until it is whole.
  const unfinished = join(folder, `${name}.new`);
  await promisify(execFile)(go, [...args, "-o", unfinished, what.package], {
    cwd: folder,
    env: { ...process.env, CGO_ENABLED: "0", GOFLAGS: "" },
    timeout: BUILD_TIMEOUT_MS,
  });
  renameSync(unfinished, join(folder, name));
}

/**
 * Kubernetes names its own libraries without a version: they have its own, but for the first digit.
 */
async function moduleText(go: string): Promise<string> {
  const kubernetes = await provideGoModule(go, KUBERNETES);
  const goMod = readFileSync(join(kubernetes, "go.mod"), "utf8");
  const libraries = [...goMod.matchAll(/^\t(k8s\.io\/\S+) v0\.0\.0$/gm)].map(([, name]) => name);
  const version = KUBERNETES.version.replace(/^v1/, "v0");
  return [
    `module programs\n\n${goVersionOf(kubernetes)}\n\nrequire (`,
    ...MODULES.map((one) => `\t${one.module} ${one.version}`),
    ")\n\nreplace (",
    ...libraries.map((name) => `\t${name} => ${name} ${version}`),
    ")\n",
  ].join("\n");
}

function goVersionOf(module: string): string {
  const goMod = readFileSync(join(module, "go.mod"), "utf8");
  return /^go \S+$/m.exec(goMod)?.[0] ?? "";
}
