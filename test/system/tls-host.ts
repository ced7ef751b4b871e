// TLS with a real Linux host: trixie's kernel, its nvme-cli and its tlshd, by hand, since no other
// test needs them:
//
//   npm run tls-host
//
// Both versions of the identity connect, move data, and connect again after the daemon was killed;
// a wrong key does not, nor does the host without TLS. Of hashes there is SHA-256 only: trixie's
// tlshd proves with it that it has a key for SHA-384, which TLS does not allow.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { temporaryFolder } from "../support/pando.js";
import { skip } from "../support/skip.js";
import { connect, disconnect, guestHost, type Target } from "./guest-nvme.js";
import { IN_TOOLS, startTlshd } from "./guest-tls.js";
import { type PandoNode, startNode, targetOf } from "./pando-node.js";
import { timed } from "./timed.js";
import { repositoryRoot } from "./vm/host.js";
import { provideHostTools } from "./vm/host-tools.js";
import { vmSkipReason } from "./vm/prerequisites.js";
import { bootVm, hostAddress, type Vm } from "./vm/vm.js";

const missing = await vmSkipReason();
if (missing !== null) skip(missing);

const folder = temporaryFolder();
let node: PandoNode;
let vm: Vm;
let target: Target;

test.before(async () => {
  const tools = await timed("the host's tools are there", () => provideHostTools());
  [node, vm] = await timed("daemon serves, VM is up", () =>
    Promise.all([
      startNode({ poolSize: "1GiB", advertise: hostAddress }),
      bootVm({ name: "tls-host", cpus: 2 }),
    ]),
  );
  await node.pando("volume", "create", "disk", "--size", "64MiB");
  await node.pando("host", "allow", "disk", guestHost.hostNqn);
  target = targetOf(await node.showVolume("disk"));
  await startTlshd(vm, tools);
});

test.after(async () => {
  await vm?.close();
  await node?.remove();
  folder.remove();
});

for (const identity of [0, 1]) {
  test(`identity ${identity}`, async () => {
    await setKey(await makeKey(identity));
    const device = await timed("nvme connect --tls", () => connect(vm, target, guestHost, "--tls"));
    const [connection] = (await node.pando("host", "list")) as Record<string, unknown>[];
    assert.equal([connection?.ioQueues, connection?.tls], [2, true]);
    await move(device);
    await node.killDaemon();
    await node.startDaemon();
    await timed("I/O goes on", () =>
      vm.must(`dd if=${device} of=/dev/null bs=4k count=1 iflag=direct`),
    );
    await disconnect(vm, target);
    assert.not.ok(await connects(""), "without TLS");
  });
}

test("pando connect --tls", async () => {
  await setKey(await makeKey(1));
  const device = await pando("connect", `--target ${target.traddr}:${target.trsvcid} --tls`);
  const [connection] = (await node.pando("host", "list")) as Record<string, unknown>[];
  assert.is(connection?.tls, true);
  await move(device.trim());
  await pando("disconnect", "");
});

test("pando connect --tls-key-file: no other program has the key, nor what was there", async () => {
  await makeKey(1);
  for (const round of [1, 2]) {
    const key = (await vm.must("nvme gen-tls-key --hmac=1")).trim();
    await setKey(key);
    await vm.must(`umask 077; echo '${key}' >/run/tls.key`);
    const at = `--target ${target.traddr}:${target.trsvcid} --tls-key-file /run/tls.key`;
    const device = await timed(`with key ${round}`, () => pando("connect", at));
    const [connection] = (await node.pando("host", "list")) as Record<string, unknown>[];
    assert.is(connection?.tls, true);
    await move(device.trim());
    await pando("disconnect", "");
  }
  // As the kernel sees it: the first key's entries may be in its table for a moment yet.
  const keys = await vm.must(`${IN_TOOLS} /usr/bin/keyctl list %:.nvme`);
  assert.match(keys, /^3 keys/, "the last one's");
});

test("discovery in the open says that the volume needs TLS, and over TLS it is found too", async () => {
  const discovery = { ...target, nqn: "nqn.2014-08.org.nvmexpress.discovery" };
  const key = await makeKey(0);
  await setKey(key);
  await insertKey(0, key, discovery.nqn);
  const address = `-t tcp -a ${target.traddr} -s ${target.trsvcid}`;
  for (const option of ["", "--tls"]) {
    const log = await vm.must(`nvme discover ${address} --hostnqn=${guestHost.hostNqn} ${option}`);
    assert.match(log, `subnqn:  ${target.nqn}`);
    assert.match(log, /treq: {4}required/);
    assert.match(log, /sectype: tls13/);
  }
});

test("a wrong key is refused", async () => {
  await makeKey(0);
  assert.not.ok(await connects("--tls"));
  assert.match(node.log(), /the key of host .* is another/);
  assert.equal((await node.stopAndCheck()).problems, []);
});

test.run();

/** Into the guest's keyring, too; the only one there. */
async function makeKey(identity: number): Promise<string> {
  const made = await vm.must(`${IN_TOOLS} /usr/bin/keyctl clear %:.nvme
    nvme gen-tls-key --hmac=1`);
  await insertKey(identity, made.trim(), target.nqn);
  return made.trim();
}

async function insertKey(identity: number, key: string, subsystemNqn: string): Promise<void> {
  await vm.must(`nvme check-tls-key --insert --identity=${identity} --keydata '${key}' \
    --hostnqn=${guestHost.hostNqn} --subsysnqn=${subsystemNqn}`);
}

async function setKey(key: string): Promise<void> {
  const path = join(folder.path, "key");
  writeFileSync(path, `${key}\n`, { mode: 0o600 });
  await node.pando("host", "set-tls-key", guestHost.hostNqn, "--key-file", path);
}

async function move(device: string): Promise<void> {
  await vm.must(`dd if=/dev/urandom of=/tmp/data bs=1M count=8 status=none
    dd if=/tmp/data of=${device} bs=1M oflag=direct status=none
    dd if=/tmp/data of=${device} bs=4k count=64 seek=4096 oflag=direct status=none
    cmp -n 8388608 /tmp/data ${device}`);
}

/** In the guest. */
function pando(command: string, more: string): Promise<string> {
  return vm.must(
    `node ${join(repositoryRoot, "dist/engine/cli/main.js")} ${command} ${target.nqn} ${more} \
      --host-nqn=${guestHost.hostNqn}`,
  );
}

function connects(options: string): Promise<boolean> {
  return connect(vm, target, guestHost, options).then(
    () => true,
    () => false,
  );
}
