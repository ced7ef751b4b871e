// The controller on two real storage nodes, over mutual TLS, with the volumes' contents read and
// written over NBD: what clones, snapshots and groups contain, streams of metadata against what the
// snapshots read as, many calls at once, and a storage node that dies and returns.
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { loadCsiConfig } from "../../csi/config.js";
import { type Driver, startDriver } from "../../csi/driver.js";
import type { TlsFiles } from "../../engine/base/config.js";
import { NbdClient } from "../../engine/cli/nbd-client.js";
import { seeded } from "../prng.js";
import { makeAuthority } from "../support/certificates.js";
import { CsiClient } from "../support/csi-client.js";
import {
  type DaemonProcess,
  freePort,
  killDaemons,
  pandoCommand,
  runPando,
  startPandoDaemon,
  temporaryFolder,
} from "../support/pando.js";
import { needsCommands, skip } from "../support/skip.js";

const missing = needsCommands("openssl");
if (missing !== null) skip(missing);

const MIB = 1024 ** 2;
const BLOCK_BYTES = 4096;
const BLOCK = { block: {}, accessMode: { mode: "SINGLE_NODE_WRITER" } };

const folder = temporaryFolder();
const test = suite("CSI on two storage nodes");

class StorageNode {
  readonly nbdSocket: string;
  #daemon: DaemonProcess | null = null;

  constructor(
    readonly name: string,
    readonly port: number,
    readonly tls: TlsFiles,
  ) {
    this.nbdSocket = join(folder.path, `${name}.nbd`);
  }

  async create(): Promise<void> {
    const size = ["--size", "256MiB", "--journal-size", "4MiB", "--sparse"];
    const { code, stderr } = await runPando(pandoCommand("real"), [
      ...["pool", "create", join(folder.path, this.name), ...size],
    ]);
    assert.is(code, 0, stderr);
    await this.start();
  }

  async start(): Promise<void> {
    const { certificate, key, authority } = this.tls;
    this.#daemon = await startPandoDaemon(pandoCommand("real"), [
      ...["--pool", join(folder.path, this.name), "--socket", join(folder.path, `${this.name}.s`)],
      ...["--nbd-socket", this.nbdSocket, "--metrics", "none", "--target", "none"],
      ...["--api", `127.0.0.1:${this.port}`, "--api-certificate", certificate],
      ...["--api-key", key, "--api-authority", authority],
    ]);
  }

  async kill(): Promise<void> {
    await this.#daemon?.stop("SIGKILL");
  }

  open(volume: string): Promise<NbdClient> {
    return NbdClient.open({ socket: this.nbdSocket, name: volume });
  }
}

let driver: Driver;
let csi: CsiClient;
let a: StorageNode;
let b: StorageNode;

test.before(async () => {
  const authority = makeAuthority(folder.path, "pando");
  const node = async (name: string) =>
    new StorageNode(name, await freePort(), authority.issue(name));
  a = await node("a");
  b = await node("b");
  await Promise.all([a.create(), b.create()]);
  const endpoint = join(folder.path, "csi.sock");
  const base = loadCsiConfig(undefined, { mode: "node", endpoint, logLevel: "error" });
  driver = await startDriver({
    ...base,
    mode: "controller",
    storageNodes: [a, b].map(({ name, port }) => ({
      name,
      address: { host: "127.0.0.1", port },
      zone: null,
    })),
    tls: authority.issue("controller"),
  });
  csi = new CsiClient(endpoint);
});

test.after(async () => {
  csi?.close();
  await driver?.close();
  killDaemons();
  folder.remove();
});

interface Wanted {
  on?: string;
  snapshotId?: string;
  volumeId?: string;
}

async function create(name: string, wanted: Wanted = {}): Promise<string> {
  const { on, snapshotId, volumeId } = wanted;
  const { volume } = await csi.call("Controller", "CreateVolume", {
    name,
    capacityRange: { requiredBytes: 16 * MIB },
    volumeCapabilities: [BLOCK],
    parameters: on === undefined ? {} : { storageNode: on },
    volumeContentSource:
      (snapshotId && { snapshot: { snapshotId } }) ||
      (volumeId && { volume: { volumeId } }) ||
      null,
  });
  return (volume as { volumeId: string }).volumeId;
}

