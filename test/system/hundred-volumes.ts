// One host connects to a hundred volumes at once, through our initiator. Each device is its
// volume's, found by UUID, after the connections have come and after all of them have come back
// from kills, at which each had a write that was never answered, and which lose nothing; a host
// that sends nothing for longer than its keep-alive time loses its connections, and gets them
// again.
//
// An emulated guest needs minutes for so many connections, so this is run by hand, and few programs
// are started in there: the shell itself writes and reads UUIDs, one fio has a thread per device.
//
//   npm run hundred-volumes [-- VOLUMES [KILLS]]
import { readFile, writeFile } from "node:fs/promises";
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
const PIECE_BYTES = 64 * 1024;
/** Of each device, at a kill: so many writes, this long apart, and then as many reads. */
const PIECES = 24;
const PAUSE_MS = 1000;
/** Three times the initiator's keep-alive time. */
const SILENT_MS = 15_000;
const PATIENCE_MS = 600_000;
const patient = { timeoutMs: PATIENCE_MS };

const missing = await vmSkipReason({ guestPrograms: ["nvme", "fio", "awk"] });
if (missing !== null) skip(missing);

let node: PandoNode;
let vm: Vm;
let client: PandoClient;

/** Without the hidden ones, which are their paths. */
const EACH_DEVICE = `for each in /sys/block/nvme*n*; do
  case \${each##*/} in nvme*c*) continue ;; esac
  read -r uuid <$each/uuid
  device=/dev/\${each##*/}`;

test.before(async () => {
  node = await startNode({ poolSize: "4GiB", advertise: hostAddress, sparse: true });
  client = new PandoClient(node.socket);
  for (let number = 1; number <= VOLUMES; number++) {
    await client.createVolume(`v${number}`, SIZE_BYTES);
    await client.allowHost(`v${number}`, guestHost.hostNqn);
  }
  vm = await timed("boot", () => bootVm({ name: "hundred-volumes", cpus: 2 }));
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
  await allLive();
});

test.after(async () => {
  client?.close();
  await vm?.close();
  await node?.remove();
});

test("each volume has its device", async () => {
  const volumes: string[] = [];
  for (let number = 1; number <= VOLUMES; number++) {
    volumes.push((await client.getVolume(`v${number}`)).uuid);
  }
  const devices = await readUuids();
  assert.equal([...devices.values()].sort(), volumes.sort());
  await timed("each is written with its UUID", () =>
    vm.must(`${EACH_DEVICE}\n echo $uuid >$device || exit 1\n done`, patient),
  );
  await readBack();
});

for (let kill = 1; kill <= KILLS; kill++) {
  test(`all come back from kill ${kill} under I/O, each as what it was`, async () => {
    const before = await readUuids();
    const idle = await readCounts();
    const outcome = timed("fio writes, and verifies each device", () => write(before, kill));
    // An error of fio's ends the test at once.
    const reaches = (what: string, look: () => Promise<string | null>) =>
      Promise.race([timed(what, () => until(look)), outcome.then(() => assert.unreachable(what))]);
    outcome.catch(() => undefined);
    await reaches("each device is written", async () => {
      const now = await readCounts();
      const rest = [...before.keys()].filter((device) => done(now, device) <= done(idle, device));
      return rest.length === 0 ? null : `${rest.length} are not`;
    });

    // Each has one write at a time: it was never answered if it is the same after a while.
    node.freezeDaemon();
    let frozen = new Map<string, Counts>();
    await reaches("each has a write that waits", async () => {
      const earlier = frozen;
      frozen = await readCounts();
      const waits = (device: string) =>
        frozen.get(device)?.inFlight === 1 && done(frozen, device) === done(earlier, device);
      const rest = [...before.keys()].filter((device) => !waits(device));
      return rest.length === 0 ? null : `${rest.length} have not`;
    });
    await node.killDaemon();
    const answered = [...before.keys()].map((device) => done(frozen, device) - done(idle, device));
    const range = `${Math.min(...answered)} to ${Math.max(...answered)}`;
    console.log(`killed after ${range} of ${PIECES} writes; on each device one more waited`);
    assert.ok(Math.max(...answered) < PIECES, "it was killed under I/O");

    await node.startDaemon();
    await timed("all are live again", allLive);
    await outcome;
    assert.equal(await readUuids(), before);
    await readBack();
  });
}

