// The main job on a daemon in the same guest, whose volumes the kernel's target serves: through
// ublk, or on a kernel without it through NBD. Too slow for every day, since all of it is emulated:
//
//     npm run main-job-nvmet [-- 6.1]
import { join } from "node:path";
import { freePort, pandoCommand, runPando } from "../support/pando.js";
import { skip } from "../support/skip.js";
import { guestHost } from "./guest-nvme.js";
import { GuestPando, PATIENCE_MS } from "./guest-pando.js";
import { mainJobPrograms, runMainJob } from "./main-job.js";
import { type CheckReport, startNode, type Volume } from "./pando-node.js";
import { vmSkipReason } from "./vm/prerequisites.js";
import { bootVm, type Vm } from "./vm/vm.js";

const kernel = process.argv[2] === "6.1" ? "6.1" : "6.12";
const missing = await vmSkipReason({ kernel, guestPrograms: mainJobPrograms });
if (missing !== null) skip(missing);

runMainJob(async () => {
  const apiPort = await freePort();
  const outside = await startNode({ poolSize: "1GiB", advertise: "127.0.0.1", sparse: true });
  await outside.stopAndCheck();
  const guest = await bootVm({
    name: `main-job-nvmet-${kernel}`,
    kernel,
    cpus: 2,
    memoryMiB: 4096,
    bootTimeoutMs: PATIENCE_MS,
    forwardPort: apiPort,
  });
  const patient = { timeoutMs: PATIENCE_MS };
  const vm: Vm = { ...guest, must: (script, options) => guest.must(script, options ?? patient) };
  const daemons = new GuestPando({
    vm,
    apiPort,
    pool: "/run/pool",
    settings: { target: "127.0.0.1:4420", nvmet: "127.0.0.1:4421" },
  });
  daemons.prepare();
  // What the old kernel's multipath devices have completed, they do not count.
  const modules =
    kernel === "6.1"
      ? "modprobe -r nvme-tcp nvme-fabrics nvme-core && modprobe nvme-core multipath=0 && modprobe -a nvme-tcp nvmet-tcp nbd"
      : "modprobe -a nvmet-tcp ublk_drv";
  await vm.must(`${modules} && cp -r --sparse=always ${outside.pool} /run/pool`);
  await outside.remove();
  await daemons.serve();
  daemons.prepare();
  return {
    vm,
    stateWithoutDaemon: "live",
    fioMiB: 96,
    patienceMs: 2 * PATIENCE_MS,
    createVolume: (name, bytes) => daemons.client.createVolume(name, bytes),
    async serveVolume(name) {
      await daemons.client.allowHost(name, guestHost.hostNqn);
      await daemons.client.shareVolume(name, "nvmet");
      return showVolume(name);
    },
    showVolume,
    createSnapshot: (snapshot) => daemons.client.createSnapshot(...split(snapshot)),
    cloneVolume(from, name) {
      const [volume, snapshot] = split(from);
      return daemons.client.cloneVolume({ volume, snapshot }, name);
    },
    check: () => daemons.client.check(),
    freezeDaemon: async () => void (await vm.must(`kill -STOP $(cat ${daemons.pidFile})`)),
    killDaemon: async () => void (await daemons.kill()),
    async startDaemon() {
      const startedAt = performance.now();
      await daemons.serve();
      daemons.prepare();
      return performance.now() - startedAt;
    },
    async stopAndCheck() {
      await daemons.kill("TERM");
      await vm.must('cp -r --sparse=always /run/pool "$SHARE/pool"');
      const pool = join(vm.shareDir, "pool");
      const { stdout } = await runPando(pandoCommand("real"), ["pool", "check", pool, "--json"]);
      return JSON.parse(stdout) as CheckReport;
    },
    async close() {
      daemons.close();
      await vm.close();
    },
  };

  async function showVolume(name: string): Promise<Volume> {
    const volume = await daemons.client.getVolume(name);
    const { origin } = volume;
    return { ...volume, parent: origin && `${origin.volume}@${origin.snapshot}` };
  }
});

function split(snapshot: string): [string, string] {
  const [volume = "", name = ""] = snapshot.split("@");
  return [volume, name];
}
