// npm run test:k8s [-- manifests | cluster]: what is ours in Kubernetes, with Kubernetes' own
// programs.
// First the manifests against schemas; then all of them given to a control plane of its own, and
// the driver asked by the real sidecars.
//
// Not a part of `npm test`: all of these are Go programs, and are built the first time.
import { temporaryFolder } from "../support/pando.js";
import type { Stored } from "./api.js";
import { branchingSteps } from "./branching.js";
import { startCluster } from "./cluster.js";
import { findGo } from "./go.js";
import { manifestSteps, readDeployment, readDriver } from "./manifests.js";
import { metadataSteps } from "./metadata.js";
import { provideMetadataSidecar, providePrograms } from "./programs.js";
import { type Outcome, runSteps } from "./steps.js";
import { applyManifests, startStorage } from "./storage.js";
import { zoneSteps } from "./zones.js";

const PARTS = ["manifests", "cluster"];

process.exitCode = await main(process.argv.slice(2));

async function main(wanted: string[]): Promise<number> {
  const odd = wanted.find((part) => !PARTS.includes(part));
  if (odd !== undefined) {
    console.log(`error: no part ${odd}; there are ${PARTS.join(", ")}`);
    return 2;
  }
  const go = findGo();
  if (go === null) {
    console.log("skip: needs go\n0 passed, 0 failed, 1 skipped");
    return 0;
  }
  const isWanted = (part: string) => wanted.length === 0 || wanted.includes(part);
  const folder = temporaryFolder();
  const outcome: Outcome = { passed: 0, failed: 0 };
  try {
    if (isWanted("manifests")) await runSteps(await manifestSteps(go, folder.path), outcome);
    if (isWanted("cluster")) await testCluster(go, folder.path, outcome);
  } finally {
    folder.remove();
  }
  console.log(`${outcome.passed} passed, ${outcome.failed} failed, 0 skipped`);
  return outcome.failed === 0 ? 0 : 1;
}

async function testCluster(go: string, folder: string, outcome: Outcome): Promise<void> {
  const texts = await readDeployment(go);
  const withZones = await readDriver(go, folder, "zones");
  const withMetadata = await readDriver(go, folder, "metadata");
  const programs = await providePrograms(go);
  const sidecar = await provideMetadataSidecar(go);
  const cluster = await startCluster(programs, folder);
  try {
    const documents: Stored[] = [];
    const apply = async () => void documents.push(...(await applyManifests(cluster, texts)));
    await runSteps([["the API server takes every manifest", apply]], outcome);
    const storage = await startStorage(cluster, programs, { folder, documents });
    try {
      await runSteps(branchingSteps(cluster, storage), outcome);
      const metadata = { sidecar, texts: withMetadata, folder };
      await runSteps(metadataSteps(cluster, storage, metadata), outcome);
      await runSteps(zoneSteps(cluster, storage, withZones), outcome);
    } finally {
      await storage.stop();
    }
  } finally {
    await cluster.stop();
  }
}
