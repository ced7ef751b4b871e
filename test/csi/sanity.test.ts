// csi-sanity, the conformance suite of Kubernetes' storage group, against the driver in a VM: once
// for file systems, once for raw block devices. Nothing may fail, and nothing may be skipped but
// what is named here.
//
// It is a Go program: without Go there is nothing to run.
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { skip } from "../support/skip.js";
import { timed } from "../system/timed.js";
import { findProgram, vmCacheDir } from "../system/vm/host.js";
import { type CsiWorld, csiSkipReason, guestProgram, startCsiWorld } from "./world.js";

/** Of a CSI newer than ours, it asks only for what a driver announces. */
const VERSION = "v5.6.0";
const GO_TIMEOUT_MS = 600_000;
const RUN_TIMEOUT_MS = 420_000;

/** What a driver of CSI 1.12 without these capabilities is not asked. */
const SKIPPED = new Set([
  "ControllerGetVolumeHealth not supported",
  "ControllerListVolumeHealth not supported",
  "NodeGetVolumeHealth not supported",
  "NodeGetStorageHealth not supported",
  "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported",
  "ControllerPublishVolume.readonly field not supported",
]);

const go = findProgram("go");
if (go === null) skip("needs go (csi-sanity is a Go program)");
const missing = await csiSkipReason();
if (missing !== null) skip(missing);
const sanity = await provideSanity(go);
if (sanity === null) skip(`needs csi-sanity ${VERSION}, which Go cannot fetch here`);

let world: CsiWorld;

test.before(async () => {
  world = await startCsiWorld("csi-sanity", { maxVolumesPerNode: "3" });
  writeFileSync(join(world.vm.shareDir, "mutable.yaml"), 'iops: "5000"\nbandwidth: 200MiB\n');
  const driver = `${guestProgram("csi/main.js")} --config $SHARE/${world.configName}`;
  await timed("the driver serves", () =>
    world.vm.must(
      `modprobe xfs; setsid ${driver} >$SHARE/driver.log 2>&1 &
      for attempt in $(seq 600); do
        [ -S /run/csi/csi.sock ] && exit
        sleep 0.1
      done
      cat $SHARE/driver.log
      exit 1`,
      { timeoutMs: 90_000 },
    ),
  );
});

test.after(() => world?.close());

for (const accessType of ["mount", "block"]) {
  test(`csi-sanity, ${accessType}`, async () => {
    const flags = [
      ...["--ginkgo.no-color", "--ginkgo.v", "--csi.endpoint=unix:///run/csi/csi.sock"],
      ...["--csi.mountdir=/tmp/sanity/mount", "--csi.stagingdir=/tmp/sanity/staging"],
      ...["--csi.testnodevolumeattachlimit", "--csi.testvolumesize=1073741824"],
      ...["--csi.testvolumeexpandsize=2147483648", `--csi.testvolumeaccesstype=${accessType}`],
      "--csi.testvolumemutableparameters=$SHARE/mutable.yaml",
    ];
    const { stdout } = await timed(`csi-sanity, ${accessType}`, () =>
      world.vm.run(`mkdir -p /tmp/sanity; ${sanity} ${flags.join(" ")}`, {
        timeoutMs: RUN_TIMEOUT_MS,
      }),
    );
    const total = / (\d+) Passed \| (\d+) Failed \| (\d+) Pending \| (\d+) Skipped/.exec(stdout);
    console.log(`csi-sanity ${VERSION}, ${accessType}: ${total?.[0].trim() ?? "no total"}`);
    const failed = [...stdout.matchAll(/^ +\[FAIL\] (.+)$/gm)].map(([, name]) => name);
    assert.equal(failed, []);
    assert.is(total?.[2], "0", stdout.slice(-2000));
    assert.ok(Number(total?.[1]) >= 93, `only ${total?.[1]} passed`);
    const skips = [...stdout.matchAll(/^ +\[SKIPPED\] (?!in \[)(.+)$/gm)].map(([, why]) => why);
    assert.equal(
      skips.filter((why) => !SKIPPED.has(why ?? "")),
      [],
    );
  });
}

test.run();

/** Static, since it runs in the guest; kept where the kernels are. Null if it cannot be had. */
async function provideSanity(goProgram: string): Promise<string | null> {
  const folder = join(vmCacheDir(), `csi-sanity-${VERSION}`);
  const path = join(folder, "csi-sanity");
  if (existsSync(path)) return path;
  mkdirSync(folder, { recursive: true });
  const env = { ...process.env, CGO_ENABLED: "0", GOBIN: folder };
  const module = `github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@${VERSION}`;
  try {
    await promisify(execFile)(goProgram, ["install", module], { env, timeout: GO_TIMEOUT_MS });
    return path;
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    console.log(error instanceof Error ? error.message : String(error));
    return null;
  }
}
