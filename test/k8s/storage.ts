// Pando in a cluster: a storage daemon in each of two zones, and of the manifests' controller pod
// the driver and its sidecars, with the arguments that they have there and what its service account
// may do.
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

const NAMESPACE = "pando-csi";
const ACCOUNT = "pando-csi-controller";
const CONTROLLER = "pando-csi-controller";
/** Kubernetes names the first one's daemon, the driver's configuration the second one's. */
export const [STORAGE_NODE, OTHER_NODE] = ["storage-1", "storage-2"] as const;
export const ZONES: Record<string, string> = { "zone-a": STORAGE_NODE, "zone-b": OTHER_NODE };
export const ZONE = "topology.kubernetes.io/zone";
/** Where nobody says otherwise, volumes go where most room is. */
const POOL_SIZES = { [STORAGE_NODE]: "4GiB", [OTHER_NODE]: "2GiB" };
const DRIVER_CONTAINER = "driver";
const DRIVER = join(repositoryRoot, "dist/csi/main.js");
const ESTABLISHED_TIMEOUT_MS = 30_000;

export interface Storage {
  /** By what they are called in volumes' ids. */
  readonly nodes: Record<string, PandoNode>;
  /** The driver's, and the kubeconfig of its pod's service account. */
  readonly socket: string;
  readonly kubeconfig: string;
  /** What a sidecar has said since it was started, with every call of the driver. */
  logOf(sidecar: ProgramName): string;
  /** What the sidecars were not allowed to do. */
  forbidden(): string[];
  /** As another Deployment has it. */
  restartController(documents: Stored[]): Promise<void>;
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
  const ports: Record<string, number> = {};
  const nodes: Record<string, PandoNode> = {};
  const stop = async () => {
    for (const one of [...running.values()].reverse()) await one.stop();
    for (const node of Object.values(nodes)) await node.remove();
  };
  try {
    for (const [name, poolSize] of Object.entries(POOL_SIZES)) {
      const apiPort = await freePort();
      ports[name] = apiPort;
      nodes[name] = await startDaemon({ poolSize, apiPort, tls: pando.issue(name) });
    }
    await createStorageNode(cluster);
    const token = await cluster.serviceAccountToken({ name: ACCOUNT, namespace: NAMESPACE });
    const socket = join(folder, "csi.sock");
    const config = join(folder, "csi.json");
    const tokenFile = join(folder, "driver.token");
    writeFileSync(tokenFile, token, { mode: 0o600 });
    const address = `127.0.0.1:${ports[OTHER_NODE]}`;
    const settings = {
      tls: pando.issue("controller"),
      storageNodes: [{ name: OTHER_NODE, address, zone: "zone-b" }],
      kubernetes: {
        server: `https://localhost:${cluster.port}`,
        token: tokenFile,
        authority: cluster.authorityFile,
        apiPort: String(ports[STORAGE_NODE]),
      },
    };
    writeFileSync(config, JSON.stringify(settings));
    const kubeconfig = cluster.kubeconfig(ACCOUNT, token);
    const here = { "--csi-address": socket, "--endpoint": socket, "--config": config };
    const startController = (deployed: Stored[]) => {
      for (const { name } of controllerContainers(deployed)) {
        const given = argumentsOf(deployed, name, here);
        if (name === DRIVER_CONTAINER) {
          running.set(name, startProcess(process.execPath, [DRIVER, ...given], name));
        }
        const program = SIDECARS[name];
        if (program === undefined) continue;
        const ours = ["--kubeconfig", kubeconfig, "--leader-election-namespace", NAMESPACE];
        running.set(program, startProcess(programs[program], [...given, ...ours, "--v=5"]));
      }
    };
    startController(documents);
    const controller = [
      ...["--kubeconfig", cluster.kubeconfig("administrator", cluster.token)],
      ...["--feature-gates=CSIVolumeGroupSnapshot=true", "--kube-api-qps=100"],
    ];
    const name = "snapshot-controller";
    running.set(name, startProcess(programs[name], controller));
    const logOf = (sidecar: ProgramName) => running.get(sidecar)?.log() ?? "";
    return {
      nodes,
      socket,
      kubeconfig,
      stop,
      logOf,
      forbidden: () =>
        Object.values(SIDECARS).flatMap((one) => logOf(one).match(/.*is forbidden.*/g) ?? []),
      async restartController(deployed) {
        for (const one of [...Object.values(SIDECARS), DRIVER_CONTAINER]) {
          await running.get(one)?.stop();
        }
        startController(deployed);
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

function startDaemon(of: { poolSize: string; apiPort: number; tls: TlsFiles }): Promise<PandoNode> {
  const { poolSize, apiPort, tls } = of;
  return startNode({
    poolSize,
    sparse: true,
    nbd: true,
    advertise: "127.0.0.1",
    daemonFlags: [
      ...["--api", `127.0.0.1:${apiPort}`, "--api-certificate", tls.certificate],
      ...["--api-key", tls.key, "--api-authority", tls.authority],
    ],
  });
}

/** That the driver finds it here is what its volumes' ids show. */
async function createStorageNode({ api }: Cluster): Promise<void> {
  const labels = { "pando.io/storage-node": "true", [ZONE]: "zone-a" };
  await api.create({
    apiVersion: "v1",
    kind: "Node",
    metadata: { name: STORAGE_NODE, labels },
    status: { addresses: [{ type: "InternalIP", address: "127.0.0.1" }] },
  });
}

/** What a container of the controller's pod is started with; but for these places. */
export function argumentsOf(
  documents: Stored[],
  container: string,
  places: Record<string, string>,
): string[] {
  const { args } = controllerContainers(documents).find(({ name }) => name === container) ?? {};
  if (args === undefined) throw new Error(`no container ${container} in the manifests`);
  return args.map((arg) => {
    const [flag = ""] = arg.split("=");
    const place = places[flag];
    return place === undefined ? arg : `${flag}=${place}`;
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
