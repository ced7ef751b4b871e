// The VM itself: what the system tests take for granted of it.
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { skip } from "../support/skip.js";
import { timed } from "./timed.js";
import { vmSkipReason } from "./vm/prerequisites.js";
import { bootVm, hostAddress, type Vm } from "./vm/vm.js";

const missing = await vmSkipReason();
if (missing !== null) skip(missing);

let vm: Vm;

test.before(async () => {
  vm = await timed("boot", () => bootVm({ name: "vm" }));
});

test.after(async () => {
  await vm?.close();
});

test("a script's status and both streams come back", async () => {
  const result = await vm.run("echo out; echo err >&2; exit 7");
  assert.equal([result.status, result.stdout, result.stderr], [7, "out\n", "err\n"]);
  assert.is((await vm.run("kill -9 $$")).status, 137);
  assert.is((await vm.must("uname -r")).slice(0, 5), "6.12.");
  const error = await vm.must("echo why >&2; false").catch((caught: Error) => caught);
  assert.match((error as Error).message, /status 1[\s\S]*why/);
});

test("scripts run at the same time", async () => {
  const numbers = Array.from({ length: 8 }, (_, index) => index);
  const meet = (index: number) =>
    vm.run(`touch /run/meet-${index}
      while [ "$(ls /run/meet-* | wc -l)" -lt ${numbers.length} ]; do sleep 0.1; done
      exit ${index}`);
  const results = await Promise.all(numbers.map(meet));
  assert.equal(
    results.map(({ status }) => status),
    numbers,
  );
});

test("an empty script takes a fraction of a second", async () => {
  const times: number[] = [];
  for (let round = 0; round < 10; round++) times.push((await vm.run("true")).elapsedMs);
  times.sort((a, b) => a - b);
  console.log(`round trips: ${times.map((ms) => ms.toFixed(0)).join(" ")} ms`);
  assert.ok((times[0] ?? Number.POSITIVE_INFINITY) < 500, "even on a busy machine");
});

test("a script that takes too long is killed with all that it started", async () => {
  const error = await vm
    .run("echo begun; setsid sleep 1000 & sleep 1000", { timeoutMs: 1500 })
    .catch((caught: Error) => caught);
  assert.instance(error, Error);
  assert.match((error as Error).message, /not done in 1500 ms[\s\S]*begun/);
  assert.is((await vm.run("pgrep sleep")).status, 1, "no sleep is left");
});

test("output can be read while the script runs", async () => {
  const job = vm.start("echo first; read -r line </run/fifo-that-is-absent || sleep 1000");
  while ((await job.stdout()) !== "first\n") await new Promise(setImmediate);
  job.kill();
  assert.is((await job.done).status, 137);
});

test("the share is writable from both sides, the rest of the host from neither", async () => {
  await writeFile(join(vm.shareDir, "from-host"), "host");
  assert.is(await vm.must('cat "$SHARE/from-host"; printf guest >"$SHARE/from-guest"'), "host");
  assert.is(await readFile(join(vm.shareDir, "from-guest"), "utf8"), "guest");
  const path = "/etc/pando-vm-test";
  await vm.must(`echo x >${path} && cat ${path}`);
  assert.not.ok(existsSync(path), "what the guest writes stays in the guest");
});

test("the guest reaches the host's loopback, and has the drivers", async () => {
  const server = createServer((socket) => socket.end("hello"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  assert.is(await vm.must(`busybox nc ${hostAddress} ${port} </dev/null`), "hello");
  server.close();
  await vm.must("[ -c /dev/nvme-fabrics ]");
  await vm.must("modprobe -a nvmet-tcp ublk_drv brd");
  await vm.must("[ -d /sys/kernel/config/nvmet ] && [ -c /dev/ublk-control ] && [ -b /dev/ram0 ]");
});

test("the end of the guest fails what is under way, and says what its console says", async () => {
  const waiting = vm.run("sleep 1000").catch((caught: Error) => caught);
  vm.start("echo 'the last words' >/dev/console; echo o >/proc/sysrq-trigger");
  const error = (await waiting) as Error;
  assert.match(error.message, /the VM ended: [\s\S]*the last words/);
  const later = await vm.run("true").catch((caught: Error) => caught);
  assert.is(later, error);
});

test("by hand, from the command line", async () => {
  const cli = fileURLToPath(new URL("./vm/cli.js", import.meta.url));
  const run = (...args: string[]) =>
    promisify(execFile)(process.execPath, [cli, ...args]).then(
      ({ stdout }) => ({ code: 0, stdout, stderr: "" }),
      (error: { code: number; stdout: string; stderr: string }) => error,
    );
  const used = await run("run", "--kernel", "6.12", "--", "echo it works; exit 3");
  assert.equal([used.code, used.stdout], [3, "it works\n"], used.stderr);
  const misused = await run("run", "--kernel", "5.4", "--", "true");
  assert.is(misused.code, 2);
  assert.match(misused.stderr, "error: no kernel 5.4\nusage: ");
});

test.run();
