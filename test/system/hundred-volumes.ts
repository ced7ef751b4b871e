// One host connects to a hundred volumes at once. Each device is its volume's, found by UUID, after
// the connections have come and after all of them have come back from a kill under I/O; a host that
// sends nothing for longer than its keep-alive time loses its connections, and gets them again.
//
// An emulated guest needs minutes for so many connections, so this is run by hand:
//
//   npm run hundred-volumes
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { PandoClient } from "../../engine/serve/client.js";
import { skip } from "../support/skip.js";
import { guestHost } from "./guest-nvme.js";
import { type PandoNode, startNode } from "./pando-node.js";
import { timed } from "./timed.js";
import { vmSkipReason } from "./vm/prerequisites.js";
import { bootVm, hostAddress, type Vm } from "./vm/vm.js";

const test = suite("a hundred volumes");
const VOLUMES = 100;
const SIZE_BYTES = 16 * 2 ** 20;
const KEEP_ALIVE_S = 5;
const patient = { timeoutMs: 600_000 };

const missing = await vmSkipReason({ guestPrograms: ["nvme", "dd"] });
if (missing !== null) skip(missing);

let node: PandoNode;
let vm: Vm;
let client: PandoClient;

/** Shell functions: `uuids` prints those of all connected devices, `each` runs on every device. */
const HELPERS = `
  devices() { for each in /sys/block/nvme*n*; do [ -e $each/uuid ] && echo \${each##*/}; done; }
  live() { cat /sys/class/nvme/nvme*/state 2>/dev/null | grep -cx live; }
  all_live() {
    for attempt in $(seq 1200); do [ "$(live)" = ${VOLUMES} ] && return; sleep 0.1; done
    echo "$(live) are live" >&2
    return 1
  }`;

test.before(async () => {
  node = await startNode({ poolSize: "2GiB", advertise: hostAddress, sparse: true });
  client = new PandoClient(node.socket);
  for (let number = 1; number <= VOLUMES; number++) {
    await client.createVolume(`v${number}`, SIZE_BYTES);
    await client.allowHost(`v${number}`, guestHost.hostNqn);
  }
  vm = await timed("boot", () => bootVm({ name: "hundred-volumes" }));
  const { addresses } = await node.showVolume("v1");
  const [at] = addresses;
  assert.ok(at);
  const { hostNqn, hostId } = guestHost;
  const host = `hostnqn=${hostNqn},hostid=${hostId}`;
  const times = `keep_alive_tmo=${KEEP_ALIVE_S},reconnect_delay=1,ctrl_loss_tmo=600`;
  const nqns: string[] = [];
  for (let number = 1; number <= VOLUMES; number++) {
    nqns.push((await client.getVolume(`v${number}`)).nqn);
  }
  await timed(`${VOLUMES} connections, begun together`, () =>
    vm.must(
      `modprobe nvme-tcp
      for nqn in ${nqns.join(" ")}; do
        echo "transport=tcp,traddr=${at.traddr},trsvcid=${at.trsvcid},nqn=$nqn,${host},nr_io_queues=1,${times}" \\
          >/dev/nvme-fabrics &
      done
      wait
      ${HELPERS}
      all_live
      for attempt in $(seq 600); do [ $(devices | wc -l) = ${VOLUMES} ] && exit; sleep 0.1; done
      exit 1`,
      patient,
    ),
  );
});

test.after(async () => {
  client?.close();
  await vm?.close();
  await node?.remove();
});

const uuids = async () => {
  const text = await vm.must(
    `${HELPERS}\n for device in $(devices); do cat /sys/block/$device/uuid; done`,
    patient,
  );
  return text.trim().split("\n").sort();
};

/** Every device holds its volume's UUID, which was written to it. */
async function readBack(): Promise<void> {
  await vm.must(
    `${HELPERS}
    for device in $(devices); do
      read -r uuid </sys/block/$device/uuid
      found=$(dd if=/dev/$device bs=4k count=1 iflag=direct status=none | head -c 36)
      [ "$uuid" = "$found" ] || { echo "$device is $uuid and holds $found" >&2; exit 1; }
    done`,
    patient,
  );
}

test("each volume has its device", async () => {
  const volumes: string[] = [];
  for (let number = 1; number <= VOLUMES; number++) {
    volumes.push((await client.getVolume(`v${number}`)).uuid);
  }
  assert.equal(await uuids(), volumes.sort());
  await timed("each is written with its UUID", () =>
    vm.must(
      `${HELPERS}
      for device in $(devices); do
        (cat /sys/block/$device/uuid; head -c 4096 /dev/zero) | head -c 4096 |
          dd of=/dev/$device bs=4k count=1 oflag=direct iflag=fullblock status=none || exit 1
      done`,
      patient,
    ),
  );
  await readBack();
});

test("all come back from a kill under I/O, each as what it was", async () => {
  const before = await uuids();
  await vm.must(
    `${HELPERS}
    for device in $(devices); do
      (dd if=/dev/zero of=/dev/$device bs=64k count=200 seek=1 oflag=direct status=none
       echo $? >/run/dd-$device) &
    done
    sleep 2`,
    patient,
  );
  await node.killDaemon();
  await node.startDaemon();
  await timed("all are live again", () => vm.must(`${HELPERS}\nall_live`, patient));
  const ends = await timed("what was under way ends", () =>
    vm.must(
      `for attempt in $(seq 6000); do
        [ $(ls /run/dd-* 2>/dev/null | wc -l) = ${VOLUMES} ] && break
        sleep 0.1
      done
      cat /run/dd-* | sort | uniq -c`,
      patient,
    ),
  );
  assert.match(ends.trim(), new RegExp(`^${VOLUMES} 0$`), "no write has failed");
  assert.equal(await uuids(), before);
  await readBack();
});

test("a host that falls silent is let go, and comes back", async () => {
  vm.pause();
  await sleep(KEEP_ALIVE_S * 3_000);
  const { sessions } = await client.getVolume("v1");
  vm.resume();
  assert.equal(sessions, [], "its connections have timed out");
  await timed("all are live again", () => vm.must(`${HELPERS}\nsleep 1; all_live`, patient));
  await readBack();
  assert.equal((await node.stopAndCheck()).problems, []);
});

test.run();
