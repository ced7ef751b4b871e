// The CSI node service with an initiator, a mount table and programs that are fakes: what it runs,
// in which order, and what it refuses. The real ones are in test/csi/.
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { inspect } from "node:util";
import { status } from "@grpc/grpc-js";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type CommandOptions, type RunCommand, runCommand } from "../../csi/command.js";
import { FileSystems } from "../../csi/filesystem.js";
import { MountTable, parseMountTable } from "../../csi/mount-table.js";
import { nodeService } from "../../csi/node.js";
import { PandoError } from "../../engine/base/errors.js";
import { volumeNqn } from "../../engine/base/nqn.js";
import { BLOCK, callUnary, MOUNT, NODE_1, refusesWith } from "../support/csi.js";
import { temporaryFolder } from "../support/pando.js";

const UUID = "00000000-0000-4000-8000-0000000000aa";
const ID = `a/v/${UUID}`;
const NQN = volumeNqn(UUID);
const PUBLISHED = { nqn: NQN, traddr: "10.0.0.1", trsvcid: "4420" };

/** A node whose kernel is a list of mounts and a device that is a file. */
class FakeNode {
  readonly folder = temporaryFolder();
  readonly devicePath = join(this.folder.path, "nvme0n1");
  readonly ran: string[] = [];
  /** What blkid finds; null: nothing. */
  contents: string | null = null;
  connected = false;
  failing: string | null = null;
  /** The subsystems for which the kernel has its TLS key, and how it connected. */
  readonly keys = new Set<string>();
  readonly connections: string[] = [];
  /** What is wrong with its key file. */
  keyFault: PandoError | null = null;
  /** The driver dies at this side effect, before it or after it. */
  fault: { dieAtChange: number; before: boolean } | null = null;
  changes = 0;
  readonly #table = join(this.folder.path, "mountinfo");
  #mounts: { path: string; options: string; type: string }[] = [];
  readonly #service;

  /** `tls`: whether its plugin has a key. */
  constructor({ tls = false } = {}) {
    writeFileSync(this.devicePath, Buffer.alloc(4096));
    this.#save();
    const run: RunCommand = (program, args, options) => {
      const work = () => this.#run(program, args, options);
      return program === "blkid" ? work() : this.#change(work);
    };
    const device = () => ({
      path: this.devicePath,
      name: "nvme0n1",
      number: "259:1",
      sizeBytes: 4096,
      nqn: NQN,
    });
    this.#service = nodeService({
      nodeId: NODE_1,
      maxVolumesPerNode: null,
      zone: "eu-1",
      mounts: new MountTable(run, this.#table),
      fileSystems: new FileSystems(run),
      tls: tls ? this.#tls() : null,
      initiator: {
        connect: ({ tls }) =>
          this.#change(async () => {
            assert.is(tls, this.keys.has(NQN));
            this.connections.push(tls ? "over TLS" : "in the open");
            this.connected = true;
            return device();
          }),
        disconnect: () =>
          this.#change(async () => {
            this.connected = false;
          }),
        find: async () => (this.connected ? device() : null),
        isLive: async () => this.connected,
        rescan: async () => undefined,
      },
    });
  }

  path(name: string): string {
    return join(this.folder.path, name);
  }

  call(method: string, request: object): Promise<unknown> {
    const defaults = {
      volumeId: ID,
      stagingTargetPath: this.path("staging"),
      targetPath: this.path("target"),
      volumePath: this.path("staging"),
      publishContext: PUBLISHED,
      volumeContext: {},
      volumeCapability: MOUNT,
      capacityRange: null,
      readonly: false,
    };
    return callUnary(this.#service, method, { ...defaults, ...request });
  }

  /** The programs that ran since the last question. */
  since(): string[] {
    return this.ran.splice(0).map((line) => line.replaceAll(`${this.folder.path}/`, ""));
  }

  /** What is mounted where, and from what. */
  get state(): unknown {
    const { connected, contents, keys } = this;
    const paths = ["staging", "target"].map((name) => [name, existsSync(this.path(name))]);
    return { connected, contents, keys: [...keys], mounts: this.#mounts, paths };
  }

  #tls() {
    return {
      prepare: (nqn: string) =>
        this.#change(async () => {
          if (this.keyFault !== null) throw this.keyFault;
          this.keys.add(nqn);
        }),
      forget: (nqn: string) => this.#change(async () => void this.keys.delete(nqn)),
    };
  }

  async #change<T>(work: () => Promise<T>): Promise<T> {
    this.changes += 1;
    const dies = this.changes === this.fault?.dieAtChange ? this.fault : null;
    if (dies?.before) throw new Error("it died");
    const done = await work();
    if (dies !== null) throw new Error("it died");
    return done;
  }

  async #run(program: string, args: string[], options: CommandOptions = {}) {
    this.ran.push([program, ...args].join(" "));
    if (program === this.failing) throw new PandoError("EIO", `${program}: it failed`);
    if (program === "blkid") {
      const code = this.contents === null ? 2 : 0;
      assert.ok(options.accept?.includes(code));
      return { code, stdout: this.contents === null ? "" : `TYPE=${this.contents}\n` };
    }
    if (program.startsWith("mkfs.")) this.contents = program.slice("mkfs.".length);
    const last = args.at(-1) ?? "";
    if (program === "mount") {
      const options = args.includes("bind,ro") ? "ro" : "rw";
      this.#mounts.push({ path: last, options, type: this.contents ?? "devtmpfs" });
    }
    if (program === "umount") this.#mounts = this.#mounts.filter(({ path }) => path !== last);
    this.#save();
    return { code: 0, stdout: "" };
  }

  #save(): void {
    const lines = this.#mounts.map(
      ({ path, options, type }, index) =>
        `${index + 30} 1 259:1 / ${path} ${options} shared:1 - ${type} ${this.devicePath} rw`,
    );
    writeFileSync(this.#table, `${lines.join("\n")}\n`);
  }
}

