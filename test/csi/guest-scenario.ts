// Runs in a guest: the driver as Kubernetes drives it, on the kernel's initiator and real file
// systems. Started by volumes.test.ts, once for each of its scenarios:
//
//     node guest-scenario.js CONFIG SCENARIO
//
// Prints what it did and how long that took; ends with 1 at the first thing that is not right.
import { execFileSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  constants as fsConstants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statfsSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { status } from "@grpc/grpc-js";
import * as assert from "uvu/assert";
import { loadCsiConfig } from "../../csi/config.js";
import { startDriver } from "../../csi/driver.js";
import { CsiClient } from "../support/csi-client.js";
import { guestHost } from "../system/guest-nvme.js";

const MIB = 1024 ** 2;
const ROOT = "/tmp/csi";

type Fields = Record<string, unknown>;

const [configPath, scenario = ""] = process.argv.slice(2);
const config = loadCsiConfig(configPath, { logLevel: "warn" });
const nodeId = config.hostNqn ?? "";
const FIRST_NODE = guestHost.hostNqn;

/** One volume on one node, with the paths that kubelet would give it. */
class Pod {
  readonly staging: string;
  readonly target: string;

  constructor(
    readonly csi: CsiClient,
    readonly name: string,
    readonly volumeId: string,
    readonly volumeCapability: object,
    readonly node = nodeId,
    readonly volumeContext = {},
  ) {
    this.staging = `${ROOT}/${name}/staging`;
    this.target = `${ROOT}/${name}/target`;
  }

  async start(): Promise<void> {
    const startedAt = performance.now();
    const { volumeId, volumeCapability, volumeContext, staging, target, csi } = this;
    mkdirSync(staging, { recursive: true });
    const { publishContext } = await this.attach();
    const volume = { volumeId, volumeCapability, volumeContext };
    const common = { ...volume, publishContext, stagingTargetPath: staging };
    await csi.call("Node", "NodeStageVolume", common);
    await csi.call("Node", "NodePublishVolume", { ...common, targetPath: target });
    const elapsedMs = Math.round(performance.now() - startedAt);
    console.log(`${this.name}: from ControllerPublish to NodePublish ${elapsedMs} ms`);
  }

  attach(): Promise<Fields> {
    const { volumeId, volumeCapability, node } = this;
    const request = { volumeId, nodeId: node, volumeCapability };
    return this.csi.call("Controller", "ControllerPublishVolume", request);
  }

  async stop(): Promise<void> {
    await this.leave();
    await this.detach();
  }

  /** What the node does of it. */
  async leave(): Promise<void> {
    const { volumeId, staging, target, csi } = this;
    await csi.call("Node", "NodeUnpublishVolume", { volumeId, targetPath: target });
    await csi.call("Node", "NodeUnstageVolume", { volumeId, stagingTargetPath: staging });
    assert.is(existsSync(target), false, "the target path is gone");
  }

  detach(): Promise<Fields> {
    const request = { volumeId: this.volumeId, nodeId: this.node };
    return this.csi.call("Controller", "ControllerUnpublishVolume", request);
  }
}

const scenarios: Record<string, (csi: CsiClient) => Promise<void>> = {
  ext4: (csi) => fileSystem(csi, "ext4"),
  xfs: (csi) => fileSystem(csi, "xfs"),
  btrfs: (csi) => fileSystem(csi, "btrfs"),
  block,
  "move: begins": moveBegins,
  "move: takes over": moveTakesOver,
  "move: is fenced": moveIsFenced,
  "move: ends": moveEnds,
};
/** What is mounted outlives the driver. */
const GO_ON = ["move: begins", "move: takes over"];

await main();

async function main(): Promise<void> {
  const run = scenarios[scenario];
  if (run === undefined) throw new Error(`no scenario ${scenario}`);
  const driver = await startDriver(config);
  const csi = new CsiClient(config.endpoint);
  await run(csi);
  csi.close();
  await driver.close();
  if (GO_ON.includes(scenario)) return console.log(`${scenario}: done`);
  const left = execFileSync("sh", ["-c", "ls -d /sys/block/nvme* 2>/dev/null || true"]).toString();
  assert.is(left, "", "nothing is connected any more");
  console.log(`${scenario}: done`);
}

async function fileSystem(csi: CsiClient, fsType: string): Promise<void> {
  const mount = { fsType, mountFlags: [], volumeMountGroup: "26" };
  const capability = { mount, accessMode: { mode: "SINGLE_NODE_WRITER" } };
  const originId = await create(csi, `${fsType}-origin`, { capability, sizeBytes: 512 * MIB });
  const origin = new Pod(csi, `${fsType}-origin`, originId, capability);
  await origin.start();
  const { gid, mode } = statSync(origin.target);
  assert.is(gid, 26, "the root belongs to the group");
  assert.is(mode & 0o2070, 0o2070);
  writeFileSync(`${origin.target}/before`, "one root system", { flush: true });
  execFileSync("sync", ["-f", origin.target]);
  const snapshotId = await snapshot(csi, originId, `${fsType}-snap`);
  writeFileSync(`${origin.target}/after`, "later");
  writeFileSync(`${origin.target}/before`, "changed");

  // Beside its origin, and larger.
  const contentSource = { snapshot: { snapshotId } };
  const clone = { capability, sizeBytes: 768 * MIB, contentSource };
  const cloneId = await create(csi, `${fsType}-clone`, clone);
  const branch = new Pod(csi, `${fsType}-clone`, cloneId, capability);
  await branch.start();
  assert.is(readFileSync(`${branch.target}/before`, "utf8"), "one root system");
  assert.is(existsSync(`${branch.target}/after`), false);
  const sizeOf = (path: string) => statfsSync(path).blocks * statfsSync(path).bsize;
  assert.ok(sizeOf(branch.target) > 600 * MIB, "the clone's file system has grown");
  writeFileSync(`${branch.target}/own`, "many trunks");
  assert.is(existsSync(`${origin.target}/own`), false);

  // While it is mounted.
  const capacityRange = { requiredBytes: 1024 * MIB };
  const grown = { volumeId: originId, capacityRange, volumeCapability: capability };
  await csi.call("Controller", "ControllerExpandVolume", grown);
  await csi.call("Node", "NodeExpandVolume", {
    ...grown,
    volumePath: origin.target,
    stagingTargetPath: origin.staging,
  });
  assert.ok(sizeOf(origin.target) > 850 * MIB, `grown to ${sizeOf(origin.target)}`);
  const stats = { volumeId: originId, volumePath: origin.target };
  const { usage, volumeCondition } = await csi.call("Node", "NodeGetVolumeStats", stats);
  assert.ok(Number((usage as Fields[])[0]?.total) > 850 * MIB);
  assert.is((volumeCondition as Fields).abnormal, false);
  assert.is(await codeOf(remove(csi, originId)), status.FAILED_PRECONDITION, "it is connected");

  // Parents first.
  await origin.stop();
  await remove(csi, originId);
  await csi.call("Controller", "DeleteSnapshot", { snapshotId });
  await branch.stop();
  await branch.start();
  assert.is(readFileSync(`${branch.target}/own`, "utf8"), "many trunks");
  await branch.stop();
  await remove(csi, cloneId);
}

async function block(csi: CsiClient): Promise<void> {
  const capability = { block: {}, accessMode: { mode: "SINGLE_NODE_WRITER" } };
  const volumeId = await create(csi, "raw", { capability, sizeBytes: 64 * MIB });
  const raw = new Pod(csi, "raw", volumeId, capability);
  await raw.start();
  writeBlock(raw.target, "before");
  const contentSource = { volume: { volumeId } };
  const cloneId = await create(csi, "raw-clone", {
    capability,
    sizeBytes: 64 * MIB,
    contentSource,
  });
  writeBlock(raw.target, "after");
  const clone = new Pod(csi, "raw-clone", cloneId, capability);
  await clone.start();
  assert.is(readBlock(clone.target), "before");
  assert.is(readBlock(raw.target), "after");
  await raw.stop();
  await clone.stop();

  // As a file system it would be formatted over.
  const mount = { fsType: "ext4", mountFlags: [], volumeMountGroup: "" };
  const wrong = { mount, accessMode: { mode: "SINGLE_NODE_WRITER" } };
  const pod = new Pod(csi, "wrong", volumeId, wrong);
  assert.is(await codeOf(pod.start()), status.FAILED_PRECONDITION);
  await pod.stop();
  await raw.start();
  assert.is(readBlock(raw.target), "after");
  await raw.stop();
  for (const id of [volumeId, cloneId]) await remove(csi, id);
}

/**
 * A pod that moves to a second node while the first one still has its volume mounted. The nodes are
 * two machines, so it is told step by step; the volume is found again by its name.
 */
const MOVING = {
  capability: {
    mount: { fsType: "ext4", mountFlags: [], volumeMountGroup: "" },
    accessMode: { mode: "SINGLE_NODE_WRITER" },
  },
  sizeBytes: 256 * MIB,
  parameters: { fastIoFailSeconds: "2", ctrlLossSeconds: "4" },
};

async function movingPod(csi: CsiClient, node = nodeId): Promise<Pod> {
  const volumeId = await create(csi, "moving", MOVING);
  return new Pod(csi, "moving", volumeId, MOVING.capability, node, MOVING.parameters);
}

async function moveBegins(csi: CsiClient): Promise<void> {
  const pod = await movingPod(csi);
  await pod.start();
  writeFileSync(`${pod.target}/first`, "by the first node", { flush: true });
  execFileSync("sync", ["-f", pod.target]);
}

async function moveTakesOver(csi: CsiClient): Promise<void> {
  const pod = await movingPod(csi);
  assert.is(await codeOf(pod.attach()), status.FAILED_PRECONDITION, "the first node has it");
  await (await movingPod(csi, FIRST_NODE)).detach();
  await pod.start();
  assert.is(readFileSync(`${pod.target}/first`, "utf8"), "by the first node");
  writeFileSync(`${pod.target}/second`, "by the second node", { flush: true });
}

async function moveIsFenced(csi: CsiClient): Promise<void> {
  const pod = await movingPod(csi);
  assert.throws(() => {
    writeFileSync(`${pod.target}/grave`, "from the grave", { flush: true });
    execFileSync("sync", ["-f", pod.target]);
  }, "the first node writes no more");
  assert.is(await codeOf(pod.attach()), status.FAILED_PRECONDITION, "the second node has it");
  await pod.leave();
}

async function moveEnds(csi: CsiClient): Promise<void> {
  const pod = await movingPod(csi);
  assert.is(readFileSync(`${pod.target}/second`, "utf8"), "by the second node");
  await pod.stop();
  await pod.start();
  assert.equal(readdirSync(pod.target).sort(), ["first", "lost+found", "second"]);
  await pod.stop();
  await remove(csi, pod.volumeId);
}

interface Wanted {
  capability: object;
  sizeBytes: number;
  contentSource?: object;
  parameters?: object;
}

async function create(csi: CsiClient, name: string, wanted: Wanted): Promise<string> {
  const { volume } = await csi.call("Controller", "CreateVolume", {
    name,
    capacityRange: { requiredBytes: wanted.sizeBytes },
    volumeCapabilities: [wanted.capability],
    volumeContentSource: wanted.contentSource,
    parameters: wanted.parameters,
  });
  return (volume as { volumeId: string }).volumeId;
}

async function snapshot(csi: CsiClient, sourceVolumeId: string, name: string): Promise<string> {
  const answer = await csi.call("Controller", "CreateSnapshot", { sourceVolumeId, name });
  const made = answer.snapshot as { snapshotId: string; readyToUse: boolean };
  assert.is(made.readyToUse, true, "ready at the first answer");
  return made.snapshotId;
}

function remove(csi: CsiClient, volumeId: string): Promise<Fields> {
  return csi.call("Controller", "DeleteVolume", { volumeId });
}

function codeOf(work: Promise<unknown>): Promise<status> {
  return work.then(
    () => status.OK,
    (error: { code: status }) => error.code,
  );
}

/** To the device, past the page cache: what is not written is an error now. */
function writeBlock(path: string, text: string): void {
  const { O_RDWR, O_SYNC } = fsConstants;
  const device = openSync(path, O_RDWR | O_SYNC);
  try {
    writeSync(device, Buffer.alloc(4096, text.padEnd(16, "\0")), 0, 4096, 0);
  } finally {
    closeSync(device);
  }
}

function readBlock(path: string): string {
  const device = openSync(path, "r");
  try {
    const buffer = Buffer.alloc(16);
    readSync(device, buffer, 0, buffer.length, 0);
    return buffer.toString().replace(/\0+$/, "");
  } finally {
    closeSync(device);
  }
}
