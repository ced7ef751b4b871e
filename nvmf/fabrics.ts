// The kernel's own interface for connecting: one line of options, written to /dev/nvme-fabrics.
//
// The write returns when the connection stands, and nothing can call it back: a target that takes
// the TCP connection and then says nothing holds a thread. So the address is tried first, which
// can be bounded, and few writes go on at a time.
import { open } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { PandoError } from "../engine/base/errors.js";
import type { Deadline } from "./bounded.js";
import type { KernelRoots } from "./nvme-sysfs.js";

export interface FabricsOptions {
  nqn: string;
  hostNqn: string;
  hostId: string;
  /** An IP address. */
  traddr: string;
  trsvcid: string;
  ioQueues: number;
  keepAliveSeconds: number;
  reconnectDelaySeconds: number;
  /** I/O that finds no connection fails after this. */
  fastIoFailSeconds: number;
  /** The device goes away after this. */
  ctrlLossSeconds: number;
  /** With the key that the kernel's keyring has for this host and subsystem. */
  tls: boolean;
}

/** A comma in a value would smuggle another option in. */
export function checkOptions(options: FabricsOptions): void {
  for (const [field, value] of Object.entries(options)) {
    if (/^[^\s,=]+$/.test(String(value))) continue;
    throw new PandoError("EINVAL", `${field} cannot be ${JSON.stringify(value)}`, { field });
  }
}

/** "exists": the kernel has this connection already, or is making it. */
export async function writeFabrics(
  roots: KernelRoots,
  options: FabricsOptions,
): Promise<"connected" | "exists"> {
  const line = formatOptions(options);
  const path = join(roots.dev, "nvme-fabrics");
  let device: Awaited<ReturnType<typeof open>>;
  try {
    device = await open(path, "r+");
  } catch (cause) {
    const hint = "modprobe nvme-tcp";
    throw new PandoError(
      "EIO",
      `this machine is no NVMe/TCP host: no ${path}`,
      { path, hint },
      {
        cause,
      },
    );
  }
  try {
    await device.write(line);
    return "connected";
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unknown";
    if (code === "EALREADY") return "exists";
    const place = `${options.traddr}:${options.trsvcid}`;
    throw new PandoError(
      "EIO",
      `the kernel could not connect to ${options.nqn} at ${place}: ${code}`,
      {
        hint: options.tls
          ? "is tlshd running, and is this host's key for the volume in the keyring .nvme?"
          : "the kernel's log says why; is this host on the volume's list?",
      },
      { cause },
    );
  } finally {
    await device.close();
  }
}

/** That somebody listens there. */
export async function tryAddress(
  address: { traddr: string; trsvcid: string },
  deadline: Deadline,
): Promise<void> {
  const place = `${address.traddr}:${address.trsvcid}`;
  const fail = (why: string, cause?: unknown) =>
    new PandoError(
      "ECLOSED",
      `no target answers at ${place}: ${why}`,
      { hint: "is the storage node up, and reachable from here?" },
      { cause },
    );
  const socket = connect({ host: address.traddr, port: Number(address.trsvcid) });
  try {
    const connected = new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", (error: NodeJS.ErrnoException) => {
        reject(fail(error.code ?? error.message, error));
      });
    });
    await deadline.bound(connected, () => fail("not in time"));
  } finally {
    socket.destroy();
  }
}

function formatOptions(options: FabricsOptions): string {
  const fields = {
    transport: "tcp",
    traddr: options.traddr,
    trsvcid: options.trsvcid,
    nqn: options.nqn,
    hostnqn: options.hostNqn,
    hostid: options.hostId,
    nr_io_queues: options.ioQueues,
    keep_alive_tmo: options.keepAliveSeconds,
    reconnect_delay: options.reconnectDelaySeconds,
    fast_io_fail_tmo: options.fastIoFailSeconds,
    ctrl_loss_tmo: options.ctrlLossSeconds,
  };
  const texts = Object.entries(fields).map(([key, value]) => `${key}=${value}`);
  return [...texts, ...(options.tls ? ["tls"] : [])].join(",");
}
