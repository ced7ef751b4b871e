// Four ways to one block device of a host, in one guest: Pando's own target; Pando's volume as a
// block device behind the kernel's target; LVM's thin volume behind it, as LVM makes one; and a raw
// file behind it. Everything lies in the guest's memory, and each is reached over NVMe/TCP on
// loopback.

import { connect, guestHost, type Target } from "../../test/system/guest-nvme.js";
import { GuestPando, PATIENCE_MS } from "../../test/system/guest-pando.js";
import { startNode } from "../../test/system/pando-node.js";
import { bootVm, type Vm } from "../../test/system/vm/vm.js";
import { freePorts } from "./pando.js";

export const guestDevicePrograms = ["nvme", "fio", "dmsetup", "losetup"];

const MIB = 2 ** 20;
const ADDRESS = "127.0.0.1";
const PORTS = { own: 4420, nvmet: 4421, peers: 4422 };
/** LVM's default for pools of this size, in sectors. */
const THIN_CHUNK_SECTORS = 128;
const SECTOR_BYTES = 512;

export interface GuestDevice {
  /** Of tables. */
  name: string;
  device: string;
  /** Keeps what it has now; null where nothing can. */
  snapshot: ((name: string) => Promise<void>) | null;
}

export interface GuestDevices {
  vm: Vm;
  devices: GuestDevice[];
  close(): Promise<void>;
}

export interface GuestSizes {
  sizeBytes: number;
  /** Of each device, and what is written after it may be as much as the device has. */
  snapshots: number;
}

/** The raw file is the first of them. */
export async function startGuestDevices(sizes: GuestSizes): Promise<GuestDevices> {
  const { sizeBytes } = sizes;
  const { vm, pando } = await startGuest(sizes);
  try {
    const raw = await exportLoop(vm, "raw", sizeBytes);
    const thin = await exportThin(vm, sizes);
    const own = await pandoVolume(vm, pando, "own", sizeBytes);
    const shared = await pandoVolume(vm, pando, "shared", sizeBytes);
    return {
      vm,
      devices: [
        { name: "raw file, nvmet", device: raw, snapshot: null },
        { name: "LVM thin, nvmet", ...thin },
        { name: "pando", ...own },
        { name: "pando, ublk and nvmet", ...shared },
      ],
      async close() {
        pando.close();
        await vm.close();
      },
    };
  } catch (error) {
    pando.close();
    await vm.close();
    throw error;
  }
}

/** The pool is made outside, where programs start quickly. */
async function startGuest(sizes: GuestSizes): Promise<{ vm: Vm; pando: GuestPando }> {
  const [apiPort] = await freePorts();
  const filledMiB = Math.ceil(filledBytes(sizes) / MIB);
  const poolMiB = filledMiB * 2 + 128;
  const node = await startNode({ poolSize: `${poolMiB}MiB`, advertise: ADDRESS, sparse: true });
  try {
    await node.stopAndCheck();
    const guest = await bootVm({
      name: "bench-system",
      cpus: 2,
      memoryMiB: 2048 + filledMiB * 4,
      bootTimeoutMs: PATIENCE_MS,
      forwardPort: apiPort,
    });
    const patient = { timeoutMs: PATIENCE_MS };
    const vm: Vm = { ...guest, must: (script, options) => guest.must(script, options ?? patient) };
    const settings = {
      target: `${ADDRESS}:${PORTS.own}`,
      nvmet: `${ADDRESS}:${PORTS.nvmet}`,
    };
    const pando = new GuestPando({ vm, apiPort, pool: "/run/pool", settings });
    pando.prepare();
    await vm.must(
      `modprobe -a nvmet-tcp nvme-tcp ublk_drv loop dm-thin-pool
       mount -o remount,size=90% /run && cp -r --sparse=always ${node.pool} /run/pool`,
    );
    await pando.serve();
    return { vm, pando };
  } finally {
    await node.remove();
  }
}

async function pandoVolume(
  vm: Vm,
  pando: GuestPando,
  name: string,
  sizeBytes: number,
): Promise<Omit<GuestDevice, "name">> {
  const { client } = pando;
  const { nqn } = await client.createVolume(name, sizeBytes);
  await client.allowHost(name, guestHost.hostNqn);
  if (name === "shared") await client.shareVolume(name, "nvmet");
  const port = name === "shared" ? PORTS.nvmet : PORTS.own;
  return {
    device: await connect(vm, { nqn, traddr: ADDRESS, trsvcid: port }),
    snapshot: async (snapshot) => void (await client.createSnapshot(name, snapshot)),
  };
}

async function exportLoop(vm: Vm, name: string, sizeBytes: number): Promise<string> {
  const loop = await loopOf(vm, name, sizeBytes);
  return exportDevice(vm, name, loop);
}

async function exportThin(vm: Vm, sizes: GuestSizes): Promise<Omit<GuestDevice, "name">> {
  const meta = await loopOf(vm, "thin-meta", 16 * MIB);
  const data = await loopOf(vm, "thin-data", filledBytes(sizes));
  const sectors = sizes.sizeBytes / SECTOR_BYTES;
  const dataSectors = filledBytes(sizes) / SECTOR_BYTES;
  await vm.must(
    `set -e
     dmsetup create --noudevsync pool --table "0 ${dataSectors} thin-pool ${meta} ${data} ${THIN_CHUNK_SECTORS} 0"
     dmsetup mknodes
     dmsetup message pool 0 "create_thin 0"
     dmsetup create --noudevsync thin --table "0 ${sectors} thin /dev/mapper/pool 0"
     dmsetup mknodes`,
  );
  let snapshots = 0;
  return {
    device: await exportDevice(vm, "thin", "/dev/mapper/thin"),
    async snapshot() {
      snapshots += 1;
      await vm.must(
        `set -e
         dmsetup suspend --noudevsync thin
         dmsetup message pool 0 "create_snap ${snapshots} 0"
         dmsetup resume --noudevsync thin`,
      );
    },
  };
}

/** With room for what the snapshots keep. */
function filledBytes({ sizeBytes, snapshots }: GuestSizes): number {
  return sizeBytes * (2 + snapshots);
}

async function loopOf(vm: Vm, name: string, sizeBytes: number): Promise<string> {
  const loop = await vm.must(
    `truncate -s ${sizeBytes} /run/${name}.img && losetup --find --show --direct-io=on /run/${name}.img`,
  );
  return loop.trim();
}

/** By the kernel's target, and connected. */
async function exportDevice(vm: Vm, name: string, device: string): Promise<string> {
  const nqn = `nqn.2014-08.org.example:${name}`;
  await vm.must(
    `set -e
     cd /sys/kernel/config/nvmet
     mkdir subsystems/${nqn}
     echo 1 >subsystems/${nqn}/attr_allow_any_host
     mkdir subsystems/${nqn}/namespaces/1
     echo -n ${device} >subsystems/${nqn}/namespaces/1/device_path
     echo 1 >subsystems/${nqn}/namespaces/1/enable
     if [ ! -d ports/9 ]; then
       mkdir ports/9
       echo tcp >ports/9/addr_trtype
       echo ipv4 >ports/9/addr_adrfam
       echo ${ADDRESS} >ports/9/addr_traddr
       echo ${PORTS.peers} >ports/9/addr_trsvcid
     fi
     ln -s /sys/kernel/config/nvmet/subsystems/${nqn} ports/9/subsystems/${nqn}`,
  );
  const target: Target = { nqn, traddr: ADDRESS, trsvcid: PORTS.peers };
  return connect(vm, target);
}
