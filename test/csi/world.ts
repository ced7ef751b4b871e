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

/** Plays a scenario of guest-scenario.ts on a compute node. */
export async function playScenario(
  { configName }: CsiWorld,
  vm: Vm,
  { scenario, before = "" }: { scenario: string; before?: string },
): Promise<string> {
  const program = guestProgram("test/csi/guest-scenario.js");
  const command = `${before}${program} $SHARE/${configName} "${scenario}" 2>&1`;
  const said = await timed(scenario, () => vm.must(command, { timeoutMs: 300_000 }));
  console.log(said.trim());
  return said;
}
