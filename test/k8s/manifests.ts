// Our manifests as Kubernetes' own tools see them. kustomize and Helm render them, kubeconform
// holds what comes out against the schemas of Kubernetes, of the snapshot CRDs and of
// CloudNativePG; and what is in two places has to agree.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import * as assert from "uvu/assert";
import { findProgram, repositoryRoot } from "../system/vm/host.js";
import { provideGoModule, provideGoProgram } from "./go.js";
import { KUBERNETES, METADATA_CLIENT, SNAPSHOTS } from "./programs.js";
import { SCHEMA_NAMES, writeSchemas } from "./schemas.js";
import type { Step } from "./steps.js";
import { readYaml } from "./yaml.js";

const POSTGRES = { module: "github.com/cloudnative-pg/cloudnative-pg", version: "v1.30.0" };
const KUBECONFORM = {
  name: "kubeconform",
  package: "github.com/yannh/kubeconform/cmd/kubeconform",
  version: "v0.8.0",
};
const HELM = { name: "helm", package: "helm.sh/helm/v3/cmd/helm", version: "v3.22.0" };
const KUSTOMIZE = {
  name: "kustomize",
  package: "sigs.k8s.io/kustomize/kustomize/v5",
  version: "v5.8.2",
};

const deploy = join(repositoryRoot, "csi/deploy");
const chart = join(deploy, "helm/pando");
const examples = join(repositoryRoot, "examples/cnpg");
const NODES = ["--set", "storageNodes[0].name=a,storageNodes[0].address=10.0.0.5:9751"];

const EVERYTHING = [
  ...["--set", "storage.enabled=true,storageClass.isDefault=true,image.tag=v9"],
  ...["--set", "imagePullSecrets[0].name=hush,storageClass.parameters.ioQueues=4"],
  ...["--set", "storageClass.fsType=xfs,kubeletDir=/var/lib/k0s/kubelet,maxVolumesPerNode=20"],
  ...["--set", "node.tlsKeyFile=/etc/nvme/a.key,topology=zone"],
  ...["--set", "storageNodes[0].pool=fast,storageNodes[0].zone=z"],
  ...["--set", "snapshotMetadata.enabled=true,snapshotMetadata.caCert=YQ=="],
];
/** What is wanted beside the driver: of kustomize a component, of the chart a value. */
const COMPONENTS: Record<string, string> = {
  tls: "node.tlsKeyFile=/etc/nvme/pando-tls.key",
  zones: "topology=zone",
  metadata: "snapshotMetadata.enabled=true",
};
/**
 * The chart has the configuration's flags for the node plugin, which has no configuration file; and
 * in its configuration file what a component adds to the controller's flags.
 */
const NOT_IN_BOTH = /^--(driver-name|max-volumes-per-node|log-level|topology)=/;

/** The driver with a component, as a folder for kustomize. */
function withComponent(folder: string, component: string): string {
  const made = mkdtempSync(join(folder, `${component}-`));
  const [driver, wanted] = ["kustomize", component].map((name) =>
    relative(made, join(deploy, name)),
  );
  const text = `resources:\n  - ${driver}\ncomponents:\n  - ${wanted}\n`;
  writeFileSync(join(made, "kustomization.yaml"), text);
  return made;
}

/** What kustomize deploys, and before it the CRDs that it needs: each object's YAML. */
export async function readDeployment(go: string): Promise<string[]> {
  const snapshots = await provideGoModule(go, SNAPSHOTS);
  const kustomize = await renderer(go);
  const deployed = ["kustomize", "storage"].map((name) => kustomize(join(deploy, name)));
  return [...yamlFiles(join(snapshots, "config/crd")), ...deployed]
    .flatMap((text) => text.split(/^---\s*$/m))
    .filter((text) => /^kind:/m.test(text) && !/^apiVersion: kustomize\./m.test(text));
}

/** The driver with a component: each object's YAML. */
export async function readDriver(go: string, folder: string, component: string): Promise<string[]> {
  return (await renderer(go))(withComponent(folder, component)).split(/^---\s*$/m);
}

