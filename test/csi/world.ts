// Where the CSI driver is tested for real: a daemon on this machine, the driver in a VM, as
// controller and node plugin in one, with the kernel's own initiator. They speak mutual TLS.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { makeAuthority } from "../support/certificates.js";
import { freePort, temporaryFolder } from "../support/pando.js";
import { guestHost } from "../system/guest-nvme.js";
import { type PandoNode, startNode } from "../system/pando-node.js";
import { timed } from "../system/timed.js";
import { repositoryRoot } from "../system/vm/host.js";
import { vmSkipReason } from "../system/vm/prerequisites.js";
import { bootVm, hostAddress, type Vm } from "../system/vm/vm.js";

export interface CsiWorld {
  node: PandoNode;
  vm: Vm;
  /** In the guest: its path, as $SHARE is the share's. */
  configName: string;
  /** Another compute node, with the driver's configuration for it. */
  addNode(name: string, hostNqn: string): Promise<Vm>;
  close(): Promise<void>;
}

/** In the guest. */
const SCENARIOS = {
  input: "/run/scenarios",
  answers: "/run/scenario-answers",
  log: "/run/scenarios.log",
};
const SCENARIO_SECONDS = 280;

export const GUEST_PROGRAMS = ["mkfs.ext4", "e2fsck", "resize2fs", "mkfs.xfs", "mkfs.btrfs"];

export function csiSkipReason(more: string[] = []): Promise<string | null> {
  return vmSkipReason({ guestPrograms: ["openssl", ...GUEST_PROGRAMS, ...more] });
}

export async function startCsiWorld(name: string, settings: object = {}): Promise<CsiWorld> {
  const folder = temporaryFolder();
  const authority = makeAuthority(folder.path, "pando");
  const daemon = authority.issue("storage-node");
  const controller = authority.issue("controller");
  const port = await freePort();
  const daemonFlags = [
    ...["--api", `127.0.0.1:${port}`, "--api-certificate", daemon.certificate],
    ...["--api-key", daemon.key, "--api-authority", daemon.authority],
  ];
  const poolSize = "16GiB";
  const node = await timed("daemon serves", () =>
    startNode({ poolSize, sparse: true, advertise: hostAddress, daemonFlags }),
  );
  // A daemon that is left behind would keep this process from ending.
  const vm = await timed("VM is up", () =>
    bootVm({ name }).catch(async (error: unknown) => {
      await node.remove();
      throw error;
    }),
  );
  const configName = "csi.json";
  const config = {
    mode: "all",
    endpoint: "unix:///run/csi/csi.sock",
    storageNodes: [{ name: "host", address: `${hostAddress}:${port}` }],
    tls: controller,
    hostNqn: guestHost.hostNqn,
    ...settings,
  };
  const configure = (one: Vm, more: object) =>
    writeFile(join(one.shareDir, configName), JSON.stringify({ ...config, ...more }));
  await configure(vm, {});
  const vms = [vm];
  return {
    node,
    vm,
    configName,
    async addNode(nodeName, hostNqn) {
      const added = await timed("another VM is up", () => bootVm({ name: nodeName }));
      vms.push(added);
      await configure(added, { hostNqn });
      return added;
    },
    async close() {
      for (const one of vms) await one.close();
      await node.remove();
      folder.remove();
    },
  };
}

/** Runs a compiled program of ours in the guest. */
export function guestProgram(path: string): string {
  return `node ${join(repositoryRoot, "dist", path)}`;
}

/** Guests that have the program of scenarios, which waits for the next one. */
const players = new WeakSet<Vm>();

/** Plays a scenario of guest-scenario.ts on a compute node. */
export async function playScenario(
  { configName }: CsiWorld,
  vm: Vm,
  { scenario, before = "true" }: { scenario: string; before?: string },
): Promise<void> {
  const { input, answers, log } = SCENARIOS;
  if (!players.has(vm)) {
    players.add(vm);
    const program = guestProgram("test/csi/guest-scenario.js");
    const options = `$SHARE/${configName} ${answers} <>${input} >>${log} 2>&1`;
    await vm.must(`mkfifo ${input} ${answers}; setsid ${program} ${options} &`);
  }
  const { status, stdout } = await timed(scenario, () =>
    vm.run(
      `${before}
      echo "${scenario}" >${input}
      status=$(timeout ${SCENARIO_SECONDS} cat ${answers})
      cat ${log}; : >${log}
      exit \${status:-1}`,
      { timeoutMs: (SCENARIO_SECONDS + 20) * 1000 },
    ),
  );
  console.log(stdout.trim());
  if (status !== 0) throw new Error(`scenario ${scenario} failed`);
}