const withFileSystem = (fsType: string, more: object = {}) => ({
  volumeCapability: { ...MOUNT, mount: { ...MOUNT.mount, fsType, ...more } },
});

const test = suite<{ node: FakeNode }>("CSI node");

test.before.each((context) => {
  context.node = new FakeNode();
  mkdirSync(context.node.path("staging"));
});

test.after.each(({ node }) => node.folder.remove());

test("a node says who and where it is", async ({ node }) => {
  assert.equal(await node.call("NodeGetInfo", {}), {
    nodeId: NODE_1,
    maxVolumesPerNode: 0,
    accessibleTopology: { segments: { "topology.kubernetes.io/zone": "eu-1" } },
  });
});

test("a blank volume is formatted, once", async ({ node }) => {
  await node.call("NodeStageVolume", {});
  const options = "-q -F -m 0 -E nodiscard,lazy_itable_init=1";
  assert.equal(node.since(), [
    "blkid -p -o export -s TYPE -s PTTYPE -- nvme0n1",
    `mkfs.ext4 ${options} nvme0n1`,
    "mount -t ext4 -- nvme0n1 staging",
    "resize2fs nvme0n1",
  ]);
  await node.call("NodeStageVolume", {});
  assert.equal(node.since(), ["resize2fs nvme0n1"], "staged again, nothing is mounted");
  await refusesWith(
    node.call("NodeStageVolume", withFileSystem("xfs")),
    status.ALREADY_EXISTS,
    /staged already, with ext4/,
  );
  await node.call("NodeUnstageVolume", {});
  assert.is(node.connected, false);
  node.since();
  await node.call("NodeStageVolume", {});
  assert.equal(node.since().slice(1), [
    "e2fsck -p nvme0n1",
    "mount -t ext4 -- nvme0n1 staging",
    "resize2fs nvme0n1",
  ]);
});

test("a clone of XFS is mounted beside its origin", async ({ node }) => {
  node.contents = "xfs";
  const { volumeCapability } = withFileSystem("xfs", { mountFlags: ["noatime"] });
  await node.call("NodeStageVolume", { volumeCapability });
  assert.equal(node.since().slice(1), [
    "mount -t xfs -o noatime,nouuid -- nvme0n1 staging",
    "xfs_growfs -d staging",
  ]);
});

test("nothing but a blank volume is formatted", async ({ node }) => {
  const stage = (request: object) => node.call("NodeStageVolume", request);
  const refused = status.FAILED_PRECONDITION;
  writeFileSync(node.devicePath, Buffer.alloc(4096, 1));
  await refusesWith(stage({}), refused, /holds data in which no file system is recognised/);
  node.contents = "LVM2_member";
  await refusesWith(stage({}), refused, /holds LVM2_member, and is not formatted over/);
  node.contents = "xfs";
  await refusesWith(stage(withFileSystem("ext4")), refused, /holds xfs, and ext4 is asked for/);
  assert.not.ok(node.ran.some((line) => /mkfs|^mount/.test(line)));
});

test("what mkfs leaves when it fails is wiped", async ({ node }) => {
  node.failing = "mkfs.ext4";
  await refusesWith(node.call("NodeStageVolume", {}), status.INTERNAL, /mkfs\.ext4: it failed/);
  assert.is(node.since().at(-1), "blkdiscard --zeroout nvme0n1");
});