/** What holds the manifests against their schemas. */
export async function manifestSteps(go: string, folder: string): Promise<Step[]> {
  const [kubernetes, snapshots, postgres, metadata] = await Promise.all(
    [KUBERNETES, SNAPSHOTS, POSTGRES, METADATA_CLIENT].map((one) => provideGoModule(go, one)),
  );
  const kubeconform = await provideGoProgram(go, KUBECONFORM);
  const helm = findProgram("helm") ?? (await provideGoProgram(go, HELM));
  const read = (texts: string[]) =>
    readYaml(folder, (files) => run(helm, ["template", "x", files]), texts);
  const snapshotKinds = [snapshots, metadata].flatMap((module = "") =>
    yamlFiles(join(module, "config/crd")),
  );
  const schemas = join(folder, "schemas");
  writeSchemas(schemas, {
    openApi: join(kubernetes ?? "", "api/openapi-spec/swagger.json"),
    customResources: read([
      ...snapshotKinds,
      ...yamlFiles(join(postgres ?? "", "config/crd/bases")),
    ]),
  });
  const kustomize = await renderer(go);
  const conform = (manifests: string) => {
    const location = join(schemas, SCHEMA_NAMES);
    const args = ["-strict", "-summary", "-schema-location", location];
    run(kubeconform, args, manifests);
  };
  // One that Go has built by itself takes every cluster for an old one.
  const cluster = ["--namespace", "pando-csi", "--kube-version", KUBERNETES.version];
  const template = (...values: string[]) =>
    run(helm, ["template", "pando", chart, ...cluster, ...values]);
  const kustomized = ["kustomize", "storage"].map(
    (name): Step => [`kustomize: ${name}`, () => conform(kustomize(join(deploy, name)))],
  );
  const components = Object.entries(COMPONENTS).map(
    ([component, value]): Step => [
      `kustomize and helm: ${component}`,
      () => {
        const kustomized = kustomize(withComponent(folder, component));
        conform(kustomized);
        const charted = template(...NODES, "--set", value);
        assert.equal(whatIsRun(read([kustomized])), whatIsRun(read([charted])));
        const plain = kustomize(join(deploy, "kustomize"));
        assert.not.equal(whatIsRun(read([kustomized])), whatIsRun(read([plain])));
      },
    ],
  );
  const example = readdirSync(examples).map(
    (name): Step => [
      `examples/cnpg/${name}`,
      () => conform(readFileSync(join(examples, name), "utf8")),
    ],
  );
  return [
    ...kustomized,
    ...example,
    ["helm: lint", () => void run(helm, ["lint", "--strict", chart, ...NODES])],
    ["helm: template", () => conform(template(...NODES))],
    ["helm: template, nodes found", () => conform(template("--set", "discoverStorageNodes=true"))],
    ["helm: template, everything", () => conform(template(...NODES, ...EVERYTHING))],
    ["helm: what is wrong is refused", () => refusals(helm)],
    [
      "helm and kustomize deploy the same",
      () => {
        const charted = read([template(...NODES)]);
        const kustomized = read([kustomize(join(deploy, "kustomize"))]);
        assert.equal(whatIsRun(charted), whatIsRun(kustomized));
      },
    ],
    ...components,
    ["the chart is of this version", () => versions(read)],
    ...unitSteps(folder),
  ];
}

/** Of storage nodes outside Kubernetes, for machines that have systemd's own tool. */
function unitSteps(folder: string): Step[] {
  const analyze = findProgram("systemd-analyze");
  if (analyze === null) return [];
  const name = "pandod.service";
  const unit = readFileSync(join(deploy, "systemd", name), "utf8");
  // It is not installed here.
  const path = join(folder, name);
  writeFileSync(path, unit.replace(/^ExecStart=\S+/m, `ExecStart=${process.execPath}`));
  const check = () => assert.is(run(analyze, ["verify", "--man=no", path]), "");
  return [[`systemd: ${name}`, check]];
}

/** By the chart's schema, before anything is asked of a cluster. */
function refusals(helm: string): void {
  const wrong: [string[], RegExp][] = [
    [[], /storageNodes|anyOf/],
    [["--set", "storageNodes[0].name=A/b,storageNodes[0].address=10.0.0.5:9751"], /name/],
    [[...NODES, "--set", "storageClass.fsType=ntfs"], /fsType/],
    [[...NODES, "--set", "maxVolumesPerNode=many"], /maxVolumesPerNode/],
    [[...NODES, "--set", "replicas=3"], /replicas/],
    [[...NODES, "--set", "node.tlsKeyFile=/root/key"], /tlsKeyFile/],
    [[...NODES, "--set", "topology=region"], /topology/],
    [[...NODES, "--set", "snapshotMetadata.caCert=-----BEGIN"], /caCert/],
  ];
  for (const [values, message] of wrong) {
    const { status, stderr } = spawnSync(helm, ["template", "x", chart, ...values]);
    assert.is.not(status, 0, values.join(" "));
    assert.match(stderr.toString(), message);
  }
}

function versions(read: (texts: string[]) => unknown[]): void {
  const [about] = read([readFileSync(join(chart, "Chart.yaml"), "utf8")]);
  assert.is((about as { appVersion: string }).appVersion, packageVersion());
}

function packageVersion(): string {
  const content = readFileSync(join(repositoryRoot, "package.json"), "utf8");
  return (JSON.parse(content) as { version: string }).version;
}

interface Deployed {
  kind: string;
  rules?: unknown;
  volumeBindingMode?: string;
  spec?: { template?: { spec: PodSpec } };
}

interface PodSpec {
  containers: { name: string; image: string; args?: string[]; env?: unknown[] }[];
}

/** Images, arguments, rules and how claims are bound: what would drift apart. */
function whatIsRun(manifests: unknown[]): unknown {
  const all = manifests as Deployed[];
  const rules = all.filter(({ kind }) => /Role$/.test(kind)).map((one) => one.rules);
  const containers = all.flatMap(({ spec }) => spec?.template?.spec.containers ?? []);
  const run = containers.map(({ name, image, args = [], env = [] }) => ({
    name,
    image,
    args: args.filter((one) => !NOT_IN_BOTH.test(one)).sort(),
    env,
  }));
  const text = (one: unknown) => JSON.stringify(one);
  const binding = all.flatMap(({ volumeBindingMode = [] }) => volumeBindingMode);
  return { rules: rules.map(text).sort(), run: run.map(text).sort(), binding };
}

function yamlFiles(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(".yaml"))
    .map((name) => readFileSync(join(folder, name), "utf8"));
}

async function renderer(go: string): Promise<(folder: string) => string> {
  const kubectl = findProgram("kubectl");
  if (kubectl !== null) return (folder) => run(kubectl, ["kustomize", folder]);
  const kustomize = await provideGoProgram(go, KUSTOMIZE);
  return (folder) => run(kustomize, ["build", folder]);
}

function run(program: string, args: string[], input?: string): string {
  const { status, stdout, stderr } = spawnSync(program, args, {
    encoding: "utf8",
    input,
    maxBuffer: 2 ** 26,
  });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}\n${stdout}${stderr}`);
  return stdout;
}
