// SPDK's NVMe/TCP target as a subject: a thin logical volume, in memory or on a file, behind the
// same host as ours. It is in no registry, so whoever has built one says where it is. Its reactor
// spins on a core of its own for as long as it runs, which takes that core from everybody else:
// it is stopped while others are measured.
import { spawnSync } from "node:child_process";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { NvmeTarget } from "../workload.js";
import { freePorts } from "./pando.js";
import { makeRaw } from "./qemu.js";
import { ServerProcess } from "./server-process.js";

const CALL_TIMEOUT_MS = 60_000;
const MIB = 1024 * 1024;
const BLOCK_BYTES = 4096;
/** What the store of logical volumes keeps for itself, with room to spare. */
const STORE_BYTES = 64 * MIB;
/** Buffers and queues of the target itself, without huge pages. */
const OWN_MEMORY_MIB = 1024;
const SUBSYSTEM = "nqn.2016-06.io.spdk:bench";

let servers = 0;

export interface SpdkServer {
  process: ServerProcess;
  target: NvmeTarget;
  stop(): Promise<void>;
}

/** As the program says it itself; throws when it is no target of SPDK. */
export function spdkVersion(program: string): string {
  const { status, stdout, error } = spawnSync(program, ["--version"], { encoding: "utf8" });
  const version = /^SPDK v[^\s]+/.exec(stdout ?? "")?.[0];
  if (status === 0 && version !== undefined) return version;
  throw new Error(`--spdk ${program}: no nvmf_tgt of SPDK${error ? `: ${error.message}` : ""}`);
}

/** A thin volume of that size on a new file at `path`, or in memory, for one host. */
export async function serveSpdk(
  program: string,
  options: { path: string | null; sizeBytes: number; hostNqn: string },
): Promise<SpdkServer> {
  const { path, sizeBytes, hostNqn } = options;
  servers += 1;
  const socket = join(tmpdir(), `pando-bench-${process.pid}-spdk-${servers}.sock`);
  const storeBytes = sizeBytes + STORE_BYTES;
  const memoryMib = OWN_MEMORY_MIB + (path === null ? storeBytes / MIB : 0);
  const server = await ServerProcess.start({
    name: "nvmf_tgt",
    command: program,
    args: ["--no-huge", "-s", `${memoryMib}`, "-m", "0x1", "-r", socket],
    sockets: [socket],
  });
  const call = (method: string, params: Record<string, unknown>) => rpc(socket, method, params);
  try {
    const base = { name: "base", block_size: BLOCK_BYTES };
    if (path === null) {
      await call("bdev_malloc_create", { ...base, num_blocks: storeBytes / BLOCK_BYTES });
    } else {
      makeRaw(path, storeBytes);
      await call("bdev_aio_create", { ...base, filename: path });
    }
    await call("bdev_lvol_create_lvstore", { bdev_name: "base", lvs_name: "store" });
    const volume = { lvs_name: "store", lvol_name: "volume", thin_provision: true };
    await call("bdev_lvol_create", { ...volume, size_in_mib: sizeBytes / MIB });
    const [port] = await freePorts();
    const address = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: `${port}` };
    await call("nvmf_create_transport", { trtype: "TCP" });
    await call("nvmf_create_subsystem", { nqn: SUBSYSTEM, serial_number: "BENCH" });
    await call("nvmf_subsystem_add_host", { nqn: SUBSYSTEM, host: hostNqn });
    const namespace = { bdev_name: "store/volume" };
    await call("nvmf_subsystem_add_ns", { nqn: SUBSYSTEM, namespace });
    await call("nvmf_subsystem_add_listener", { nqn: SUBSYSTEM, listen_address: address });
    const target = { address: "127.0.0.1", port, subsystemNqn: SUBSYSTEM, hostNqn };
    return { process: server, target, stop: () => server.stop() };
  } catch (error) {
    await server.stop();
    throw error;
  }
}

/** JSON-RPC 2.0 on a connection of its own: what is not framed ends where it is whole. */
function rpc(socketPath: string, method: string, params: Record<string, unknown>): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    let text = "";
    const end = (why: string | null): void => {
      clearTimeout(timer);
      socket.destroy();
      if (why === null) resolve();
      else reject(new Error(`nvmf_tgt: ${method}: ${why}`));
    };
    const timer = setTimeout(() => end("is not answered"), CALL_TIMEOUT_MS);
    socket.on("error", (error) => end(error.message));
    socket.on("close", () => end("ended with the connection"));
    socket.setEncoding("utf8").on("data", (more: string) => {
      text += more;
      const answer = parseWhole(text);
      if (answer !== null) end("error" in answer ? JSON.stringify(answer.error) : null);
    });
    socket.write(JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }));
  });
}

function parseWhole(text: string): Record<string, unknown> | null {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return null;
  }
}
