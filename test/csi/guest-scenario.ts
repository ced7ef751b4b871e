// Runs in a guest: the driver as Kubernetes drives it, on the kernel's initiator and real file
// systems. Once in a guest, since an emulated processor needs long to load it; each scenario has a
// new driver:
//
//     node guest-scenario.js CONFIG ANSWERS <SCENARIOS
//
// A scenario's name is a line of its input. Prints what it did, how long that took, and what was
// not right, if anything; then 0 or 1 is written to ANSWERS, a pipe.
import { execFileSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  constants as fsConstants,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statfsSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createInterface } from "node:readline/promises";
import { status } from "@grpc/grpc-js";
import * as assert from "uvu/assert";
import { loadCsiConfig } from "../../csi/config.js";
import { startDriver } from "../../csi/driver.js";
import { CsiClient } from "../support/csi-client.js";
import { guestHost } from "../system/guest-nvme.js";
import { create, type Fields, Pod, remove } from "./guest-pod.js";

const MIB = 1024 ** 2;

const [configPath, answersPath = ""] = process.argv.slice(2);
const config = loadCsiConfig(configPath, { logLevel: "warn" });
const nodeId = config.hostNqn ?? "";
const FIRST_NODE = guestHost.hostNqn;

const scenarios: Record<string, (csi: CsiClient) => Promise<void>> = {
  ext4: (csi) => fileSystem(csi, "ext4"),
  xfs: (csi) => fileSystem(csi, "xfs"),
  btrfs: (csi) => fileSystem(csi, "btrfs"),
  block,
  "move: begins": moveBegins,
  "move: takes over": moveTakesOver,
  "move: is fenced": moveIsFenced,
  "move: ends": moveEnds,
  "tls: no key": (csi) => tlsRefused(csi, /demands TLS .* has no tlsKeyFile/),
  "tls: a key for all": (csi) => tlsRefused(csi, /cannot use TLS: .*readable for others/),
  "tls: a wrong key": tlsWrongKey,
  "tls: begins": tlsBegins,
  "tls: goes on": tlsGoesOn,
  "tls: ends": tlsEnds,
};
/** What is mounted outlives the driver. */
const GO_ON = ["move: begins", "move: takes over", "tls: begins", "tls: goes on"];

/** A pod that moves to a second node while the first one still has its volume mounted. */
const MOVING = {
  capability: {
    mount: { fsType: "ext4", mountFlags: [], volumeMountGroup: "" },
    accessMode: { mode: "SINGLE_NODE_WRITER" },
  },
  sizeBytes: 256 * MIB,
  parameters: { fastIoFailSeconds: "2", ctrlLossSeconds: "4" },
};
const SECURED = { capability: MOVING.capability, sizeBytes: 64 * MIB };

for await (const scenario of createInterface({ input: process.stdin })) {
  const status = await play(scenario).then(
    () => "0",
    (error: unknown) => {
      console.log(error);
      return "1";
    },
  );
  writeFileSync(answersPath, status);
}

async function play(scenario: string): Promise<void> {
  const run = scenarios[scenario];
  if (run === undefined) throw new Error(`no scenario ${scenario}`);
  const tlsKeyFile = scenario === "tls: no key" ? null : config.tlsKeyFile;
  const driver = await startDriver({ ...config, tlsKeyFile });
  const csi = new CsiClient(config.endpoint);
  try {
    await run(csi);
  } finally {
    csi.close();
    await driver.close();
  }
  if (!GO_ON.includes(scenario)) {
    const left = readdirSync("/sys/block").filter((name) => name.startsWith("nvme"));
    assert.equal(left, [], "nothing is connected any more");
  }
  console.log(`${scenario}: done`);
}

