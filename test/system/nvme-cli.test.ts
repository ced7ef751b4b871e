// A Linux host's tools on a volume: every command of nvme-cli that applies answers without a
// complaint; the host hears of a new size at once; a host that is put out stays out.
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { skip } from "../support/skip.js";
import { connect, connectionState, disconnect, discover, guestHost } from "./guest-nvme.js";
import { type PandoNode, startNode, targetOf } from "./pando-node.js";
import { timed } from "./timed.js";
import { vmSkipReason } from "./vm/prerequisites.js";
import { bootVm, hostAddress, type Vm } from "./vm/vm.js";

/** DEVICE is the controller, NAMESPACE the block device. */
const COMMANDS = [
  "id-ctrl DEVICE -H",
  "id-ns NAMESPACE -H",
  "ns-descs NAMESPACE",
  "cmdset-ind-id-ns NAMESPACE -n 1",
  "nvm-id-ctrl DEVICE",
  "nvm-id-ns NAMESPACE -n 1",
  "id-iocs DEVICE",
  "list-ns DEVICE",
  "list-ns DEVICE --all",
  "list-ctrl DEVICE",
  "list-ctrl DEVICE -n 1",
  "list",
  "list-subsys",
  // In place of show-regs, which in version 2.3 fails on the kernel's own target too.
  "get-property DEVICE -o 0 -H",
  "get-property DEVICE -o 8 -H",
  "get-property DEVICE -o 0x14 -H",
  "get-property DEVICE -o 0x1c -H",
  "smart-log DEVICE",
  "error-log DEVICE",
  "fw-log DEVICE",
  "changed-ns-list-log DEVICE",
  "effects-log DEVICE -H",
  "ana-log DEVICE",
  "fid-support-effects-log DEVICE",
  "supported-log-pages DEVICE",
  ...[1, 2, 4, 5, 6, 7, 10, 11, 15].flatMap((feature) => [
    `get-feature DEVICE -f ${feature} -H`,
    `get-feature DEVICE -f ${feature} -s 1`,
    `get-feature DEVICE -f ${feature} -s 3`,
  ]),
  "get-ns-id NAMESPACE",
  "flush NAMESPACE -n 1",
  "write-zeroes NAMESPACE -s 0 -c 7",
  "write-zeroes NAMESPACE -s 8 -c 7 --deac",
  "verify NAMESPACE -s 0 -c 7",
  "dsm NAMESPACE -n 1 -b 16 -s 32 -d",
  "ns-rescan DEVICE",
];
/** What is refused, and with which status: docs/nvme.md. */
const REFUSED: [string, string][] = [
  ["admin-passthru DEVICE --opcode=0xc0", "0x001"],
  ["io-passthru NAMESPACE --opcode=0x90 --namespace-id=1", "0x001"],
  ["get-feature DEVICE -f 0xc0", "0x002"],
  ["id-ns DEVICE -n 2", "0x00b"],
  ["read NAMESPACE -s 65536 -c 0 -z 4096 -d /tmp/back", "0x080"],
  ["get-log DEVICE -i 0x0d -l 64", "0x109"],
  ["set-feature DEVICE -f 6 -v 1 --save", "0x10d"],
];
const COMPLAINT = /warn|invalid|fail|unknown|not supported|error:/i;

const missing = await vmSkipReason({ guestPrograms: ["nvme"] });
if (missing !== null) skip(missing);

let node: PandoNode;
let vm: Vm;

test.before(async () => {
  [node, vm] = await timed("daemon serves, VM is up", () =>
    Promise.all([
      startNode({ poolSize: "1GiB", advertise: hostAddress }),
      bootVm({ name: "nvme-cli", cpus: 2 }),
    ]),
  );
  await node.pando("volume", "create", "disk", "--size", "256MiB");
  await node.pando("host", "allow", "disk", guestHost.hostNqn);
});

test.after(async () => {
  await vm?.close();
  await node?.remove();
});

