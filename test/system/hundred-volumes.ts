// One host connects to a hundred volumes at once, through our initiator. Each device is its
// volume's, found by UUID, after the connections have come and after all of them have come back
// from kills under I/O, which lose nothing; a host that sends nothing for longer than its
// keep-alive time loses its connections, and gets them again.
//
// An emulated guest needs minutes for so many connections, so this is run by hand:
//
//   npm run hundred-volumes [-- VOLUMES [KILLS]]
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { PandoClient } from "../../engine/serve/client.js";
import { skip } from "../support/skip.js";
import { guestHost, type Target } from "./guest-nvme.js";
import { type PandoNode, startNode } from "./pando-node.js";
import { timed } from "./timed.js";
import { repositoryRoot } from "./vm/host.js";
import { vmSkipReason } from "./vm/prerequisites.js";
import { bootVm, hostAddress, type Vm } from "./vm/vm.js";

const test = suite("a hundred volumes");
const [VOLUMES = 100, KILLS = 2] = process.argv.slice(2).map(Number);
const SIZE_BYTES = 16 * 2 ** 20;
const PIECE_KIB = 64;
const PIECES = 48;
/** Three times the initiator's keep-alive time. */
const SILENT_MS = 15_000;
const patient = { timeoutMs: 900_000 };

const missing = await vmSkipReason({ guestPrograms: ["nvme", "dd"] });
if (missing !== null) skip(missing);

let node: PandoNode;
let vm: Vm;
let client: PandoClient;

const HELPERS = `
  devices() {  # without the hidden ones, which are their paths
    for each in /sys/block/nvme*n*; do
      case \${each##*/} in nvme*c*) ;; *) [ -e $each/uuid ] && echo \${each##*/} ;; esac
    done
  }
  live() { cat /sys/class/nvme/nvme*/state 2>/dev/null | grep -cx live; }
  written_kib() {
    for each in $(devices); do cat /sys/block/$each/stat; done |
      awk '{ sum += $7 / 2 } END { print sum + 0 }'
  }
  all_live() {
    for attempt in $(seq 3000); do [ "$(live)" = ${VOLUMES} ] && return; sleep 0.2; done
    echo "$(live) are live" >&2
    return 1
  }`;

test.before(async () => {
  node = await startNode({ poolSize: "4GiB", advertise: hostAddress, sparse: true });
  client = new PandoClient(node.socket);
  for (let number = 1; number <= VOLUMES; number++) {
    await client.createVolume(`v${number}`, SIZE_BYTES);
    await client.allowHost(`v${number}`, guestHost.hostNqn);
  }
  vm = await timed("boot", () => bootVm({ name: "hundred-volumes" }));
  const [at] = (await node.showVolume("v1")).addresses;
  assert.ok(at);
  const targets: Target[] = [];
  for (let number = 1; number <= VOLUMES; number++) {
    const { nqn } = await client.getVolume(`v${number}`);
    targets.push({ nqn, traddr: at.traddr, trsvcid: String(at.trsvcid) });
  }
  await writeFile(join(vm.shareDir, "targets.json"), JSON.stringify(targets));
  const program = join(repositoryRoot, "dist/test/system/guest-connections.js");
  const said = await timed(`${VOLUMES} connections, asked for together`, () =>
    vm.must(`modprobe nvme-tcp && node ${program} $SHARE/targets.json`, patient),
  );
  console.log(said.trim());
  await vm.must(`${HELPERS}\nall_live`, patient);
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
      done
      head -c ${(PIECES + VOLUMES) * PIECE_KIB * 1024} /dev/urandom >/run/random`,
      patient,
    ),
  );
  await readBack();
});

for (let kill = 1; kill <= KILLS; kill++) {
  test(`all come back from kill ${kill} under I/O, each as what it was`, async () => {
    const before = await uuids();
    // Each device gets a part of its own of what is random, another one after each kill.
    await vm.must(
      `${HELPERS}
      rm -f /run/dd-* /run/enough
      number=0
      for device in $(devices); do
        part=$(((number + ${kill}) % ${VOLUMES})); number=$((number + 1))
        echo $part >/run/part-$device
        (until [ -e /run/enough ]; do
           dd if=/run/random of=/dev/$device bs=${PIECE_KIB}k count=${PIECES} skip=$part seek=1 \\
             oflag=direct status=none || { echo failed >/run/dd-$device; exit; }
         done; echo written >/run/dd-$device) </dev/null >/dev/null 2>&1 &
      done
      sleep 1`,
      patient,
    );
    const [earlier, now] = (
      await vm.must(`${HELPERS}\n written_kib; sleep 2; written_kib`, patient)
    ).split("\n");
    await node.killDaemon();
    // Each has a write that nobody answers.
    const writers = (await vm.must("sleep 2; pidof dd | wc -w", patient)).trim();
    const written = Number(now) - Number(earlier);
    console.log(`killed after ${written} KiB of the last seconds; ${writers} wait for a write`);
    assert.ok(written > 0, "it was killed under I/O");
    assert.is(Number(writers), VOLUMES);
    await node.startDaemon();
    await vm.must("touch /run/enough", patient);
    await timed("all are live again", () => vm.must(`${HELPERS}\nall_live`, patient));
    const ends = await timed("what was under way ends", () =>
      vm.must(
        `for attempt in $(seq 4000); do
          [ $(ls /run/dd-* 2>/dev/null | wc -l) = ${VOLUMES} ] && break
          sleep 0.2
        done
        cat /run/dd-* | sort | uniq -c`,
        patient,
      ),
    );
    assert.match(ends.trim(), new RegExp(`^${VOLUMES} written$`), "no write has failed");
    assert.equal(await uuids(), before);
    await readBack();
    await timed("each holds what was written to it", () =>
      vm.must(
        `${HELPERS}
        for device in $(devices); do
          dd if=/dev/$device bs=${PIECE_KIB}k count=${PIECES} skip=1 iflag=direct status=none |
            cmp -n ${PIECES * PIECE_KIB * 1024} \\
              -i 0:$(($(cat /run/part-$device) * ${PIECE_KIB * 1024})) - /run/random || exit 1
        done`,
        patient,
      ),
    );
  });
}

test("a host that falls silent is let go, and comes back", async () => {
  vm.pause();
  await sleep(SILENT_MS);
  const { sessions } = await client.getVolume("v1");
  vm.resume();
  assert.equal(sessions, [], "its connections have timed out");
  await timed("all are live again", () => vm.must(`${HELPERS}\nsleep 1; all_live`, patient));
  await readBack();
  assert.equal((await node.stopAndCheck()).problems, []);
});

test.run();
