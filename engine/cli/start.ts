// `npm start`: the whole of Pando in one go, on this machine, without a question. A pool in a
// folder, a daemon in the foreground, a volume that is written to, a snapshot, a branch that
// differs, a host that is let in; then it keeps serving. Started again it goes on with what is
// there.
//
// The folder is .pando, or the one that is named: npm start -- FOLDER.
//
// It does what a user would do, by the same ways: the control socket, and NBD for the data.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { makeConfig, readEnvironment } from "../base/config.js";
import { isPandoError } from "../base/errors.js";
import { hostNqn } from "../base/nqn.js";
import { packagePath } from "../base/package-path.js";
import { type Daemon, engine, startDaemon, untilSignal } from "../daemon.js";
import { PandoClient, type VolumeView } from "../serve/client.js";
import { NbdClient } from "./nbd-client.js";
import { printError } from "./print.js";
import { connectLines, describeVolumes } from "./volume-text.js";

const MIB = 1024 * 1024;
/** Sparse: it takes of the disk what is written to it. */
const POOL_BYTES = 4096 * MIB;
const VOLUME_BYTES = 1024 * MIB;
const WRITTEN_BYTES = 64 * MIB;
const NOTE_BYTES = 4096;
const VOLUME = "db";
const SNAPSHOT = "first";
const BRANCH = "db-branch";
/** sun_path of sockaddr_un, less the name of the longer of the two sockets. */
const MAX_SOCKET_FOLDER_BYTES = 107 - "/pando.sock".length;

process.exitCode = await start();

async function start(): Promise<number> {
  try {
    const daemon = await startHere(resolve(process.argv[2] ?? packagePath(".pando")));
    const stopped = untilSignal(daemon);
    await tour(daemon).catch(async (error: unknown) => {
      await daemon.close();
      throw error;
    });
    await stopped;
    return 0;
  } catch (error) {
    printError(error);
    return 1;
  }
}

async function startHere(folder: string): Promise<Daemon> {
  const pool = join(folder, "pool");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (!existsSync(pool)) {
    await timed("make a pool", () =>
      engine.createPool(pool, { sizeBytes: POOL_BYTES, sparse: true }),
    );
  }
  const sockets = socketFolder(folder);
  const settings = {
    pool,
    socket: join(sockets, "pando.sock"),
    nbdSocket: join(sockets, "nbd.sock"),
    metrics: `127.0.0.1:${await freePort(9750)}`,
    target: `127.0.0.1:${await freePort(4420)}`,
    logLevel: "warn",
  };
  const environment = readEnvironment();
  const config = makeConfig(settings, environment);
  const daemon = await timed("open the pool, with recovery", () =>
    startDaemon({ config, environment, openPool: engine.openPool }),
  );
  return daemon;
}

async function tour(daemon: Daemon): Promise<void> {
  const { config } = daemon;
  const client = new PandoClient(config.socket);
  try {
    const { uuid } = await client.info();
    await volumeWithData(client, config.nbdSocket ?? "");
    await branch(client, config.nbdSocket ?? "");
    const host = hostNqn(uuid);
    for (const name of [VOLUME, BRANCH]) await client.allowHost(name, host);
    say(`\n${describeVolumes(await client.listVolumes(), await client.listSnapshots())}\n`);
    say(whatNext(config.socket, await client.getVolume(BRANCH)));
  } finally {
    client.close();
  }
}

async function volumeWithData(client: PandoClient, nbdSocket: string): Promise<void> {
  if (await exists(() => client.getVolume(VOLUME))) {
    say(`${VOLUME} is there already: going on with it`);
    return;
  }
  await timed(`make the volume ${VOLUME}, 1 GiB`, () => client.createVolume(VOLUME, VOLUME_BYTES));
  await overNbd(nbdSocket, VOLUME, async (nbd) => {
    const data = Buffer.alloc(MIB, "Pando ");
    await timed(`write ${WRITTEN_BYTES / MIB} MiB to it and flush`, async () => {
      for (let offset = 0; offset < WRITTEN_BYTES; offset += MIB) await nbd.write(offset, data);
      await nbd.flush();
    });
    await writeNote(nbd, "one root system");
  });
}

async function branch(client: PandoClient, nbdSocket: string): Promise<void> {
  if (!(await exists(() => client.getVolume(BRANCH)))) {
    const snapshots = await client.listSnapshots(VOLUME);
    if (!snapshots.some(({ name }) => name === SNAPSHOT)) {
      await timed(`snapshot ${VOLUME}@${SNAPSHOT}`, () => client.createSnapshot(VOLUME, SNAPSHOT));
    }
    await timed(`clone it as ${BRANCH}`, () =>
      client.cloneVolume({ volume: VOLUME, snapshot: SNAPSHOT }, BRANCH),
    );
    await overNbd(nbdSocket, BRANCH, (nbd) => writeNote(nbd, "many trunks"));
  }
  for (const name of [VOLUME, BRANCH]) {
    const note = await overNbd(nbdSocket, name, readNote);
    say(`  block 0 of ${name.padEnd(BRANCH.length)} reads "${note}"`);
  }
}

async function writeNote(nbd: NbdClient, text: string): Promise<void> {
  const note = Buffer.alloc(NOTE_BYTES);
  note.write(text);
  await nbd.write(0, note);
  await nbd.flush();
}

async function readNote(nbd: NbdClient): Promise<string> {
  const note = await nbd.read(0, NOTE_BYTES);
  return note.subarray(0, note.indexOf(0)).toString("utf8");
}

function whatNext(socket: string, volume: VolumeView): string {
  const connect = connectLines(volume).map((line) => `  sudo ${line}`);
  return [
    `To connect a Linux host to ${volume.name} (needs the kernel module: sudo modprobe nvme-tcp):`,
    ...connect,
    "",
    "To try next, in another terminal:",
    `  export PANDO_SOCKET=${socket}`,
    `  alias pando="node ${packagePath("dist/engine/cli/main.js")}"`,
    `  pando volume clone ${VOLUME} another-branch`,
    "  pando volume list",
    `  nbdinfo '${volume.nbdUri}'`,
    "",
    "Serving until Ctrl-C.",
  ].join("\n");
}

async function overNbd<T>(
  socket: string,
  name: string,
  work: (nbd: NbdClient) => Promise<T>,
): Promise<T> {
  const nbd = await NbdClient.open({ socket, name });
  try {
    return await work(nbd);
  } finally {
    await nbd.close();
  }
}

async function exists(find: () => Promise<unknown>): Promise<boolean> {
  try {
    await find();
    return true;
  } catch (error) {
    if (isPandoError(error, "ENOTFOUND")) return false;
    throw error;
  }
}

async function timed<T>(what: string, work: () => Promise<T>): Promise<T> {
  const before = performance.now();
  const result = await work();
  say(`${what}: ${(performance.now() - before).toFixed(1)} ms`);
  return result;
}

/** In the folder itself, unless its path is too long for a socket. */
function socketFolder(folder: string): string {
  if (Buffer.byteLength(folder) <= MAX_SOCKET_FOLDER_BYTES) return folder;
  const name = createHash("sha256").update(folder).digest("hex").slice(0, 12);
  return join(tmpdir(), `pando-${name}`);
}

/** The first from `wanted` on that nobody listens on. */
async function freePort(wanted: number): Promise<number> {
  for (let port = wanted; ; port += 1) {
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => resolve(true));
    });
    await new Promise<void>((resolve) => server.close(() => resolve()));
    if (free) return port;
  }
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