test("nvme-cli has no complaint", async () => {
  const target = targetOf(await node.showVolume("disk"));
  assert.ok((await discover(vm, target)).includes(target.nqn));
  const namespace = await connect(vm, target);
  const device = namespace.replace(/n\d+$/, "");
  const lines = COMMANDS.map((command) =>
    command.replace("DEVICE", device).replace("NAMESPACE", namespace),
  );
  const script = lines
    .map((line) => `echo "== ${line}"; nvme ${line} 2>&1 >/tmp/out; echo "status $?"`)
    .join("\n");
  const said = await timed(`${lines.length} commands`, () => vm.must(`${script}\ntrue`));
  const parts = said.split("== ").slice(1);
  assert.is(parts.length, lines.length);
  const complaints = parts.filter((part) => !/status 0\n$/.test(part) || COMPLAINT.test(part));
  assert.equal(complaints, []);

  // What is written is what is compared.
  await vm.must(`dd if=/dev/urandom of=/tmp/data bs=4096 count=2 status=none
    nvme write ${namespace} -s 64 -c 1 -z 8192 -d /tmp/data >&2
    nvme read ${namespace} -s 64 -c 1 -z 8192 -d /tmp/back >&2
    cmp /tmp/data /tmp/back
    nvme compare ${namespace} -s 64 -c 1 -z 8192 -d /tmp/data >&2`);
  const refusals = REFUSED.map(([command]) => {
    const line = command.replace("DEVICE", device).replace("NAMESPACE", namespace);
    return `nvme ${line} 2>&1 | tr '\\n' ' '; echo`;
  });
  const told = (await vm.must(refusals.join("\n"))).trim().split("\n");
  for (const [index, [command, status]] of REFUSED.entries()) {
    const codes = [...(told[index] ?? "").matchAll(/\(\s*(?:0x)?([0-9a-f]+)\s*\)/gi)];
    const found = codes.map((match) => Number.parseInt(match[1] as string, 16) & 0x7ff);
    assert.ok(found.includes(Number(status)), `${command}: ${told[index]}`);
  }
  const differs = await vm.run(`nvme compare ${namespace} -s 66 -c 1 -z 8192 -d /tmp/data 2>&1`);
  assert.match(differs.stdout, /Compare Failure|COMPARE_FAILED/i);

  const complaint = await vm.must("dmesg | grep -iE 'nvme.*(fail|error|invalid|warn)' || true");
  assert.is(complaint, "");
});

test("a host hears of a new size at once", async () => {
  const { nqn } = await node.showVolume("disk");
  const size = async () =>
    (
      await vm.must(`for n in /sys/class/nvme-subsystem/*; do
      [ "$(cat $n/subsysnqn)" = "${nqn}" ] && cat $n/nvme*n*/size; done`)
    ).trim();
  assert.is(await size(), String((256 * 2 ** 20) / 512));
  await node.pando("volume", "resize", "disk", "--size", "512MiB");
  for (let attempt = 0; (await size()) !== String((512 * 2 ** 20) / 512); attempt++) {
    assert.ok(attempt < 50, "the host has seen the new size");
    await sleep(100);
  }
});

test("who is connected, and a host that is put out stays out", async () => {
  const target = targetOf(await node.showVolume("disk"));
  const [connection] = (await node.pando("host", "list", "disk")) as Record<string, unknown>[];
  assert.is(connection?.hostNqn, guestHost.hostNqn);
  assert.is(connection?.ioQueues, 2);

  await timed("host disconnect", () => node.pando("host", "disconnect", "disk", guestHost.hostNqn));
  for (let attempt = 0; (await connectionState(vm, target)) !== "live"; attempt++) {
    assert.ok(attempt < 100, "a host that is on the list comes back");
    await sleep(200);
  }
  await timed("host deny", () => node.pando("host", "deny", "disk", guestHost.hostNqn));
  assert.equal(await node.pando("host", "list", "disk"), []);
  await sleep(2500);
  // Linux 6.12 gives up when it is told that a retry is of no use.
  const state = await connectionState(vm, target).catch(() => "gone");
  assert.ok(["connecting", "gone", ""].includes(state), state);
  assert.equal(await node.pando("host", "list", "disk"), []);
  if (state === "connecting") await disconnect(vm, target);
});

test.run();
