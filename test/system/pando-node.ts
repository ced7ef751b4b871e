// A storage node as its operator has it: a pool in a temporary folder, the daemon as a process of
// its own, the CLI.
//
// Nothing here looks behind the commands and their JSON, so what the system tests prove holds for
// users.
import { createServer } from "node:net";
import { join } from "node:path";
import {
  type DaemonProcess,
  pandoCommand,
  runPando,
  startPandoDaemon,
  temporaryFolder,
} from "../support/pando.js";
import type { Target } from "./guest-nvme.js";

/** The fields of `volume show --json` that hosts need. */
export interface Volume {
  name: string;
  uuid: string;
  sizeBytes: number;
  ownBytes: number;
  sharedBytes: number;
  parent: string | null;
  nqn: string;
  addresses: { traddr: string; trsvcid: string | number }[];
  allowedHosts: string[];
  sessions: { hostNqn: string }[];
}

export interface CheckReport {
  clean: boolean;
  problems: string[];
}

export interface PandoNode {
  /** Runs `pando …ARGS --json` against the daemon. */
  pando(...args: string[]): Promise<unknown>;
  showVolume(name: string): Promise<Volume>;
  /**
   * Starts the daemon again, on the port that it had, with `more` arguments. Returns how long it
   * took to serve.
   */
  startDaemon(more?: string[]): Promise<number>;
  /** What the daemon that runs has logged so far. */
  log(): string;
  /** The pool's folder. */
  readonly pool: string;
  /** The daemon's API. */
  readonly socket: string;
  /** `kill -STOP`: the daemon holds what it has and answers nothing. */
  freezeDaemon(): void;
  /** `kill -9`; resolves when the process is gone. */
  killDaemon(): Promise<void>;
  /** Stops the daemon and checks the pool that it leaves. */
  stopAndCheck(): Promise<CheckReport>;
  /** Kills the daemon if there is one, and removes the pool. */
  remove(): Promise<void>;
}

export interface NodeOptions {
  poolSize: string;
  /** The daemon's host as its clients see it. */
  advertise: string;
  /** Room that is not used is not taken. */
  sparse?: boolean;
  /** For commands that move data; its socket is beside the daemon's. */
  nbd?: boolean;
  /** Beside those that every test needs. */
  daemonFlags?: string[];
}

const pandoProgram = pandoCommand("real");

export async function startNode(options: NodeOptions): Promise<PandoNode> {
  const { poolSize, advertise, sparse = false, nbd = false, daemonFlags = [] } = options;
  const folder = temporaryFolder();
  const pool = join(folder.path, "pool");
  const socket = join(folder.path, "pando.sock");
  const port = await freePort();
  let daemon: DaemonProcess | null = null;

  const pando = (...args: string[]) => runJson([...args, "--socket", socket]);

  async function startDaemon(more: string[] = []): Promise<number> {
    const startedAt = performance.now();
    daemon = await startPandoDaemon(pandoProgram, [
      ...["--pool", pool, "--socket", socket, "--metrics", "none"],
      ...(nbd ? [] : ["--nbd-socket", "none"]),
      ...["--target", `127.0.0.1:${port}`, "--advertise", `${advertise}:${port}`],
      ...more,
      ...daemonFlags,
    ]);
    return performance.now() - startedAt;
  }

  async function stop(signal: NodeJS.Signals): Promise<number | string> {
    const code = (await daemon?.stop(signal)) ?? 0;
    daemon = null;
    return code;
  }

  const killDaemon = async () => void (await stop("SIGKILL"));
  const remove = async () => {
    await killDaemon();
    folder.remove();
  };
  try {
    const room = sparse ? ["--sparse"] : [];
    await runJson(["pool", "create", pool, "--size", poolSize, ...room]);
    await startDaemon();
  } catch (error) {
    await remove();
    throw error;
  }
  return {
    pando,
    startDaemon,
    killDaemon,
    remove,
    pool,
    socket,
    log: () => daemon?.log() ?? "",
    freezeDaemon() {
      if (daemon !== null) process.kill(daemon.pid, "SIGSTOP");
    },
    showVolume: async (volume) => (await pando("volume", "show", volume)) as Volume,
    async stopAndCheck() {
      const code = await stop("SIGTERM");
      if (code !== 0) throw new Error(`the daemon ended with ${code}`);
      return (await runJson(["pool", "check", pool])) as CheckReport;
    },
  };
}

/** Where hosts connect to a volume. */
export function targetOf({ name, nqn, addresses }: Volume): Target {
  const [address] = addresses;
  if (address === undefined) throw new Error(`volume ${name} has no address`);
  return { nqn, ...address };
}

async function runJson(args: string[]): Promise<unknown> {
  const { code, stdout, stderr } = await runPando(pandoProgram, [...args, "--json"]);
  if (code !== 0) throw new Error(`pando ${args.join(" ")}: ${stderr.trim()}`);
  return stdout.trim() === "" ? null : JSON.parse(stdout);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no free port");
  return address.port;
}
