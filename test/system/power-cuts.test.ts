// Real power cuts: a pool on a block device and its store on ext4, both on one device of the kernel
// that logs every write it completes (dm-log-writes, in the VM). The log is then replayed here, and
// the pool is looked at as it would be found after a cut at each flush and each mark: everything
// that was flushed by then is there, nothing else reads as it should not, and the check is clean.
//
//   node dist/test/system/power-cuts.test.js [STEPS [SEED [STATES]]]
import { spawnSync } from "node:child_process";
import {
  closeSync,
  cpSync,
  existsSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { compareCut } from "../support/cut-state.js";
import { type LogEntry, readLog } from "../support/log-writes.js";
import { temporaryFolder } from "../support/pando.js";
import type { CutStep } from "../support/power-cut-workload.js";
import { needsCommands, skip } from "../support/skip.js";
import { timed } from "./timed.js";
import { vmSkipReason } from "./vm/prerequisites.js";
import { bootVm } from "./vm/vm.js";

const test = suite("power cuts");
const [steps = 10, seed = 1, states = 30] = process.argv.slice(2).map(Number);
const META_BYTES = 64 * 1024 * 1024;
const DEVICE_BYTES = 160 * 1024 * 1024;
const LOG_KIB = 512 * 1024;
const STORE = "store";
/** As a shell says that it ended by SIGKILL. */
const KILLED = 128 + 9;
const GUEST_TIMEOUT_MS = 400_000;
/** The mark from which on there is a pool. */
const READY = "step-1";

const missing =
  needsCommands("dmsetup", "e2fsck", "debugfs") ??
  (await vmSkipReason({ guestPrograms: ["node", "dmsetup", "mkfs.ext4"] }));
if (missing !== null) skip(missing);

const workload = fileURLToPath(new URL("../support/power-cut-workload.js", import.meta.url));
const SECTOR = 512;
const GUEST = `set -e
  modprobe -a brd dm-log-writes || exit 9
  [ -b /dev/ram1 ] || exit 9
  dm() { dmsetup --noudevrules --noudevsync create "$1" >&2; }
  node() { echo /dev/dm-$(dmsetup info -c --noheadings -o minor "$1"); }
  sectors=${DEVICE_BYTES / SECTOR} meta=${META_BYTES / SECTOR}
  echo "0 $sectors log-writes /dev/ram0 /dev/ram1" | dm log
  logged=$(node log)
  echo "0 $meta linear $logged 0" | dm meta
  echo "0 $((sectors - meta)) linear $logged $meta" | dm data
  data=$(node data)
  grep -q 'write back' /sys/block/\${data#/dev/}/queue/write_cache
  mkfs.ext4 -q -E lazy_itable_init=0,nodiscard $(node meta)
  mkdir -p /mnt/meta && mount $(node meta) /mnt/meta
  ${process.execPath} ${workload} $data /mnt/meta/${STORE} log \\
    ${steps} ${seed} >$SHARE/steps || [ $? = ${KILLED} ]
  used=$(dmsetup status log | cut -d' ' -f5)
  dd if=/dev/ram1 of=$SHARE/log bs=1M count=$((used / 2048 + 1)) status=none`;

const folder = temporaryFolder();
const log = join(folder.path, "log");
let told: CutStep[] = [];

test.after(() => folder.remove());

test.before(async () => {
  const vm = await timed("boot", () => bootVm({ name: "power-cuts", memoryMiB: 3072 }));
  try {
    await vm.must(`rmmod brd 2>/dev/null; modprobe brd rd_nr=2 rd_size=${LOG_KIB}`);
    await timed("the workload", () => vm.must(GUEST, { timeoutMs: GUEST_TIMEOUT_MS }));
    cpSync(join(vm.shareDir, "log"), log);
    const lines = readFileSync(join(vm.shareDir, "steps"), "utf8").trim().split("\n");
    told = lines.map((line) => JSON.parse(line) as CutStep);
  } finally {
    await vm.close();
  }
  assert.is(told.length, steps);
});

/** The device, as two files: the log's writes go to the one that they belong to. */
class Device {
  readonly meta = join(folder.path, "meta.img");
  readonly data = join(folder.path, "data.img");
  readonly #meta = openSync(this.meta, "w");
  readonly #data = openSync(this.data, "w");

  constructor() {
    ftruncateSync(this.#meta, META_BYTES);
    ftruncateSync(this.#data, DEVICE_BYTES - META_BYTES);
  }

  /** No write goes over the border: the device was cut there. */
  apply(entry: LogEntry): void {
    if (entry.kind === "mark" || entry.lengthBytes === 0) return;
    const bytes = entry.kind === "write" ? entry.data() : Buffer.alloc(entry.lengthBytes);
    const isMeta = entry.offsetBytes < META_BYTES;
    const offset = isMeta ? entry.offsetBytes : entry.offsetBytes - META_BYTES;
    writeSync(isMeta ? this.#meta : this.#data, bytes, 0, bytes.length, offset);
  }

  close(): void {
    closeSync(this.#meta);
    closeSync(this.#data);
  }
}

test(`${steps} steps, seed ${seed}: the pool is whole at every flush`, async () => {
  const entries = [...readLog(log)];
  const ready = entries.findIndex(({ mark }) => mark === READY);
  assert.ok(ready > 0, "the pool was made");
  const cuts = entries.flatMap(({ flush, fua, kind }, at) =>
    at > ready && (flush || fua || kind === "mark") ? [at] : [],
  );
  const last = entries.findIndex(({ mark }) => mark === `step${steps - 1}`);
  assert.ok(last > ready && cuts.length > 2 * steps, `${cuts.length} flushes`);
  // The first ones, the last ones, and evenly between.
  const every = Math.max(1, Math.floor(cuts.length / states));
  const chosen = new Set(cuts.filter((_, at) => at % every === 0 || at === cuts.length - 1));

  const device = new Device();
  let flushed = 0;
  let compared = 0;
  for (const [at, entry] of entries.entries()) {
    device.apply(entry);
    const step = /^step(\d+)$/.exec(entry.mark)?.[1];
    if (step !== undefined) flushed = Number(step) + 1;
    if (!chosen.has(at)) continue;
    const meta = join(folder.path, "cut.img");
    const copied = spawnSync("cp", ["--sparse=always", device.meta, meta]);
    assert.is(copied.status, 0, String(copied.stderr));
    const work = join(folder.path, "work");
    try {
      await compareCut({ meta, store: STORE, data: device.data, work }, told, flushed);
    } catch (error) {
      throw new Error(`cut after entry ${at} of ${entries.length}`, { cause: error });
    }
    compared++;
  }
  device.close();
  assert.is(flushed, steps);
  assert.ok(existsSync(device.data) && compared >= Math.min(states, cuts.length));
  console.log(`${entries.length} entries, ${cuts.length} flushes and marks, ${compared} compared`);
});

test.run();
