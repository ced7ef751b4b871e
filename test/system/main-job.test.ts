// The main job on a daemon that runs natively, whose own target serves the volumes.
import { skip } from "../support/skip.js";
import { guestHost } from "./guest-nvme.js";
import { mainJobPrograms, runMainJob } from "./main-job.js";
import { type CheckReport, startNode } from "./pando-node.js";
import { vmSkipReason } from "./vm/prerequisites.js";
import { bootVm, hostAddress } from "./vm/vm.js";

const missing = await vmSkipReason({ guestPrograms: mainJobPrograms });
if (missing !== null) skip(missing);

runMainJob(async () => {
  const [node, vm] = await Promise.all([
    startNode({ poolSize: "3GiB", advertise: hostAddress }),
    bootVm({ name: "main-job", cpus: 2 }),
  ]);
  const { pando } = node;
  return {
    ...node,
    vm,
    stateWithoutDaemon: "connecting",
    fioMiB: 48,
    patienceMs: 120_000,
    createVolume: (name, bytes) => pando("volume", "create", name, "--size", String(bytes)),
    async serveVolume(name) {
      await pando("host", "allow", name, guestHost.hostNqn);
      return node.showVolume(name);
    },
    createSnapshot: (snapshot) => pando("snapshot", "create", snapshot),
    cloneVolume: (snapshot, name) => pando("volume", "clone", snapshot, name),
    check: async () => (await pando("pool", "check")) as CheckReport,
    freezeDaemon: async () => node.freezeDaemon(),
    async close() {
      await vm.close();
      await node.remove();
    },
  };
});
