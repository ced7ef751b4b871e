// A control plane of its own on this machine's loopback: etcd, the API server with RBAC, the
// scheduler, and of the controller manager what has to do with volumes and their pods. There is no
// kubelet: nodes are what a test writes down, and nothing runs on them.
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { makeAuthority } from "../support/certificates.js";
import { freePort } from "../support/pando.js";
import { KubernetesApi, type Ref } from "./api.js";
import { type Running, startProcess } from "./processes.js";
import type { Programs } from "./programs.js";

export interface Cluster {
  /** As its administrator. */
  readonly api: KubernetesApi;
  /** A kubeconfig file for whoever has this token. */
  kubeconfig(name: string, token: string): string;
  /** A token of a service account, as its pods have it. */
  serviceAccountToken(account: { name: string; namespace: string }): Promise<string>;
  /** The administrator's token. */
  readonly token: string;
  /** PEM. */
  readonly authorityFile: string;
  readonly port: number;
  stop(): Promise<void>;
}

const START_TIMEOUT_MS = 180_000;
const CONTROLLERS = [
  ...["persistentvolume-binder-controller", "persistentvolume-attach-detach-controller"],
  ...["persistentvolume-protection-controller", "persistentvolumeclaim-protection-controller"],
  "statefulset-controller",
];

export async function startCluster(programs: Programs, folder: string): Promise<Cluster> {
  const running: Running[] = [];
  const stop = async () => {
    for (const one of running.reverse()) await one.stop();
  };
  try {
    const { api, files, port, token } = await startApiServer(programs, folder, running);
    const authority = readFileSync(files.authority, "utf8");
    const kubeconfig = (name: string, userToken: string) => {
      const path = join(folder, `${name}.kubeconfig`);
      writeFileSync(path, kubeconfigText({ port, authority, token: userToken }), { mode: 0o600 });
      return path;
    };
    const common = [
      ...["--kubeconfig", kubeconfig("administrator", token), "--leader-elect=false"],
      // They serve nothing.
      ...["--secure-port=0", "--kube-api-qps=100", "--kube-api-burst=200"],
    ];
    const manager = [
      ...[`--controllers=${CONTROLLERS}`, "--pvclaimbinder-sync-period=1s"],
      // Made, if it is not there.
      ...["--flex-volume-plugin-dir", join(folder, "flex-volumes")],
    ];
    const controllerManager = programs["kube-controller-manager"];
    running.push(startProcess(controllerManager, [...common, ...manager]));
    running.push(startProcess(programs["kube-scheduler"], common));
    return {
      api,
      kubeconfig,
      token,
      authorityFile: files.authority,
      port,
      stop,
      async serviceAccountToken({ name, namespace }) {
        const account: Ref = {
          apiVersion: "v1",
          kind: "ServiceAccount",
          metadata: { name, namespace },
        };
        const wanted = { apiVersion: "authentication.k8s.io/v1", kind: "TokenRequest", spec: {} };
        const { status } = await api.createBelow(account, "token", wanted);
        return status.token as string;
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startApiServer(programs: Programs, folder: string, running: Running[]) {
  const [port, etcdPort, peerPort] = [await freePort(), await freePort(), await freePort()];
  const etcd = `http://127.0.0.1:${etcdPort}`;
  const peer = `http://127.0.0.1:${peerPort}`;
  const store = [
    ...["--data-dir", join(folder, "etcd"), "--listen-client-urls", etcd],
    ...["--advertise-client-urls", etcd, "--listen-peer-urls", peer],
    ...["--initial-advertise-peer-urls", peer, "--initial-cluster", `default=${peer}`],
    "--unsafe-no-fsync",
  ];
  running.push(startProcess(programs.etcd, store));
  const files = makeAuthority(folder, "kubernetes").issue("kubernetes");
  const keys = join(folder, "service-accounts.key");
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  writeFileSync(keys, privateKey.export({ type: "pkcs1", format: "pem" }), { mode: 0o600 });
  const token = randomUUID();
  const tokens = join(folder, "tokens.csv");
  writeFileSync(tokens, `${token},administrator,administrator,system:masters\n`, { mode: 0o600 });
  const server = [
    ...["--etcd-servers", etcd, "--bind-address=127.0.0.1", `--secure-port=${port}`],
    "--advertise-address=127.0.0.1",
    ...["--tls-cert-file", files.certificate, "--tls-private-key-file", files.key],
    ...["--authorization-mode=RBAC", "--token-auth-file", tokens, "--allow-privileged"],
    ...["--service-account-issuer=https://kubernetes.default.svc"],
    ...["--service-account-key-file", keys, "--service-account-signing-key-file", keys],
    ...["--service-cluster-ip-range=10.0.0.0/24", "--endpoint-reconciler-type=none"],
    // Nobody makes the accounts that it would have pods use.
    "--disable-admission-plugins=ServiceAccount",
  ];
  running.push(startProcess(programs["kube-apiserver"], server));
  const authority = readFileSync(files.authority, "utf8");
  const api = new KubernetesApi({ port, token, authority });
  await untilReady(api);
  return { api, files, port, token };
}

async function untilReady(api: KubernetesApi): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  for (;;) {
    const reply = await api.send("GET", "/readyz").catch(() => null);
    if (reply?.code === 200) return;
    if (performance.now() > deadline) throw new Error("the API server is not ready in time");
    await sleep(200);
  }
}

/** JSON is YAML. */
function kubeconfigText(of: { port: number; authority: string; token: string }): string {
  const data = Buffer.from(of.authority).toString("base64");
  const cluster = {
    server: `https://127.0.0.1:${of.port}`,
    "certificate-authority-data": data,
  };
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "test", cluster }],
    users: [{ name: "test", user: { token: of.token } }],
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
    "current-context": "test",
  });
}