test("a staged volume is published where a pod wants it, and taken away", async ({ node }) => {
  await node.call("NodeStageVolume", {});
  node.since();
  const publish = (request: object) => node.call("NodePublishVolume", request);
  await publish({});
  assert.equal(node.since(), ["mount --bind -- staging target"]);
  await publish({});
  assert.equal(node.since(), []);
  await refusesWith(
    publish({ readonly: true }),
    status.ALREADY_EXISTS,
    /at \S+target already, read-wri/,
  );
  await publish({ targetPath: node.path("second"), readonly: true });
  assert.is(node.since().at(-1), "mount -o bind,ro -- staging second");
  const alone = { ...MOUNT, accessMode: { mode: "SINGLE_NODE_SINGLE_WRITER" } };
  const third = { targetPath: node.path("third"), volumeCapability: alone };
  await refusesWith(publish(third), status.FAILED_PRECONDITION, /is for one pod, and published at/);
  await node.call("NodeUnpublishVolume", { targetPath: node.path("second") });
  await node.call("NodeUnpublishVolume", {});
  await node.call("NodeUnpublishVolume", {});
});

test("with a key every volume is connected over TLS; without, none that demands it", async () => {
  const secured = new FakeNode({ tls: true });
  const open = new FakeNode();
  const demanded = { publishContext: { ...PUBLISHED, tls: "required" } };
  try {
    for (const node of [secured, open]) mkdirSync(node.path("staging"));
    await secured.call("NodeStageVolume", demanded);
    await secured.call("NodeUnstageVolume", {});
    assert.is(secured.keys.size, 0, "as long as it is connected");
    // Published before the node had a key.
    await secured.call("NodeStageVolume", {});
    assert.equal(secured.connections, ["over TLS", "over TLS"]);
    assert.equal([...secured.keys], [NQN]);
    const hint = "chmod 600 tls.key";
    secured.keyFault = new PandoError("EPERM", "tls.key is readable for others", { hint });
    const unable = secured.call("NodeStageVolume", {});
    const why = /^this node's plugin cannot use TLS: tls.key is readable .* \(chmod 600 tls.key\)$/;
    await refusesWith(unable, status.FAILED_PRECONDITION, why);
    const refused = open.call("NodeStageVolume", demanded);
    await refusesWith(refused, status.FAILED_PRECONDITION, /demands TLS .* has no tlsKeyFile/);
    assert.equal(open.connections, []);
    await open.call("NodeStageVolume", {});
    assert.equal(open.connections, ["in the open"]);
  } finally {
    for (const node of [secured, open]) node.folder.remove();
  }
});

test("what is still published is not disconnected", async ({ node }) => {
  await node.call("NodeStageVolume", {});
  await node.call("NodePublishVolume", {});
  const unstaging = node.call("NodeUnstageVolume", {});
  await refusesWith(unstaging, status.FAILED_PRECONDITION, /is still mounted at \S+target/);
  assert.is(node.connected, true);
});

test("a raw block volume is connected, and its device bound", async ({ node }) => {
  await node.call("NodeStageVolume", { volumeCapability: BLOCK });
  assert.equal(node.since(), []);
  await node.call("NodePublishVolume", { volumeCapability: BLOCK });
  assert.equal(node.since(), ["mount --bind -- nvme0n1 target"]);
});

test("what is not staged is not published", async ({ node }) => {
  const publish = (request: object) => node.call("NodePublishVolume", request);
  const refused = status.FAILED_PRECONDITION;
  await refusesWith(publish({}), refused, /is not staged on this node/);
  await refusesWith(publish({ stagingTargetPath: "" }), refused, /^staging_target_path is missing/);
  node.connected = true;
  await refusesWith(publish({}), refused, /is not staged at/);
});