async function snapshot(sourceVolumeId: string, name: string): Promise<string> {
  const answer = await csi.call("Controller", "CreateSnapshot", { sourceVolumeId, name });
  const made = answer.snapshot as { snapshotId: string; readyToUse: boolean };
  assert.is(made.readyToUse, true, "ready at the first answer");
  return made.snapshotId;
}

function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => "OK",
    (error: { code: status }) => status[error.code] ?? "",
  );
}

async function contents(node: StorageNode, name: string): Promise<Buffer> {
  const nbd = await node.open(name);
  const parts: Buffer[] = [];
  for (let at = 0; at < nbd.sizeBytes; at += MIB) parts.push(await nbd.read(at, MIB));
  await nbd.close();
  return Buffer.concat(parts);
}

async function readNumber(node: StorageNode, name: string): Promise<number> {
  const nbd = await node.open(name);
  const number = (await nbd.read(0, BLOCK_BYTES)).readUInt32LE(0);
  await nbd.close();
  return number;
}

interface Stream {
  method: "GetMetadataAllocated" | "GetMetadataDelta";
  request: object;
}

/** The blocks that a stream names, checked as the specification wants them. */
async function blocksOf({ method, request }: Stream, more: object = {}): Promise<number[]> {
  const blocks: number[] = [];
  let end = 0;
  for await (const message of csi.read("SnapshotMetadata", method, { ...request, ...more })) {
    assert.is(message.blockMetadataType, "VARIABLE_LENGTH");
    assert.is(message.volumeCapacityBytes, 16 * MIB);
    const tuples = message.blockMetadata as { byteOffset: number; sizeBytes: number }[];
    for (const { byteOffset, sizeBytes } of tuples) {
      assert.ok(byteOffset >= end && sizeBytes > 0, "in order, apart, and not empty");
      end = byteOffset + sizeBytes;
      for (let at = byteOffset; at < end; at += BLOCK_BYTES) blocks.push(at / BLOCK_BYTES);
    }
  }
  return blocks;
}

function differing(after: Buffer, before: Buffer): number[] {
  const found: number[] = [];
  for (let at = 0; at < after.length; at += BLOCK_BYTES) {
    const end = at + BLOCK_BYTES;
    if (!after.subarray(at, end).equals(before.subarray(at, end))) found.push(at / BLOCK_BYTES);
  }
  return found;
}

test("streams of metadata name what differs, wherever they begin", async () => {
  const volumeId = await create("changing", { on: "a" });
  const random = seeded(20_26);
  const nbd = await a.open("changing");
  const ids: string[] = [];
  for (let round = 1; round <= 3; round++) {
    for (let change = 0; change < 150; change++) {
      const lengthBytes = (1 + random.below(4)) * BLOCK_BYTES;
      const offsetBytes = random.below(16 * MIB - lengthBytes) & -BLOCK_BYTES;
      if (random.oneIn(4)) await nbd.zero(offsetBytes, lengthBytes);
      else await nbd.write(offsetBytes, Buffer.alloc(lengthBytes, `${round}.${change} `));
    }
    await nbd.flush();
    ids.push(await snapshot(volumeId, `round-${round}`));
  }
  await nbd.close();
  const images = await Promise.all(
    [1, 2, 3].map((round) => contents(a, `changing@round-${round}`)),
  );
  const blank = Buffer.alloc(16 * MIB);
  const cases: [Stream, number[]][] = [];
  for (const [from, to] of [
    [-1, 2],
    [0, 1],
    [0, 2],
    [1, 2],
  ] as const) {
    const stream: Stream =
      from < 0
        ? { method: "GetMetadataAllocated", request: { snapshotId: ids[to] } }
        : {
            method: "GetMetadataDelta",
            request: { baseSnapshotId: ids[from], targetSnapshotId: ids[to] },
          };
    cases.push([stream, differing(images[to] ?? blank, images[from] ?? blank)]);
  }
  for (const [stream, expected] of cases) {
    const name = `${stream.method} ${JSON.stringify(stream.request)}`;
    assert.ok(expected.length > 100);
    assert.equal(await blocksOf(stream), expected, name);
    assert.equal(await blocksOf(stream, { maxResults: 7 }), expected, name);
    const middle = expected[50] ?? 0;
    // In the middle of a block, it is told again.
    for (const startingOffset of [middle * BLOCK_BYTES, middle * BLOCK_BYTES + 1]) {
      const rest = expected.filter((block) => block >= middle);
      assert.equal(await blocksOf(stream, { startingOffset }), rest, name);
    }
  }
  const turned = { baseSnapshotId: ids[2], targetSnapshotId: ids[0] };
  const refused = blocksOf({ method: "GetMetadataDelta", request: turned });
  assert.is(await codeOf(refused), "INVALID_ARGUMENT");
});

