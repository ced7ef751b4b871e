// Pando in a cluster: a storage daemon, and of the manifests' controller pod the driver and its
// sidecars, with the arguments that they have there and what its service account may do.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { TlsFiles } from "../../engine/base/config.js";
import { makeAuthority } from "../support/certificates.js";
import { freePort } from "../support/pando.js";
import { type PandoNode, startNode } from "../system/pando-node.js";
import { repositoryRoot } from "../system/vm/host.js";
import type { Stored } from "./api.js";
import type { Cluster } from "./cluster.js";
import { type Running, startProcess } from "./processes.js";
import type { ProgramName, Programs } from "./programs.js";

export const NAMESPACE = "pando-csi";
const ACCOUNT = "pando-csi-controller";
const CONTROLLER = "pando-csi-controller";
export const STORAGE_NODE = "storage-1";
const DRIVER = join(repositoryRoot, "dist/csi/main.js");
const ESTABLISHED_TIMEOUT_MS = 30_000;

export interface Storage {
  readonly node: PandoNode;
  /** What a sidecar has said, with every call of the driver. */
  logOf(sidecar: ProgramName): string;
  stop(): Promise<void>;
}

/** The containers of the controller's pod that are programs of Kubernetes. */
const SIDECARS: Record<string, ProgramName> = {
  provisioner: "csi-provisioner",
  attacher: "csi-attacher",
  resizer: "csi-resizer",
  snapshotter: "csi-snapshotter",
};

/** Everything that there is in these manifests; what would run there is for `startStorage`. */
export async function applyManifests(cluster: Cluster, texts: string[]): Promise<Stored[]> {
  const isDefinition = (text: string) => /^kind: CustomResourceDefinition$/m.test(text);
  const isNamespace = (text: string) => /^kind: Namespace$/m.test(text);
  const first = texts.filter((text) => isDefinition(text) || isNamespace(text));
  const made: Stored[] = [];
  for (const text of first) made.push(await cluster.api.createFrom(text));
  for (const one of made) {
    if (one.kind === "CustomResourceDefinition") await established(cluster, one);
  }
  for (const text of texts) {
    if (!first.includes(text)) made.push(await cluster.api.createFrom(text));
  }
  return made;
}

export async function startStorage(
  cluster: Cluster,
  programs: Programs,
  { folder, documents }: { folder: string; documents: Stored[] },
): Promise<Storage> {
  const running = new Map<string, Running>();
  const pando = makeAuthority(folder, "pando");
  const apiPort = await freePort();
  const node = await startDaemon(pando.issue("storage-node"), apiPort);
  const stop = async () => {
    for (const one of [...running.values()].reverse()) await one.stop();
    await node.remove();
  };
  try {
    await createStorageNode(cluster);
    const token = await cluster.serviceAccountToken({ name: ACCOUNT, namespace: NAMESPACE });
    const socket = join(folder, "csi.sock");
    const config = join(folder, "csi.json");
    const tokenFile = join(folder, "driver.token");
    writeFileSync(tokenFile, token, { mode: 0o600 });
    const settings = {
      tls: pando.issue("controller"),
      kubernetes: {
        server: `https://localhost:${cluster.port}`,
        token: tokenFile,
        authority: cluster.authorityFile,
        apiPort: String(apiPort),
      },
    };
    writeFileSync(config, JSON.stringify(settings));
    const driver = ["--mode=controller", `--endpoint=${socket}`, `--config=${config}`];
    running.set("driver", startProcess(process.execPath, [DRIVER, ...driver], "driver"));
    const kubeconfig = cluster.kubeconfig(ACCOUNT, token);
    for (const { name, args } of controllerContainers(documents)) {
      const program = SIDECARS[name];
      if (program === undefined) continue;
      const theirs = args.map((arg) => arg.replace(/^(--csi-address)=.*/, `$1=${socket}`));
      const ours = ["--kubeconfig", kubeconfig, "--leader-election-namespace", NAMESPACE, "--v=5"];
      running.set(program, startProcess(programs[program], [...theirs, ...ours]));
    }
    const controller = [
      ...["--kubeconfig", cluster.kubeconfig("administrator", cluster.token)],
      ...["--feature-gates=CSIVolumeGroupSnapshot=true", "--kube-api-qps=100"],
    ];
    const name = "snapshot-controller";
    running.set(name, startProcess(programs[name], controller));
    return { node, stop, logOf: (sidecar) => running.get(sidecar)?.log() ?? "" };
  } catch (error) {
    await stop();
    throw error;
  }
}

function startDaemon(tls: TlsFiles, apiPort: number): Promise<PandoNode> {
  return startNode({
    poolSize: "4GiB",
    sparse: true,
    advertise: "127.0.0.1",
    daemonFlags: [
      ...["--api", `127.0.0.1:${apiPort}`, "--api-certificate", tls.certificate],
      ...["--api-key", tls.key, "--api-authority", tls.authority],
    ],
  });
}

/** That the driver finds it here is what its volumes' ids show. */
async function createStorageNode({ api }: Cluster): Promise<void> {
  await api.create({
    apiVersion: "v1",
    kind: "Node",
    metadata: { name: STORAGE_NODE, labels: { "pando.io/storage-node": "true" } },
    status: { addresses: [{ type: "InternalIP", address: "127.0.0.1" }] },
  });
}

interface Container {
  name: string;
  args: string[];
}

function controllerContainers(documents: Stored[]): Container[] {
  const found = documents.find(
    ({ kind, metadata }) => kind === "Deployment" && metadata.name === CONTROLLER,
  );
  const spec = found?.spec as unknown as
    | { template: { spec: { containers: Container[] } } }
    | undefined;
  if (spec === undefined) throw new Error(`no Deployment ${CONTROLLER} in the manifests`);
  return spec.template.spec.containers;
}

/** Until its kinds can be made. */
async function established(cluster: Cluster, definition: Stored): Promise<void> {
  await cluster.api.until(definition, ({ status }) => {
    const conditions = (status?.conditions ?? []) as { type: string; status: string }[];
    return conditions.some(({ type, status: is }) => type === "Established" && is === "True");
  });
  const { group, names, versions } = definition.spec as unknown as {
    group: string;
    names: { kind: string };
    versions: { name: string; served: boolean }[];
  };
  for (const { name, served } of versions) {
    if (!served) continue;
    const deadline = performance.now() + ESTABLISHED_TIMEOUT_MS;
    const path = `/apis/${group}/${name}`;
    while ((await cluster.api.send("GET", path)).code !== 200) {
      if (performance.now() > deadline) throw new Error(`no ${names.kind} at ${path}`);
      await sleep(100);
    }
  }
}
