// The NVMe/TCP initiator of a guest, driven with nvme-cli and read from sysfs.
import type { Vm } from "./vm/vm.js";

export interface Target {
  nqn: string;
  traddr: string;
  trsvcid: string | number;
}

export interface HostIdentity {
  hostNqn: string;
  hostId: string;
}

/** An identity of the guest's own: the host's /etc/nvme is what the guest would use otherwise. */
export const guestHost: HostIdentity = {
  hostNqn: "nqn.2014-08.org.nvmexpress:uuid:6f1a5a0e-9c4e-4f5e-8b3a-1c2d3e4f5a6b",
  hostId: "6f1a5a0e-9c4e-4f5e-8b3a-1c2d3e4f5a6b",
};

/** Reconnects soon, and for longer than any restart takes. */
const CONNECT_OPTIONS =
  "--nr-io-queues=2 --keep-alive-tmo=5 --reconnect-delay=1 --ctrl-loss-tmo=300";

/** The subsystem NQNs of the discovery log. */
export async function discover(vm: Vm, target: Target, host = guestHost): Promise<string[]> {
  const log = await vm.must(`nvme discover ${addressOptions(target, host)}`);
  return [...log.matchAll(/^subnqn:\s+(\S+)/gm)].map((match) => match[1] as string);
}

/** Connects with two I/O queues, and `more` options, and returns the block device. */
export async function connect(
  vm: Vm,
  target: Target,
  host = guestHost,
  more = "",
): Promise<string> {
  const options = `${CONNECT_OPTIONS} ${more}`;
  await vm.must(`nvme connect ${addressOptions(target, host)} -n ${target.nqn} ${options} >&2`);
  // The kernel looks for namespaces after `nvme connect` has returned.
  const device = await vm.must(`${findDevice(target.nqn)}
    for attempt in $(seq 50); do
      device=$(find_device)
      if [ -b "$device" ] && [ "$(cat "/sys/block/\${device#/dev/}/size")" != 0 ]; then
        echo "$device"
        exit
      fi
      sleep 0.1
    done
    exit 1`);
  return device.trim();
}

export async function disconnect(vm: Vm, target: Target): Promise<void> {
  await vm.must(`nvme disconnect -n ${target.nqn}`);
}

/** The state of the connection as the kernel has it: live, connecting, resetting, … */
export async function connectionState(vm: Vm, target: Target): Promise<string> {
  const state = await vm.must(`${findSubsystem(target.nqn)}
    cat "$subsystem"/nvme*/state`);
  return state.trim();
}

/** Requests that the block layer has given to the device and that are not answered. */
export async function requestsInFlight(vm: Vm, device: string): Promise<number> {
  const counts = await vm.must(`cat /sys/block/${device.replace("/dev/", "")}/inflight`);
  return counts
    .trim()
    .split(/\s+/)
    .reduce((sum, count) => sum + Number(count), 0);
}

function addressOptions({ traddr, trsvcid }: Target, { hostNqn, hostId }: HostIdentity): string {
  return `-t tcp -a ${traddr} -s ${trsvcid} --hostnqn=${hostNqn} --hostid=${hostId}`;
}

function findSubsystem(nqn: string): string {
  return `subsystem=
    for candidate in /sys/class/nvme-subsystem/*; do
      [ "$(cat "$candidate/subsysnqn")" = "${nqn}" ] && subsystem=$candidate
    done`;
}

/** With native multipath the device is a child of the subsystem, without of the controller. */
function findDevice(nqn: string): string {
  return `find_device() {
      ${findSubsystem(nqn)}
      for node in "$subsystem"/nvme*n* "$subsystem"/nvme*/nvme*n*; do
        name=\${node##*/}
        [ -b "/dev/$name" ] && echo "/dev/$name" && return
      done
    }`;
}
