// A server that is measured from outside: a process with a socket, whose CPU time and memory the
// kernel knows.
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";

const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 30_000;
const POLL_MS = 20;
const MAX_MESSAGE_CHARACTERS = 16_384;
/** Linux: USER_HZ, which is 100 on every architecture that Pando runs on. */
const TICKS_PER_SECOND = 100;

/** Children that would outlive a run that is cut short, and their sockets. */
const running = new Map<ChildProcess, readonly string[]>();

/** For a run that is cut short. */
export function killServers(): void {
  for (const [child, sockets] of running) {
    child.kill("SIGKILL");
    removeAll(sockets);
  }
}

export class ServerProcess {
  readonly #child: ChildProcess;
  readonly #ended: Promise<string>;
  #messages = "";
  #how: string | null = null;

  private constructor(
    readonly name: string,
    command: string,
    args: readonly string[],
    sockets: readonly string[],
  ) {
    this.#child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"] });
    running.set(this.#child, sockets);
    this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#messages = (this.#messages + text).slice(-MAX_MESSAGE_CHARACTERS);
    });
    this.#ended = new Promise((resolve) => {
      const end = (how: string): void => {
        running.delete(this.#child);
        removeAll(sockets);
        this.#how = how;
        resolve(how);
      };
      this.#child.once("error", (error) => end(error.message));
      this.#child.once("close", (code, signal) => end(`${signal ?? `exit code ${code}`}`));
    });
  }

  /** Resolves when every socket takes connections; those of `others` are not tried. */
  static async start(options: {
    name: string;
    command: string;
    args: readonly string[];
    sockets: readonly string[];
    others?: readonly string[];
  }): Promise<ServerProcess> {
    const { name, command, args, sockets, others = [] } = options;
    const server = new ServerProcess(name, command, args, [...sockets, ...others]);
    const deadline = Date.now() + START_TIMEOUT_MS;
    for (const socket of sockets) {
      while (!(await takesConnections(socket))) {
        if (server.#how !== null || Date.now() > deadline) {
          server.#child.kill("SIGKILL");
          const how = server.#how ?? "is not ready in time";
          throw new Error(`${name} does not start: ${how}\n${server.#messages}`);
        }
        await pause(POLL_MS);
      }
    }
    return server;
  }

  /** Of all of its threads, so far. */
  cpuSeconds(): number {
    // proc(5), /proc/pid/stat: the name may hold anything, so count from its end.
    const text = readFileSync(`/proc/${this.#child.pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  }

  /** How often each of its threads has gone to sleep, so far. */
  sleeps(): Map<string, number> {
    const tasks = `/proc/${this.#child.pid}/task`;
    const counts = readdirSync(tasks).map((task): [string, number] => {
      const text = readFileSync(`${tasks}/${task}/status`, "utf8");
      return [task, Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(text)?.[1] ?? 0)];
    });
    return new Map(counts);
  }

  residentBytes(): number {
    const text = readFileSync(`/proc/${this.#child.pid}/status`, "utf8");
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(text)?.[1] ?? 0) * 1024;
  }

  /** That it has had written, to files or devices. */
  writtenBytes(): number {
    const text = readFileSync(`/proc/${this.#child.pid}/io`, "utf8");
    return Number(/^write_bytes: (\d+)$/m.exec(text)?.[1] ?? 0);
  }

  /** Takes no CPU time until it goes on; its sockets stay open. */
  pause(): void {
    this.#child.kill("SIGSTOP");
  }

  goOn(): void {
    this.#child.kill("SIGCONT");
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), STOP_TIMEOUT_MS);
    this.#child.kill(signal);
    await this.#ended;
    clearTimeout(timer);
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function removeAll(paths: readonly string[]): void {
  for (const path of paths) rmSync(path, { force: true });
}

function takesConnections(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
