// Daemons in a guest, where the kernel is that they need: loaded before their time, killed under
// I/O, and driven from outside over TLS, because every program that starts in there is dear.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { TlsFiles } from "../../engine/base/config.js";
import { PandoClient } from "../../engine/serve/client.js";
import { makeAuthority } from "../support/certificates.js";
import type { Job } from "./vm/agent.js";
import { repositoryRoot } from "./vm/host.js";
import type { Vm } from "./vm/vm.js";

export interface GuestPandoOptions {
  vm: Vm;
  /** Of the pool, in the guest. */
  pool: string;
  /** The guest's port that the host's loopback has too: see VmOptions. */
  apiPort: number;
  settings: Record<string, string>;
}

/** An emulated guest is slow, on a busy machine very much so. */
export const PATIENCE_MS = 300_000;
const RUN = "/run/pando-test";

/** What was under way at a kill: nothing that counted it could be answered any more. */
export interface Killed {
  /** Requests that the kernel had given to the daemon's block device. */
  device: number;
  /** Requests of the host. */
  host: number;
  /** What the host's device had completed until then. */
  completed: number;
}

export class GuestPando {
  readonly #options: GuestPandoOptions;
  readonly #tls: TlsFiles;
  readonly #jobs: Job[] = [];
  #loading = 0;
  #serving = 0;
  #client: PandoClient | null = null;

  constructor(options: GuestPandoOptions) {
    this.#options = options;
    const { vm, pool, apiPort, settings } = options;
    const folder = join(vm.shareDir, "pando");
    mkdirSync(folder);
    const authority = makeAuthority(folder, "guest");
    const daemon = authority.issue("daemon");
    this.#tls = authority.issue("client");
    const inGuest = (path: string) => path.replace(vm.shareDir, "/mnt/pando");
    writeFileSync(
      join(folder, "pando.json"),
      JSON.stringify({
        ...{ pool, socket: `${RUN}/pando.sock`, nbdSocket: "none", metrics: "none" },
        ...{ api: `10.0.2.15:${apiPort}`, apiCertificate: inGuest(daemon.certificate) },
        ...{ apiKey: inGuest(daemon.key), apiAuthority: inGuest(daemon.authority) },
        ...settings,
      }),
    );
  }

  get client(): PandoClient {
    if (this.#client === null) throw new Error("no daemon serves");
    return this.#client;
  }

  /** Begins to load one more daemon. */
  prepare(): void {
    const number = ++this.#loading;
    const program = `${repositoryRoot}/dist/test/system/standby-daemon.js`;
    this.#jobs[number] = this.#options.vm.start(
      `mkdir -p ${RUN} && mkfifo ${RUN}/gate-${number}
       cd "$SHARE/pando"
       node ${program} pando.json ${RUN}/gate-${number} 2>log-${number} &
       echo $! >${RUN}/pid-${number}; wait $!`,
      { timeoutMs: 3_600_000 },
    );
  }

  async loaded(): Promise<void> {
    await this.#until(this.#loading, (log) => log.startsWith("loaded"));
  }

  /** The next daemon goes on, and does not serve yet. */
  async begin(): Promise<void> {
    if (this.#serving === this.#loading) this.prepare();
    const number = ++this.#serving;
    await this.#until(number, (log) => log.startsWith("loaded"));
    await this.#options.vm.must(`: >${RUN}/gate-${number}`);
  }

  /** Resolves when the next daemon serves. */
  async serve(): Promise<void> {
    await this.begin();
    await this.#until(this.#serving, (log) => log.includes('"msg":"serving"'));
    const address = { host: "127.0.0.1", port: this.#options.apiPort };
    this.#client?.close();
    this.#client = new PandoClient({ address, tls: this.#tls, timeoutMs: PATIENCE_MS });
  }

  /** Of the daemon that serves, or will. */
  get pidFile(): string {
    return `${RUN}/pid-${this.#serving}`;
  }

  kill(signal = "KILL"): Promise<string> {
    return this.#options.vm.must(
      `pid=$(cat ${this.pidFile}); kill -${signal} $pid
      until [ ! -d /proc/$pid ]; do sleep 0.1; done`,
      { timeoutMs: PATIENCE_MS },
    );
  }

  /**
   * Kills the daemon while its one block device has requests that are not answered, once `device`
   * has completed `after`. The daemon is stopped when they are counted, so none of them is answered
   * between the count and the kill.
   */
  async killUnderLoad(device: string, after: number): Promise<Killed> {
    const block = `/sys/block/${device.replace("/dev/", "")}`;
    const counts = await this.#options.vm.must(
      `pid=$(cat ${this.pidFile})
       count() {
         read -r reads merges sectors ticks writes rest <${block}/stat
         completed=$((reads + writes))
       }
       for wait in $(seq 6000); do
         count
         [ $completed -ge ${after} ] && break
         sleep 0.05
       done
       served=$(ls /sys/block/ublkb*/inflight 2>/dev/null ||
         echo $(dirname /sys/block/nbd*/backend)/inflight)
       for attempt in $(seq 1000); do
         kill -STOP $pid
         until grep -q '^State:.T' /proc/$pid/status; do :; done
         read -r reads writes <$served
         waiting=$((reads + writes))
         if [ $waiting -gt 0 ]; then
           count
           read -r reads writes <${block}/inflight
           kill -KILL $pid
           echo $waiting $((reads + writes)) $completed
           exit 0
         fi
         kill -CONT $pid
       done
       echo "no request was under way in 1,000 looks" >&2
       exit 1`,
      { timeoutMs: PATIENCE_MS },
    );
    const [requests = 0, host = 0, completed = 0] = counts.trim().split(" ").map(Number);
    return { device: requests, host, completed };
  }

  log(number = this.#serving): string {
    try {
      return readFileSync(join(this.#options.vm.shareDir, `pando/log-${number}`), "utf8");
    } catch {
      return "";
    }
  }

  close(): void {
    this.#client?.close();
  }

  async #until(number: number, holds: (log: string) => boolean): Promise<void> {
    let ended: string | null = null;
    this.#jobs[number]?.done.then(
      ({ status }) => {
        ended = `ended with ${status}`;
      },
      (error: Error) => {
        ended = error.message;
      },
    );
    for (const begin = performance.now(); performance.now() - begin < PATIENCE_MS; ) {
      if (holds(this.log(number))) return;
      if (ended !== null) break;
      await sleep(50);
    }
    throw new Error(`daemon ${number}: ${ended ?? "not in time"}\n${this.log(number)}`);
  }
}