test("what is missing in a request is named", async ({ node }) => {
  const table: [string, object, RegExp][] = [
    ["NodeStageVolume", { volumeId: "" }, /^volume_id is missing/],
    ["NodeStageVolume", { stagingTargetPath: "" }, /^staging_target_path is missing/],
    ["NodeStageVolume", { volumeCapability: null }, /^volume_capability is missing/],
    ["NodeStageVolume", { publishContext: {} }, /^publish_context\[nqn\]/],
    ["NodeStageVolume", { volumeContext: { ioQueues: "many" } }, /ioQueues\] is "many"/],
    ["NodeStageVolume", withFileSystem("ntfs"), /^volume_capability has the file system ntfs/],
    ["NodeUnstageVolume", { volumeId: "" }, /^volume_id/],
    ["NodeUnstageVolume", { stagingTargetPath: "" }, /^staging_target_path/],
    ["NodePublishVolume", { volumeId: "" }, /^volume_id/],
    ["NodePublishVolume", { targetPath: "" }, /^target_path/],
    ["NodePublishVolume", { targetPath: "here" }, /^target_path is here, not an absolute path/],
    ["NodePublishVolume", { volumeCapability: null }, /^volume_capability/],
    ["NodeUnpublishVolume", { volumeId: "" }, /^volume_id/],
    ["NodeUnpublishVolume", { targetPath: "" }, /^target_path/],
    ["NodeGetVolumeStats", { volumeId: "" }, /^volume_id/],
    ["NodeGetVolumeStats", { volumePath: "" }, /^volume_path/],
    ["NodeExpandVolume", { volumeId: "" }, /^volume_id/],
    ["NodeExpandVolume", { volumePath: "" }, /^volume_path/],
  ];
  for (const [method, request, message] of table) {
    await refusesWith(node.call(method, request), status.INVALID_ARGUMENT, message);
  }
  for (const method of ["NodeGetVolumeStats", "NodeExpandVolume"]) {
    await refusesWith(node.call(method, { volumeId: "junk" }), status.NOT_FOUND, /no volume junk/);
    await refusesWith(node.call(method, {}), status.NOT_FOUND, /is not at/);
  }
});

test("a crash before or after any side effect, then the same call again", async () => {
  const ready = { readonly: true };
  const calls: [string, string[], string, object][] = [
    ["stage", [], "NodeStageVolume", {}],
    ["stage what is there", ["NodeStageVolume", "NodeUnstageVolume"], "NodeStageVolume", {}],
    ["stage for a group", [], "NodeStageVolume", withFileSystem("xfs", { volumeMountGroup: "0" })],
    ["publish", ["NodeStageVolume"], "NodePublishVolume", {}],
    ["publish read-only", ["NodeStageVolume"], "NodePublishVolume", ready],
    ["unpublish", ["NodeStageVolume", "NodePublishVolume"], "NodeUnpublishVolume", {}],
    ["unstage", ["NodeStageVolume"], "NodeUnstageVolume", {}],
    ["expand", ["NodeStageVolume"], "NodeExpandVolume", {}],
  ];
  for (const [what, before, method, request] of calls) {
    const settled = async (fault: FakeNode["fault"]) => {
      const node = new FakeNode({ tls: true });
      mkdirSync(node.path("staging"));
      try {
        for (const earlier of before) await node.call(earlier, {});
        node.changes = 0;
        node.fault = fault;
        if (fault !== null)
          await refusesWith(node.call(method, request), status.INTERNAL, /it died/);
        node.fault = null;
        await node.call(method, request);
        const text = JSON.stringify(node.state).replaceAll(node.folder.path, "");
        return { changes: node.changes, state: text };
      } finally {
        node.folder.remove();
      }
    };
    const reference = await settled(null);
    assert.ok(reference.changes > 0, what);
    for (let dieAtChange = 1; dieAtChange <= reference.changes; dieAtChange++) {
      for (const before of [true, false]) {
        const { state } = await settled({ dieAtChange, before });
        assert.equal(state, reference.state, `${what}, change ${dieAtChange}, before: ${before}`);
      }
    }
  }
});

test("what Kubernetes gives as a mount flag is in no message", async () => {
  const table = new MountTable(runCommand);
  const flags = ["ro", "password=hush"];
  const mounting = table.mount({ source: "/none", target: "/none", fileSystem: "none", flags });
  const error = await mounting.then(
    () => assert.unreachable("it was mounted"),
    (thrown: Error) => thrown,
  );
  const said = `${inspect(error, { depth: 9 })} ${JSON.stringify(error)}`;
  assert.match(said, /mount -t none -o …/);
  assert.not.match(said, /hush/);
});

test("the mount table is read as the kernel writes it", () => {
  const [first, second] = parseMountTable(
    "36 35 98:0 /sub\\040dir /mnt/with\\040blank rw,noatime master:1 - ext4 /dev/root rw\n" +
      "37 35 0:5 /nvme0n1 /pods/v ro - devtmpfs devtmpfs rw\n\n",
  );
  assert.is(first?.path, "/mnt/with blank");
  assert.is(first?.root, "/sub dir");
  assert.is(first?.readonly, false);
  assert.is(second?.root, "/nvme0n1");
  assert.is(second?.readonly, true);
});

test.run();