async function fileSystem(csi: CsiClient, fsType: string): Promise<void> {
  const mount = { fsType, mountFlags: [], volumeMountGroup: "26" };
  const capability = { mount, accessMode: { mode: "SINGLE_NODE_WRITER" } };
  const originId = await create(csi, `${fsType}-origin`, { capability, sizeBytes: 512 * MIB });
  const origin = new Pod(csi, {
    node: nodeId,
    name: `${fsType}-origin`,
    volumeId: originId,
    capability,
  });
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
  const branch = new Pod(csi, {
    node: nodeId,
    name: `${fsType}-clone`,
    volumeId: cloneId,
    capability,
  });
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
  const raw = new Pod(csi, { node: nodeId, name: "raw", volumeId, capability });
  await raw.start();
  writeBlock(raw.target, "before");
  const contentSource = { volume: { volumeId } };
  const cloneId = await create(csi, "raw-clone", {
    capability,
    sizeBytes: 64 * MIB,
    contentSource,
  });
  writeBlock(raw.target, "after");
  const clone = new Pod(csi, { node: nodeId, name: "raw-clone", volumeId: cloneId, capability });
  await clone.start();
  assert.is(readBlock(clone.target), "before");
  assert.is(readBlock(raw.target), "after");
  await raw.stop();
  await clone.stop();

  // As a file system it would be formatted over.
  const mount = { fsType: "ext4", mountFlags: [], volumeMountGroup: "" };
  const wrong = { mount, accessMode: { mode: "SINGLE_NODE_WRITER" } };
  const pod = new Pod(csi, { node: nodeId, name: "wrong", volumeId, capability: wrong });
  assert.is(await codeOf(pod.start()), status.FAILED_PRECONDITION);
  await pod.stop();
  await raw.start();
  assert.is(readBlock(raw.target), "after");
  await raw.stop();
  for (const id of [volumeId, cloneId]) await remove(csi, id);
}

/** The nodes are two machines, so it is told step by step; the volume is found by its name. */
async function movingPod(csi: CsiClient, node = nodeId): Promise<Pod> {
  const volumeId = await create(csi, "moving", MOVING);
  const { capability, parameters } = MOVING;
  return new Pod(csi, { node, name: "moving", volumeId, capability, parameters });
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
  const files = ["data", "first", "lost+found", "second"];
  assert.equal(readdirSync(pod.target).sort(), files);
  await pod.stop();
  await remove(csi, pod.of.volumeId);
}

async function securedPod(csi: CsiClient): Promise<Pod> {
  const volumeId = await create(csi, "secured", SECURED);
  const { capability } = SECURED;
  return new Pod(csi, { node: nodeId, name: "secured", volumeId, capability });
}

async function tlsRefused(csi: CsiClient, why: RegExp): Promise<void> {
  const pod = await securedPod(csi);
  const { code, details } = await errorOf(pod.start());
  assert.is(code, status.FAILED_PRECONDITION, details);
  assert.match(details, why);
  await pod.stop();
}

async function tlsWrongKey(csi: CsiClient): Promise<void> {
  const pod = await securedPod(csi);
  const { code, details } = await errorOf(pod.start());
  console.log(`refused with ${status[code]}: ${details}`);
  assert.is.not(code, status.OK);
  await pod.stop();
}

async function tlsBegins(csi: CsiClient): Promise<void> {
  const pod = await securedPod(csi);
  await pod.start();
  writeFileSync(`${pod.target}/first`, "over TLS", { flush: true });
}

async function tlsGoesOn(csi: CsiClient): Promise<void> {
  const pod = await securedPod(csi);
  assert.is(readFileSync(`${pod.target}/first`, "utf8"), "over TLS");
  writeFileSync(`${pod.target}/second`, Buffer.alloc(8 * MIB, "x"), { flush: true });
  execFileSync("sync", ["-f", pod.target]);
}

async function tlsEnds(csi: CsiClient): Promise<void> {
  const pod = await securedPod(csi);
  await pod.stop();
  await pod.start();
  assert.is(readFileSync(`${pod.target}/second`).length, 8 * MIB);
  await pod.stop();
  await remove(csi, pod.of.volumeId);
}

async function snapshot(csi: CsiClient, sourceVolumeId: string, name: string): Promise<string> {
  const answer = await csi.call("Controller", "CreateSnapshot", { sourceVolumeId, name });
  const made = answer.snapshot as { snapshotId: string; readyToUse: boolean };
  assert.is(made.readyToUse, true, "ready at the first answer");
  return made.snapshotId;
}

async function codeOf(work: Promise<unknown>): Promise<status> {
  return (await errorOf(work)).code;
}

function errorOf(work: Promise<unknown>): Promise<{ code: status; details: string }> {
  return work.then(
    () => ({ code: status.OK, details: "" }),
    (error: { code: status; details: string }) => error,
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
