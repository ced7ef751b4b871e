// Postgres on a mounted file system, with fsync on, and pgbench as its client. The server is a
// process of its own user's: it refuses to be root.
import { execFile, execFileSync } from "node:child_process";
import { chownSync, existsSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { pause, ServerProcess } from "./server-process.js";

const DEBIAN = "/usr/lib/postgresql";
const USER = "postgres";
const START_TIMEOUT_MS = 120_000;
const POLL_MS = 50;
/** Small, so that pages go to the storage and come from it; nothing else writes in between. */
const SETTINGS = {
  listen_addresses: "",
  fsync: "on",
  synchronous_commit: "on",
  full_page_writes: "on",
  shared_buffers: "128MB",
  max_wal_size: "256MB",
  autovacuum: "off",
};

export interface PgbenchFigures {
  transactions: number;
  tps: number;
  latencyMs: number;
}

/** The newest release's programs as Debian installs them; null if there are none. */
export function postgresPrograms(): string | null {
  if (!existsSync(DEBIAN)) return null;
  const releases = readdirSync(DEBIAN).sort((a, b) => Number(b) - Number(a));
  const places = releases.map((release) => join(DEBIAN, release, "bin"));
  return places.find((place) => existsSync(join(place, "pgbench"))) ?? null;
}

/** `folder`: of an empty file system. The cluster is stopped again. */
export async function initPostgres(folder: string, scale: number): Promise<void> {
  const { uid, gid } = userIds();
  chownSync(folder, uid, gid);
  const data = join(folder, "data");
  await run("initdb", ["-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C"]);
  const server = await RunningPostgres.start(folder);
  try {
    await server.pgbench(["-i", "-q", "-s", `${scale}`]);
  } finally {
    await server.stop();
  }
}

export class RunningPostgres {
  private constructor(private readonly process: ServerProcess) {}

  /** Resolves when it takes connections, after its recovery if it needs one. */
  static async start(folder: string): Promise<RunningPostgres> {
    const settings = Object.entries({ ...SETTINGS, unix_socket_directories: tmpdir() });
    const process = await ServerProcess.start({
      name: "postgres",
      command: "setpriv",
      args: [
        ...asPostgres(program("postgres")),
        ...["-D", join(folder, "data"), "-p", `${port()}`],
        ...settings.flatMap(([name, value]) => ["-c", `${name}=${value}`]),
      ],
      sockets: [join(tmpdir(), `.s.PGSQL.${port()}`)],
    });
    const server = new RunningPostgres(process);
    await server.#answers();
    return server;
  }

  /** Begins behind a checkpoint, so that every run finds the log alike. */
  async measure(run: { clients: number; seconds: number }): Promise<PgbenchFigures> {
    await this.#psql("checkpoint");
    const { clients, seconds } = run;
    const time = ["-T", `${Math.max(1, Math.round(seconds))}`];
    return parsePgbench(await this.pgbench(["-c", `${clients}`, "-j", "1", ...time]));
  }

  pgbench(args: readonly string[]): Promise<string> {
    return run("pgbench", [...asClient(), ...args, USER]);
  }

  /** Cleanly: all of it is in the file system then. */
  stop(): Promise<void> {
    return this.process.stop("SIGINT"); // Postgres's fast shutdown
  }

  async #psql(sql: string): Promise<void> {
    await run("psql", ["-X", "-q", ...asClient(), "-c", sql, USER]);
  }

  async #answers(): Promise<void> {
    const deadline = Date.now() + START_TIMEOUT_MS;
    for (;;) {
      try {
        await this.#psql("select 1");
        return;
      } catch (error) {
        if (Date.now() > deadline) throw error;
        await pause(POLL_MS);
      }
    }
  }
}

/** Of pgbench's report; throws if transactions have failed. */
export function parsePgbench(report: string): PgbenchFigures {
  const number = (pattern: RegExp, what: string): number => {
    const found = pattern.exec(report)?.[1];
    if (found === undefined) throw new Error(`pgbench's report has no ${what}:\n${report}`);
    return Number(found);
  };
  const failed = /^number of failed transactions: (\d+)/m.exec(report)?.[1] ?? "0";
  if (failed !== "0") throw new Error(`pgbench: ${failed} transactions failed`);
  return {
    transactions: number(/^number of transactions actually processed: (\d+)/m, "transactions"),
    tps: number(/^tps = ([\d.]+) \((?:without initial|excluding) connection.*\)$/m, "TPS"),
    latencyMs: number(/^latency average = ([\d.]+) ms$/m, "latency"),
  };
}

function asClient(): string[] {
  return ["-U", USER, "-h", tmpdir(), "-p", `${port()}`];
}

/** One server at a time in one process, and none in the way of the machine's own. */
function port(): number {
  return 20_000 + (process.pid % 40_000);
}

async function run(name: string, args: readonly string[]): Promise<string> {
  const words = [...asPostgres(program(name)), ...args];
  const { stdout } = await promisify(execFile)("setpriv", words, { cwd: "/" });
  return stdout;
}

function program(name: string): string {
  const folder = postgresPrograms();
  if (folder === null) throw new Error(`there is no ${DEBIAN}/*/bin/pgbench`);
  return join(folder, name);
}

function asPostgres(command: string): string[] {
  return [`--reuid=${USER}`, `--regid=${USER}`, "--clear-groups", command];
}

function userIds(): { uid: number; gid: number } {
  const id = (flag: string) => Number(execFileSync("id", [flag, USER], { encoding: "utf8" }));
  return { uid: id("-u"), gid: id("-g") };
}
