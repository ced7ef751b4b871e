// In-band authentication (DH-HMAC-CHAP) with the Linux host: the right key connects, anything else
// does not, one way and both ways; and a key is nowhere to be seen.
//
//   node dist/test/system/authentication.test.js --all     every hash with every group
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DH_GROUPS, DHCHAP_HASHES, formatDhchapKey } from "../../engine/base/dhchap-key.js";
import { temporaryFolder } from "../support/pando.js";
import { skip } from "../support/skip.js";
import { connect, connectionState, disconnect, guestHost, type Target } from "./guest-nvme.js";
import { type PandoNode, startNode, targetOf } from "./pando-node.js";
import { timed } from "./timed.js";
import { vmSkipReason } from "./vm/prerequisites.js";
import { bootVm, hostAddress, type Vm } from "./vm/vm.js";

const every = process.argv.includes("--all");
const COMBINATIONS = every
  ? DHCHAP_HASHES.flatMap((hash) => DH_GROUPS.map((group) => [hash, group] as const))
  : ([
      ["sha256", "ffdhe2048"],
      ["sha512", "null"],
    ] as const);

const missing = await vmSkipReason({ guestPrograms: ["nvme"] });
if (missing !== null) skip(missing);

const folder = temporaryFolder();
const hostKey = formatDhchapKey({ hash: "sha256", secret: randomBytes(32) });
const controllerKey = formatDhchapKey({ hash: "sha512", secret: randomBytes(64) });
const wrongKey = formatDhchapKey({ hash: null, secret: randomBytes(32) });
const host = `--dhchap-secret='${hostKey}'`;
const both = `${host} --dhchap-ctrl-secret='${controllerKey}'`;

let node: PandoNode;
let vm: Vm;
let target: Target;

test.before(async () => {
  [node, vm] = await timed("daemon serves, VM is up", () =>
    Promise.all([
      startNode({ poolSize: "1GiB", advertise: hostAddress }),
      bootVm({ name: "authentication", cpus: 2 }),
    ]),
  );
  await node.pando("volume", "create", "disk", "--size", "64MiB");
  await node.pando("host", "allow", "disk", guestHost.hostNqn);
  target = targetOf(await node.showVolume("disk"));
});

test.after(async () => {
  await vm?.close();
  await node?.remove();
  folder.remove();
});

test("a connected host that gets a key is put out until it proves itself", async () => {
  await connect(vm, target);
  await setKeys(hostKey, controllerKey);
  await nobodyIsServed();
  await sleep(2000);
  await nobodyIsServed();
  const state = await connectionState(vm, target).catch(() => "gone");
  if (state === "connecting") await disconnect(vm, target);
});

for (const [hash, group] of COMBINATIONS) {
  test(`${hash} with ${group}: the right keys, and no others`, async () => {
    await node.killDaemon();
    await node.startDaemon(["--auth-hashes", hash, "--auth-groups", group]);
    assert.not.ok(await connects(""), "no key");
    assert.not.ok(await connects(`--dhchap-secret='${wrongKey}'`), "a wrong key");
    const impostor = `${host} --dhchap-ctrl-secret='${wrongKey}'`;
    assert.not.ok(await connects(impostor), "the host does not believe us");
    await nobodyIsServed();

    for (const keys of [host, both]) {
      const device = await timed("nvme connect", () => connect(vm, target, guestHost, keys));
      const [connection] = (await node.pando("host", "list")) as Record<string, unknown>[];
      assert.equal([connection?.ioQueues, connection?.authenticated], [2, true]);
      await vm.must(`dd if=/dev/urandom of=/tmp/data bs=1M count=4 status=none
        dd if=/tmp/data of=${device} bs=1M oflag=direct status=none
        cmp -n 4194304 /tmp/data ${device}`);
      await disconnect(vm, target);
    }
  });
}

test("a host proves itself again when the daemon has been killed", async () => {
  const device = await connect(vm, target, guestHost, both);
  await node.killDaemon();
  await node.startDaemon();
  await timed("I/O goes on", () =>
    vm.must(`dd if=${device} of=/dev/null bs=4k count=1 iflag=direct`),
  );
  const [connection] = (await node.pando("host", "list")) as Record<string, unknown>[];
  assert.is(connection?.authenticated, true);
  await disconnect(vm, target);
});

test("no key is told, logged, or readable for others", async () => {
  assert.equal(await node.pando("host", "keys"), [
    { hostNqn: guestHost.hostNqn, proves: true, bidirectional: true, tls: false },
  ]);
  const secrets = [hostKey, controllerKey].map((key) => key.slice(10, 40));
  const commandLines = execFileSync("ps", ["-eo", "args"], { encoding: "utf8" })
    .split("\n")
    .filter((line) => line.includes("pando") && !line.includes("qemu"));
  const told = JSON.stringify(await node.showVolume("disk")) + node.log() + commandLines.join("\n");
  for (const secret of secrets) assert.not.ok(told.includes(secret));
  const meta = join(node.pool, "meta");
  const stores = readdirSync(meta).filter((file) => {
    return readFileSync(join(meta, file)).includes(secrets[0] as string);
  });
  assert.ok(stores.length > 0, "the store has it");
  const open = statSync(meta).mode & 0o077;
  assert.ok(open === 0 || stores.every((file) => (statSync(join(meta, file)).mode & 0o077) === 0));

  await node.pando("host", "remove-keys", guestHost.hostNqn);
  await connect(vm, target);
  await disconnect(vm, target);
  assert.equal((await node.stopAndCheck()).problems, []);
});

test.run();

async function setKeys(ofHost: string, ofController: string): Promise<void> {
  const files = [ofHost, ofController].map((key, index) => {
    const path = join(folder.path, `key-${index}`);
    writeFileSync(path, `${key}\n`, { mode: 0o600 });
    return path;
  });
  const [keyFile, controllerFile] = files as [string, string];
  const options = ["--key-file", keyFile, "--controller-key-file", controllerFile];
  await node.pando("host", "set-keys", guestHost.hostNqn, ...options);
}

/** A host that tries may be there for a moment; it has nothing. */
async function nobodyIsServed(): Promise<void> {
  const connections = (await node.pando("host", "list")) as Record<string, unknown>[];
  for (const { ioQueues, authenticated } of connections) {
    assert.equal([ioQueues, authenticated], [0, false]);
  }
}

function connects(keys: string): Promise<boolean> {
  return connect(vm, target, guestHost, keys).then(
    () => true,
    () => false,
  );
}