test("a group is of one instant, while a counter goes through its volumes", async () => {
  const names = ["first", "second", "third"];
  const ids: string[] = [];
  for (const name of names) ids.push(await create(name, { on: "b" }));
  const nbds = await Promise.all(names.map((name) => b.open(name)));
  let stop = false;
  const counting = (async () => {
    for (let count = 1; !stop; count++) {
      const block = Buffer.alloc(BLOCK_BYTES);
      block.writeUInt32LE(count);
      for (const nbd of nbds) await nbd.write(0, block);
    }
  })();
  const seen: number[][] = [];
  for (let round = 0; round < 8; round++) {
    const answer = await csi.call("GroupController", "CreateVolumeGroupSnapshot", {
      name: `group-${round}`,
      sourceVolumeIds: ids,
    });
    const { groupSnapshotId, snapshots } = answer.groupSnapshot as {
      groupSnapshotId: string;
      snapshots: { snapshotId: string; sourceVolumeId: string }[];
    };
    const counts: number[] = [];
    for (const id of ids) {
      const { snapshotId = "" } = snapshots.find((one) => one.sourceVolumeId === id) ?? {};
      const clone = `clone-${round}-${counts.length}`;
      await create(clone, { snapshotId });
      counts.push(await readNumber(b, clone));
    }
    seen.push(counts);
    const snapshotIds = snapshots.map(({ snapshotId }) => snapshotId);
    const group = { groupSnapshotId, snapshotIds };
    await csi.call("GroupController", "DeleteVolumeGroupSnapshot", group);
  }
  stop = true;
  await counting;
  for (const nbd of nbds) await nbd.close();
  for (const [first = 0, second = 0, third = 0] of seen) {
    const ordered = first >= second && second >= third && third >= first - 1;
    assert.ok(ordered, `${first}, ${second}, ${third} were never there at once`);
  }
  assert.ok((seen.at(-1)?.[0] ?? 0) > (seen[0]?.[0] ?? 0), "it counted meanwhile");
});

test("clones keep what they were made of, whatever becomes of their origin", async () => {
  const originId = await create("origin", { on: "a" });
  const nbd = await a.open("origin");
  await nbd.write(0, Buffer.alloc(BLOCK_BYTES, "before "));
  const snapshotId = await snapshot(originId, "origin-snap");
  await create("by-snapshot", { snapshotId });
  const branchId = await create("by-volume", { volumeId: originId });
  await nbd.write(0, Buffer.alloc(BLOCK_BYTES, "after "));
  await nbd.close();
  await csi.call("Controller", "DeleteSnapshot", { snapshotId });
  await csi.call("Controller", "DeleteVolume", { volumeId: originId });
  await create("branch-of-branch", { volumeId: branchId });
  await csi.call("Controller", "DeleteVolume", { volumeId: branchId });
  for (const name of ["by-snapshot", "branch-of-branch"]) {
    assert.match((await contents(a, name)).toString("latin1", 0, 20), /^before before/);
  }
});

