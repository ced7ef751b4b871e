// Many hosts, each with a volume of its own on one daemon, which is killed under their load: each
// connects again and sends once more what was not answered, as a kernel would. Nothing that was
// acknowledged is lost, on any of them.
//
//   node dist/test/system/many-hosts.test.js [HOSTS [KILLS [SEED]]]
import { join } from "node:path";
import { suite } from "uvu";
import { assert } from "../../engine/base/assert.js";
import { SECTOR_BYTES } from "../../engine/base/constants.js";
import { PandoClient } from "../../engine/serve/client.js";
import { type Random, seeded } from "../prng.js";
import { NvmeHost, StatusError } from "../support/nvme-host.js";
import {
  type DaemonProcess,
  freePort,
  killDaemons,
  pandoCommand,
  runPando,
  startPandoDaemon,
  temporaryFolder,
} from "../support/pando.js";
import { sectorsOf, VersionBook } from "../support/version-book.js";

const test = suite("many hosts");
const [hosts = 100, kills = 1, seed = 1] = process.argv.slice(2).map(Number);
const folder = temporaryFolder();
const pool = join(folder.path, "pool");
const socket = join(folder.path, "pando.sock");

const SECTORS = 256;
const LONGEST_WRITE = 4;
const ROUND_MS = 500;
const RETRY_MS = 20;
/** For a machine that does much else; it is the end of the test, not a measurement. */
const PATIENCE_MS = 60_000;

test.after(() => {
  killDaemons();
  folder.remove();
});

/** One volume, its host, and what of it was acknowledged. */
class Tenant {
  readonly book = new VersionBook();
  writes = 0;
  connections = 0;
  #version = 0;
  #host: NvmeHost | null = null;
  #stopped = false;

  constructor(
    readonly subsystemNqn: string,
    readonly hostNqn: string,
    readonly port: number,
    readonly dice: Random,
  ) {}

  /** Writes until it is stopped, whatever becomes of the daemon. */
  async work(): Promise<void> {
    while (!this.#stopped) {
      const count = 1 + this.dice.below(LONGEST_WRITE);
      const sector = this.dice.below(SECTORS - count);
      const version = ++this.#version;
      this.book.submitted(sector, count, version);
      const data = sectorsOf(sector, count, version);
      await this.#untilDone((host) => host.write(sector * SECTOR_BYTES, data));
      this.book.acknowledged(sector, count, version);
      this.writes++;
      if (this.dice.oneIn(8)) await this.#untilDone((host) => host.flush());
    }
  }

  /** When nothing is under way. */
  async compare(what: string): Promise<void> {
    const bytes = SECTORS * SECTOR_BYTES;
    const data = await this.#untilDone((host) => host.read(0, bytes));
    this.book.settle(0, data, `${this.subsystemNqn} ${what}`);
  }

  stop(): void {
    this.#stopped = true;
  }

  close(): void {
    this.#host?.close();
  }

  async #untilDone<T>(request: (host: NvmeHost) => Promise<T>): Promise<T> {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      try {
        if (this.#host === null) {
          const { port, subsystemNqn, hostNqn } = this;
          this.#host = await NvmeHost.attach({ port, subsystemNqn, hostNqn });
          this.connections++;
        }
        return await request(this.#host);
      } catch (error) {
        if (error instanceof StatusError || Date.now() > deadline) throw error;
        this.#host?.close();
        this.#host = null;
        await pause(RETRY_MS);
      }
    }
  }
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while (!condition()) {
    assert(Date.now() < deadline, what);
    await pause(RETRY_MS);
  }
}

function startDaemon(port: number): Promise<DaemonProcess> {
  return startPandoDaemon(pandoCommand("real"), [
    ...["--pool", pool, "--socket", socket, "--nbd-socket", "none", "--metrics", "none"],
    ...["--target", `127.0.0.1:${port}`, "--index-cache", "4MiB"],
  ]);
}

test(`${hosts} hosts, ${kills} kills, seed ${seed}`, async () => {
  const size = `${64 + 2 * hosts}MiB`;
  const create = ["pool", "create", pool, "--size", size, "--journal-size", "4MiB", "--sparse"];
  assert((await runPando(pandoCommand("real"), create)).code === 0, "the pool is made");
  const port = await freePort();
  let daemon = await startDaemon(port);
  let control = new PandoClient(socket);
  const tenants: Tenant[] = [];
  for (let i = 0; i < hosts; i++) {
    await control.createVolume(`v${i}`, SECTORS * SECTOR_BYTES);
    const hostNqn = `nqn.2014-08.org.nvmexpress:uuid:host-${i}`;
    const { nqn } = await control.allowHost(`v${i}`, hostNqn);
    tenants.push(new Tenant(nqn, hostNqn, port, seeded(seed * hosts + i)));
  }
  const working = Promise.all(tenants.map((tenant) => tenant.work()));
  let failure: unknown = null;
  working.catch((error: unknown) => {
    failure ??= error;
  });
  for (let kill = 0; kill <= kills; kill++) {
    const before = tenants.map(({ writes }) => writes);
    await until(
      () => failure !== null || tenants.every(({ writes }, i) => writes > (before[i] ?? 0)),
      `every host writes after kill ${kill}`,
    );
    if (failure !== null) throw failure;
    assert(
      tenants.every(({ connections }) => connections > kill),
      "every host is connected anew",
    );
    if (kill === kills) break;
    await pause(seeded(seed + kill).below(ROUND_MS));
    await daemon.stop("SIGKILL");
    control.close();
    daemon = await startDaemon(port);
    control = new PandoClient(socket);
  }
  for (const tenant of tenants) tenant.stop();
  await working;
  for (const tenant of tenants) await tenant.compare("in the end");
  const { problems } = await control.check();
  assert(problems.length === 0, problems.join("; "));
  for (const tenant of tenants) tenant.close();
  control.close();
  assert((await daemon.stop()) === 0, "the last stop is a clean one");
  const writes = tenants.reduce((sum, tenant) => sum + tenant.writes, 0);
  console.log(`${hosts} hosts, ${kills} kills, ${writes} writes`);
});

test.run();
