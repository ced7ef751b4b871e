// TLS with the kernel's own target: daemon, ublk, nvmet, initiator and the tlshd of both in one
// guest, by hand, since no other test needs trixie's tools there:
//
//   npm run tls-nvmet
//
// The host's keys are in a key ring of its own, so that the target has no others than those that
// the daemon gave it; nvme-cli cannot name that ring to the kernel, so it is told without. Of
// hashes there is SHA-256 only: see tls-host.ts.
import { randomBytes } from "node:crypto";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { formatDhchapKey } from "../../engine/base/dhchap-key.js";
import { freePort } from "../support/pando.js";
import { skip } from "../support/skip.js";
import { disconnect, guestHost, type HostIdentity, type Target } from "./guest-nvme.js";
import { GuestPando, PATIENCE_MS } from "./guest-pando.js";
import { IN_TOOLS, startTlshd } from "./guest-tls.js";
import { startNode, targetOf } from "./pando-node.js";
import { timed } from "./timed.js";
import { repositoryRoot } from "./vm/host.js";
import { provideHostTools } from "./vm/host-tools.js";
import { vmSkipReason } from "./vm/prerequisites.js";
import { bootVm, type Vm } from "./vm/vm.js";

const missing = await vmSkipReason();
if (missing !== null) skip(missing);

const CONFIG = "/sys/kernel/config/nvmet";
const HOST_RING = "pando-test-host";
const OVER_TLS = ",tls,keyring=$(cat /run/ring)";
/** Another host of the same volume, which has another key. */
const other: HostIdentity = {
  hostNqn: "nqn.2014-08.org.nvmexpress:uuid:7f1a5a0e-9c4e-4f5e-8b3a-1c2d3e4f5a6b",
  hostId: "7f1a5a0e-9c4e-4f5e-8b3a-1c2d3e4f5a6b",
};

let vm: Vm;
let daemons: GuestPando;
let target: Target;
let poolUuid: string;
let key: string;

test.before(async () => {
  const tools = await timed("the host's tools are there", () => provideHostTools());
  const apiPort = await freePort();
  const node = await startNode({ poolSize: "256MiB", advertise: "127.0.0.1", sparse: true });
  try {
    await node.pando("volume", "create", "db", "--size", "64MiB");
    for (const { hostNqn } of [guestHost, other]) await node.pando("host", "allow", "db", hostNqn);
    target = { ...targetOf(await node.showVolume("db")), traddr: "127.0.0.1", trsvcid: 4421 };
    ({ uuid: poolUuid } = (await node.pando("pool", "show")) as { uuid: string });
    await node.stopAndCheck();
    const guest = await bootVm({ name: "tls-nvmet", cpus: 2, forwardPort: apiPort });
    const patient = { timeoutMs: PATIENCE_MS };
    vm = { ...guest, must: (script, options) => guest.must(script, options ?? patient) };
    await vm.must(`modprobe -a nvmet-tcp ublk_drv && cp -r --sparse=always ${node.pool} /run/pool`);
  } finally {
    await node.remove();
  }
  await startTlshd(vm, tools);
  // Two emulated ends of a handshake on a busy machine take longer than what the kernel waits.
  await vm.must(
    `for module in nvme_tcp nvmet_tcp; do
       limit=/sys/module/$module/parameters/tls_handshake_timeout
       [ ! -e $limit ] || echo 120 >$limit
     done`,
  );
  await vm.must(`ring=$(${IN_TOOLS} /usr/bin/keyctl newring ${HOST_RING} @u)
    ${IN_TOOLS} /usr/bin/keyctl setperm $ring 0x3f3f0000; echo $ring >/run/ring`);
  daemons = new GuestPando({
    vm,
    apiPort,
    pool: "/run/pool",
    settings: { target: "none", nvmet: "127.0.0.1:4421", nvmetTls: "required" },
  });
  await timed("daemon serves", () => daemons.serve());
  await timed("share", () => daemons.client.shareVolume("db", "nvmet"));
});

test.after(async () => {
  daemons?.close();
  await vm?.close();
});

test("the machine has what it takes, and says so", async () => {
  const report = await vm.must(
    `node ${repositoryRoot}/dist/engine/cli/main.js doctor --json || true`,
  );
  const findings = JSON.parse(report) as { what: string; ok: boolean }[];
  const tls = findings.filter(({ what }) => what.startsWith("TLS"));
  assert.equal(
    tls.map(({ ok }) => ok),
    [true, true],
    report,
  );
});

test("a host without a key is not let in, nor is its name", async () => {
  assert.not.ok(await connects(guestHost, ""), "in the open");
  assert.is((await vm.must(`ls ${CONFIG}/subsystems/*/allowed_hosts`)).trim(), "");
});

for (const identity of [0, 1]) {
  test(`a host with its key, identity ${identity}`, async () => {
    key = await makeKey();
    await insertKey(guestHost, key, identity);
    await daemons.client.setHostTlsKey(guestHost.hostNqn, key);
    assert.is((await vm.must(`cat ${CONFIG}/ports/*/addr_tsas`)).trim(), "tls1.3");
    assert.is((await vm.must(`cat ${CONFIG}/ports/*/addr_treq`)).trim(), "required");
    assert.not.ok(await connects(guestHost, ""), "in the open");
    const device = await timed("connect over TLS", () => connect(guestHost, OVER_TLS));
    assert.match(await vm.must("cat /sys/class/nvme/nvme*/tls_key"), /[0-9a-f]{8}/);
    await move(device);
    if (identity === 1) {
      await daemons.kill();
      await timed("another daemon serves", () => daemons.serve());
      await move(device);
    }
    await disconnect(vm, target);
  });
}

