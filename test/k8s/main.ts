// npm run test:k8s: our manifests as Kubernetes' own tools see them. kustomize and Helm render
// them, kubeconform holds what comes out against the schemas of Kubernetes, of the snapshot CRDs
// and of CloudNativePG; and what is in two places has to agree.
//
// Not a part of `npm test`: the tools are Go programs, and are built the first time.
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { temporaryFolder } from "../support/pando.js";
import { findProgram, repositoryRoot } from "../system/vm/host.js";
import { findGo, provideGoModule, provideGoProgram } from "./go.js";
import { SCHEMA_NAMES, writeSchemas } from "./schemas.js";
import { readYaml } from "./yaml.js";

const KUBERNETES = { module: "k8s.io/kubernetes", version: "v1.36.1" };
const SNAPSHOTS = {
  module: "github.com/kubernetes-csi/external-snapshotter/client/v8",
  version: "v8.6.0",
};
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
  version: "v5.8.3",
};

const deploy = join(repositoryRoot, "csi/deploy");
const chart = join(deploy, "helm/pando");
const examples = join(repositoryRoot, "examples/cnpg");
const NODES = ["--set", "storageNodes[0].name=a,storageNodes[0].address=10.0.0.5:9751"];

const EVERYTHING = [
  ...["--set", "storage.enabled=true,storageClass.isDefault=true,image.tag=v9"],
  ...["--set", "imagePullSecrets[0].name=hush,storageClass.parameters.ioQueues=4"],
  ...["--set", "storageClass.fsType=xfs,kubeletDir=/var/lib/k0s/kubelet,maxVolumesPerNode=20"],
];
/** The chart has the configuration's flags for the node plugin, which has no configuration file. */
const CHART_ONLY = /^--(driver-name|max-volumes-per-node|log-level)=/;

process.exitCode = await main();

async function main(): Promise<number> {
  const go = findGo();
  if (go === null) {
    console.log("skip: needs go\n0 passed, 0 failed, 1 skipped");
    return 0;
  }
  const folder = temporaryFolder();
  let passed = 0;
  let failed = 0;
  try {
    for (const [name, check] of await makeChecks(go, folder.path)) {
      try {
        check();
        passed += 1;
        console.log(`ok    ${name}`);
      } catch (error) {
        failed += 1;
        const { message, details = "" } = error as { message: string; details?: string };
        console.log(`FAIL  ${name}\n${message}\n${details}`);
      }
    }
  } finally {
    folder.remove();
  }
  console.log(`${passed} passed, ${failed} failed, 0 skipped`);
  return failed === 0 ? 0 : 1;
}

type Check = [string, () => void];

async function makeChecks(go: string, folder: string): Promise<Check[]> {
  const [kubernetes, snapshots, postgres] = await Promise.all(
    [KUBERNETES, SNAPSHOTS, POSTGRES].map((wanted) => provideGoModule(go, wanted)),
  );
  const kubeconform = await provideGoProgram(go, KUBECONFORM);
  const helm = findProgram("helm") ?? (await provideGoProgram(go, HELM));
  const read = (texts: string[]) =>
    readYaml(folder, (files) => run(helm, ["template", "x", files]), texts);
  const schemas = join(folder, "schemas");
  writeSchemas(schemas, {
    openApi: join(kubernetes ?? "", "api/openapi-spec/swagger.json"),
    customResources: read([
      ...yamlFiles(join(snapshots ?? "", "config/crd")),
      ...yamlFiles(join(postgres ?? "", "config/crd/bases")),
    ]),
  });
  const kustomize = await renderer(go);
  const conform = (manifests: string) => {
    const location = join(schemas, SCHEMA_NAMES);
    const args = ["-strict", "-summary", "-schema-location", location];
    run(kubeconform, args, manifests);
  };
  const template = (...values: string[]) =>
    run(helm, ["template", "pando", chart, "--namespace", "pando-csi", ...values]);
  const kustomized = ["kustomize", "storage"].map(
    (name): Check => [`kustomize: ${name}`, () => conform(kustomize(join(deploy, name)))],
  );
  const example = readdirSync(examples).map(
    (name): Check => [
      `examples/cnpg/${name}`,
      () => conform(readFileSync(join(examples, name), "utf8")),
    ],
  );
  return [
    ...kustomized,
    ...example,
    ["helm: lint", () => void run(helm, ["lint", "--strict", chart, ...NODES])],
    ["helm: template", () => conform(template(...NODES))],
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
    ["the chart is of this version", () => versions(read)],
  ];
}

/** By the chart's schema, before anything is asked of a cluster. */
function refusals(helm: string): void {
  const wrong: [string[], RegExp][] = [
    [[], /storageNodes/],
    [["--set", "storageNodes[0].name=A/b,storageNodes[0].address=10.0.0.5:9751"], /name/],
    [[...NODES, "--set", "storageClass.fsType=ntfs"], /fsType/],
    [[...NODES, "--set", "maxVolumesPerNode=many"], /maxVolumesPerNode/],
    [[...NODES, "--set", "replicas=3"], /replicas/],
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

interface Manifest {
  kind: string;
  rules?: unknown;
  spec?: { template?: { spec: PodSpec } };
}

interface PodSpec {
  containers: { name: string; image: string; args?: string[] }[];
}

/** Images, arguments and rules: what would drift apart. */
function whatIsRun(manifests: unknown[]): unknown {
  const all = manifests as Manifest[];
  const rules = all.filter(({ kind }) => /Role$/.test(kind)).map((one) => one.rules);
  const containers = all.flatMap(({ spec }) => spec?.template?.spec.containers ?? []);
  const run = containers.map(({ name, image, args = [] }) => ({
    name,
    image,
    args: args.filter((one) => !CHART_ONLY.test(one)).sort(),
  }));
  const text = (one: unknown) => JSON.stringify(one);
  return { rules: rules.map(text).sort(), run: run.map(text).sort() };
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
