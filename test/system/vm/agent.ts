// The host's side of agent.sh: scripts go to the guest, their status comes back.
//
// Bodies and output are files in the share; the socket carries one line per event (see agent.sh).
import { writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { within } from "./within.js";

export interface RunOptions {
  timeoutMs?: number;
}

export interface RunResult {
  /** The shell's exit status; 128 + signal if one ended it. */
  status: number;
  stdout: string;
  stderr: string;
  elapsedMs: number;
}

/** A script that runs in the guest. */
export interface Job {
  /**
   * Rejects if the guest stops or the time is over (then all that the script started is killed).
   */
  done: Promise<RunResult>;
  /** What it has written until now. */
  stdout(): Promise<string>;
  stderr(): Promise<string>;
  kill(): void;
}

interface Pending {
  exited(status: number): void;
  lost(error: Error): void;
}

const RUN_TIMEOUT_MS = 60_000;
const KILL_GRACE_MS = 5_000;
export const TAIL_CHARACTERS = 2_000;

export class Agent {
  /** Resolves when the guest's agent has said so; rejects if the guest ends before. */
  readonly ready: Promise<void>;
  private readonly pending = new Map<string, Pending>();
  private socket: Socket | null = null;
  private lost: Error | null = null;
  private nextJob = 1;

  private constructor(
    private readonly server: Server,
    private readonly shareDir: string,
  ) {
    this.ready = new Promise((resolve, reject) => {
      this.pending.set("ready", { exited: () => resolve(), lost: reject });
    });
    this.ready.catch(() => undefined);
    server.once("connection", (socket) => this.attach(socket));
  }

  static async listen(path: string, shareDir: string): Promise<Agent> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(path, resolve);
    });
    return new Agent(server, shareDir);
  }

  /** Synchronous to its end, because the guest expects the jobs in the order of their numbers. */
  start(script: string, { timeoutMs = RUN_TIMEOUT_MS }: RunOptions = {}): Job {
    if (this.lost !== null) throw this.lost;
    const id = `job${this.nextJob++}`;
    const file = (suffix: string) => join(this.shareDir, `${id}.${suffix}`);
    const stdout = () => readFile(file("out"), "utf8").catch(() => "");
    const stderr = () => readFile(file("err"), "utf8").catch(() => "");
    const kill = () => void this.socket?.write(`kill ${id}\n`);

    writeFileSync(file("sh"), script);
    const startedAt = performance.now();
    const exited = new Promise<number>((resolve, reject) => {
      this.pending.set(id, { exited: resolve, lost: reject });
    });
    this.socket?.write(`run ${id}\n`);
    const collect = async (status: number) => ({
      status,
      stdout: await stdout(),
      stderr: await stderr(),
      elapsedMs: performance.now() - startedAt,
    });
    const done = within(exited, timeoutMs, async () => {
      kill();
      await within(exited, KILL_GRACE_MS, async () => new Error("not killed")).catch(() => 0);
      const tail = `${await stdout()}${await stderr()}`.slice(-TAIL_CHARACTERS);
      return new Error(`not done in ${timeoutMs} ms in the VM: ${script.trim()}\n${tail}`);
    }).then(collect);
    // Who only looks at a job's output must not die of its failure.
    done.catch(() => undefined);
    return { done, stdout, stderr, kill };
  }

  /** The guest is gone: every script that is under way fails with this, and every later one. */
  fail(error: Error): void {
    this.lost ??= error;
    for (const job of this.pending.values()) job.lost(this.lost);
    this.pending.clear();
    this.server.close();
    this.socket?.destroy();
  }

  private attach(socket: Socket): void {
    this.socket = socket;
    // The end of QEMU ends the socket too, and is told by fail().
    socket.on("error", () => undefined);
    createInterface({ input: socket }).on("line", (line) => {
      const [verb, id, status] = line.split(" ");
      const key = verb === "exit" ? (id ?? "") : (verb ?? "");
      this.pending.get(key)?.exited(Number(status ?? 0));
      this.pending.delete(key);
    });
  }
}