test("a wrong key is refused", async () => {
  await insertKey(guestHost, await makeKey(), 1);
  assert.not.ok(await connects(guestHost, OVER_TLS));
  await insertKey(guestHost, key, 1);
  await connect(guestHost, OVER_TLS);
  await disconnect(vm, target);
});

test("discovery over TLS, and not in the open", async () => {
  const discovery = { ...target, nqn: "nqn.2014-08.org.nvmexpress.discovery" };
  await insertKey(guestHost, key, 1, discovery.nqn);
  const device =
    "dev=$(basename $(grep -l discovery /sys/class/nvme/nvme*/subsysnqn | xargs dirname))";
  await fabrics(guestHost, OVER_TLS, discovery);
  const log = await vm.must(`${device}; nvme discover -d $dev; nvme disconnect -d $dev >&2`);
  assert.match(log, `subnqn:  ${target.nqn}`);
  assert.match(log, /treq: {4}required/);
  assert.match(log, /sectype: tls13/);
  assert.not.ok(
    await fabrics(guestHost, "", discovery).then(
      () => true,
      () => false,
    ),
  );
});

test("no program has been told a key, and the ring is the daemon's", async () => {
  const table = await vm.must("cat /proc/keys");
  assert.match(table, new RegExp(`keyring +pando ${poolUuid}: 6`));
  assert.not.match(daemons.log(), /NVMeTLSkey/);
});

test("Linux does not compare the key with the name that a host gives; keys of its own do", async () => {
  await daemons.client.setHostTlsKey(other.hostNqn, await makeKey());
  await insertKey(guestHost, key, 1);
  const asOther = `${OVER_TLS},tls_key=$(${IN_TOOLS} /usr/bin/keyctl rlist $(cat /run/ring))`;
  assert.ok(await connects(other, asOther), "one host's key opens under another one's name");
  await disconnect(vm, target);
  const host = formatDhchapKey({ hash: "sha256", secret: randomBytes(32) });
  await daemons.client.setHostKeys(other.hostNqn, { host, controller: null });
  assert.not.ok(await connects(other, asOther), "which it has to prove");
});

test("a host that has lost its key is put out, and cannot come back", async () => {
  await connect(guestHost, OVER_TLS);
  await timed("remove the key", () => daemons.client.removeHostTlsKey(guestHost.hostNqn));
  const state = await vm.must("sleep 2; cat /sys/class/nvme/nvme*/state || true");
  assert.not.match(state, /live/);
  await disconnect(vm, target);
  assert.not.ok(await connects(guestHost, OVER_TLS));
  await daemons.client.removeHostTlsKey(other.hostNqn);
  assert.not.match(await vm.must("cat /proc/keys"), `pando ${poolUuid}`);
});

test("unshare leaves nothing", async () => {
  await timed("unshare", () => daemons.client.unshareVolume("db", { force: false }));
  assert.is((await vm.must(`ls ${CONFIG}/subsystems ${CONFIG}/ports | grep -v :`)).trim(), "");
  await daemons.kill("TERM");
});

test.run();

async function makeKey(): Promise<string> {
  return (await vm.must("nvme gen-tls-key --hmac=1")).trim();
}

/** The only one of the host's ring, but for others' subsystems. */
async function insertKey(
  { hostNqn }: HostIdentity,
  text: string,
  identity: number,
  subsystemNqn = target.nqn,
): Promise<void> {
  const clear =
    subsystemNqn === target.nqn ? `${IN_TOOLS} /usr/bin/keyctl clear %:${HOST_RING}` : "";
  await vm.must(`${clear}
    nvme check-tls-key --insert --keyring=${HOST_RING} --identity=${identity} --keydata '${text}' \
      --hostnqn=${hostNqn} --subsysnqn=${subsystemNqn}`);
}

async function move(device: string): Promise<void> {
  await vm.must(`dd if=/dev/urandom of=/tmp/data bs=1M count=8 status=none
    dd if=/tmp/data of=${device} bs=1M oflag=direct status=none
    cmp -n 8388608 /tmp/data ${device}`);
}

/** `more`: options as the kernel has them. */
async function fabrics(
  { hostNqn, hostId }: HostIdentity,
  more: string,
  { nqn, traddr, trsvcid } = target,
): Promise<void> {
  const place = `transport=tcp,traddr=${traddr},trsvcid=${trsvcid}`;
  const names = `nqn=${nqn},hostnqn=${hostNqn},hostid=${hostId}`;
  const times = "keep_alive_tmo=5,reconnect_delay=1,ctrl_loss_tmo=300,nr_io_queues=2";
  await vm.must(`printf %s "${place},${names},${times}${more}" >/dev/nvme-fabrics`);
}

/** Returns the block device. */
async function connect(host: HostIdentity, more: string): Promise<string> {
  await fabrics(host, more);
  const device = await vm.must(`for attempt in $(seq 300); do
      for device in /sys/block/nvme*n*; do
        [ "$(cat $device/size)" -gt 0 ] && echo /dev/\${device##*/} && exit
      done
      sleep 0.1
    done
    exit 1`);
  return device.trim();
}

function connects(host: HostIdentity, more: string): Promise<boolean> {
  return connect(host, more).then(
    () => true,
    () => false,
  );
}