test("a host that falls silent is let go, and comes back", async () => {
  vm.pause();
  await sleep(SILENT_MS);
  const sessions: unknown[] = [];
  for (let number = 1; number <= VOLUMES; number++) {
    sessions.push(...(await client.getVolume(`v${number}`)).sessions);
  }
  vm.resume();
  assert.equal(sessions, [], "its connections have timed out");
  // It notices by and by.
  await sleep(1000);
  await timed("all are live again", allLive);
  await readBack();
  assert.equal((await node.stopAndCheck()).problems, []);
});

test.run();

interface Counts {
  writes: number;
  inFlight: number;
}

async function readUuids(): Promise<Map<string, string>> {
  const text = await vm.must(`${EACH_DEVICE}\n echo $device $uuid\n done`, patient);
  return new Map(lines(text).map((line) => line.split(" ", 2) as [string, string]));
}

/** Every device holds its volume's UUID, which was written to it. */
async function readBack(): Promise<void> {
  // The last one that closes a device takes what the guest has in memory of it.
  await timed("each holds its UUID", () =>
    vm.must(
      `${EACH_DEVICE}
        read -r found <$device
        [ "$uuid" = "$found" ] || { echo "$device is $uuid and holds $found" >&2; exit 1; }
      done`,
      patient,
    ),
  );
}

async function readCounts(): Promise<Map<string, Counts>> {
  const text = await vm.must(
    `awk '{ split(FILENAME, part, "/"); print "/dev/" part[4], $5, $9 }' /sys/block/nvme*n*/stat`,
    patient,
  );
  const counts = lines(text).map((line) => {
    const [device = "", writes, inFlight] = line.split(" ");
    return [device, { writes: Number(writes), inFlight: Number(inFlight) }] as const;
  });
  return new Map(counts);
}

/** Writes that the device has completed; NaN, which equals nothing, if that is not known. */
function done(counts: Map<string, Counts>, device: string): number {
  return counts.get(device)?.writes ?? Number.NaN;
}

/** Each device gets what no other one has and it had not before, and is compared with that. */
async function write(devices: Map<string, string>, kill: number): Promise<void> {
  const jobs = [...devices].map(
    ([device, uuid]) => `[${uuid}]\nfilename=${device}\nverify_pattern="${uuid} kill ${kill}, "\n`,
  );
  const common = `[global]
    rw=write
    ioengine=psync
    direct=1
    bs=${PIECE_BYTES}
    offset=${PIECE_BYTES}
    size=${PIECES * PIECE_BYTES}
    thinktime=${PAUSE_MS * 1000}
    verify=pattern
    verify_fatal=1
    thread=1
    disk_util=0`;
  const folder = vm.shareDir;
  await writeFile(join(folder, "fio.job"), `${common.replace(/^ +/gm, "")}\n${jobs.join("")}`);
  await vm.must(
    'fio "$SHARE/fio.job" --eta=never --output-format=json --output="$SHARE/fio.json"',
    {
      timeoutMs: 2 * PATIENCE_MS,
    },
  );
  const text = await readFile(join(folder, "fio.json"), "utf8");
  const report = JSON.parse(text.slice(text.indexOf("{"))) as {
    jobs: { error: number; write: { io_bytes: number }; read: { io_bytes: number } }[];
  };
  const bytes = PIECES * PIECE_BYTES;
  const whole = report.jobs.filter(
    ({ error, write, read }) => error === 0 && write.io_bytes === bytes && read.io_bytes === bytes,
  );
  assert.is(whole.length, VOLUMES, "all of each was written, and verified");
}

function allLive(): Promise<void> {
  return until(async () => {
    const states = lines(await vm.must("cat /sys/class/nvme/nvme*/state", patient));
    const live = states.filter((state) => state === "live").length;
    return live === VOLUMES ? null : `${live} of ${VOLUMES} are live`;
  });
}

/** Until `look` finds nothing that is missing; at the end of patience that is said. */
async function until(look: () => Promise<string | null>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  for (let missing = await look(); missing !== null; missing = await look()) {
    if (performance.now() > deadline) throw new Error(`in ${PATIENCE_MS} ms: ${missing}`);
    await sleep(500);
  }
}

function lines(text: string): string[] {
  return text.trim().split("\n");
}