test("many calls at once make each thing once", async () => {
  const originId = await create("busy", { on: "a" });
  const snapshotId = await snapshot(originId, "busy-snap");
  // Each name three times at once: one call makes it, another may be told to come back.
  const names = Array.from({ length: 40 }, (_, index) => `many-${index}`);
  const asked = [...names, ...names, ...names];
  const tried = await Promise.allSettled(asked.map((name) => create(name, { snapshotId })));
  for (const [index, one] of tried.entries()) {
    if (one.status === "fulfilled") assert.match(one.value, new RegExp(`^a/${asked[index]}/`));
    else assert.is(status[(one.reason as { code: status }).code], "ABORTED");
  }
  const ids = await Promise.all(names.map((name) => create(name, { snapshotId })));
  const answers = tried.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  assert.equal([...new Set([...ids, ...answers])].sort(), [...ids].sort());
  // Deleted, while its snapshot is and more clones of it are asked for.
  const outcomes = await Promise.all([
    csi.call("Controller", "DeleteSnapshot", { snapshotId }).then(() => "OK"),
    ...ids.map((volumeId) => codeOf(csi.call("Controller", "DeleteVolume", { volumeId }))),
    ...names.map((name) => codeOf(create(`late-${name}`, { snapshotId }))),
  ]);
  for (const code of outcomes) assert.ok(code === "OK" || code === "NOT_FOUND", code);
  const { entries } = await csi.call("Controller", "ListVolumes", {});
  const left = (entries as { volume: { volumeId: string } }[]).map(({ volume }) => volume.volumeId);
  assert.equal(
    left.filter((id) => id.startsWith("a/many-")),
    [],
  );
});

test("a list is the same by pages, across storage nodes", async () => {
  for (const [index, on] of ["a", "b", "b", "a"].entries()) await create(`paged-${index}`, { on });
  const list = async (request: object) => {
    const { entries, nextToken } = await csi.call("Controller", "ListVolumes", request);
    const ids = (entries as { volume: { volumeId: string } }[]).map(
      ({ volume }) => volume.volumeId,
    );
    return { ids, nextToken };
  };
  const whole = (await list({})).ids;
  assert.ok(["a/", "b/"].every((node) => whole.filter((id) => id.startsWith(node)).length > 2));
  const byPages: string[] = [];
  for (let startingToken: unknown = "", more = true; more; more = startingToken !== "") {
    const { ids, nextToken } = await list({ maxEntries: 2, startingToken });
    assert.ok(ids.length <= 2);
    byPages.push(...ids);
    startingToken = nextToken;
  }
  assert.equal(byPages, whole);
});

test("a storage node dies and returns, and the other one's volumes do not notice", async () => {
  const lostId = await create("lost", { on: "a" });
  const nbd = await a.open("lost");
  await nbd.write(0, Buffer.alloc(BLOCK_BYTES, "kept "));
  await nbd.close();
  const snapshotId = await snapshot(lostId, "lost-snap");
  await a.kill();
  const down = "UNAVAILABLE";
  const deleting = () => csi.call("Controller", "DeleteVolume", { volumeId: lostId });
  assert.is(await codeOf(deleting()), down);
  assert.is(await codeOf(create("of-lost", { snapshotId })), down);
  assert.is(await codeOf(snapshot(lostId, "late")), down);
  assert.is(await codeOf(csi.call("Controller", "ListVolumes", {})), down);
  const stream = { method: "GetMetadataAllocated", request: { snapshotId } } as const;
  assert.is(await codeOf(blocksOf(stream)), down);
  const newId = await create("meanwhile");
  assert.match(newId, /^b\//);
  await snapshot(newId, "meanwhile-snap");
  const capacity = await csi.call("Controller", "GetCapacity", {});
  assert.ok(Number(capacity.availableCapacity) > 0);
  await a.start();
  // As the sidecars do.
  while ((await codeOf(create("of-lost", { snapshotId }))) === down) await sleep(100);
  assert.match((await contents(a, "of-lost")).toString("latin1", 0, 10), /^kept kept/);
  assert.equal(await blocksOf(stream), [0]);
  await deleting();
});

test.run();
