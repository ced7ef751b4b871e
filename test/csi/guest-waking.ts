// Runs in a guest: a database that nobody has used for a while is woken, from ControllerPublish to
// Postgres answering. Started by the benchmark of that name:
//
//     node guest-waking.js CONFIG prepare
//     node guest-waking.js CONFIG measure ROUNDS
//
// Prints a line of JSON for each round, among others.
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { createConnection } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { loadCsiConfig } from "../../csi/config.js";
import { startDriver } from "../../csi/driver.js";
import { CsiClient } from "../support/csi-client.js";
import { create, Pod, type StartTimes } from "./guest-pod.js";

/** What a round took, step by step. */
export interface WakingTimes extends StartTimes {
  postgresMs: number;
}

const BIN = "/usr/lib/postgresql/15/bin";
const AS_POSTGRES = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
const SOCKET_DIR = "/tmp";
const PORT = 5432;
const CAPABILITY = {
  mount: { fsType: "ext4", mountFlags: [], volumeMountGroup: "" },
  accessMode: { mode: "SINGLE_NODE_WRITER" },
};
const POLL_MS = 5;
/**
 * NUL-ended pairs, and one more NUL, after the length and the version: PostgreSQL's protocol 3.0.
 */
const STARTUP = "user\0postgres\0database\0postgres\0\0";
const READY_FOR_QUERY = "Z".charCodeAt(0);

const [configPath, step, rounds = "1"] = process.argv.slice(2);
const config = loadCsiConfig(configPath, { logLevel: "warn" });

const driver = await startDriver(config);
const csi = new CsiClient(config.endpoint);
const volumeId = await create(csi, "sleeping", { capability: CAPABILITY, sizeBytes: 2 ** 30 });
const node = config.hostNqn ?? "";
const pod = new Pod(csi, { name: "sleeping", volumeId, capability: CAPABILITY, node });
const data = `${pod.target}/data`;
if (step === "prepare") await prepare();
else for (let round = 0; round < Number(rounds); round++) await wake();
csi.close();
await driver.close();

async function prepare(): Promise<void> {
  await pod.start();
  mkdirSync(data, { mode: 0o700 });
  execFileSync("chown", ["postgres:", data]);
  const initdb = [`${BIN}/initdb`, "-D", data, "-A", "trust", "-E", "UTF8", "--locale=C"];
  execFileSync("setpriv", [...AS_POSTGRES, ...initdb], { cwd: "/tmp", stdio: "ignore" });
  await pod.stop();
}

async function wake(): Promise<void> {
  const times = await pod.start();
  const startedAt = performance.now();
  const server = spawn(
    "setpriv",
    [...AS_POSTGRES, `${BIN}/postgres`, "-D", data, "-p", String(PORT), "-k", SOCKET_DIR].concat([
      "-c",
      "listen_addresses=",
      "-c",
      "shared_buffers=64MB",
    ]),
    { cwd: "/tmp", stdio: "ignore" },
  );
  const ended = new Promise<void>((resolve) => server.once("exit", () => resolve()));
  while (!(await answers())) {
    if (server.exitCode !== null) throw new Error(`Postgres ended with ${server.exitCode}`);
    await sleep(POLL_MS);
  }
  const all: WakingTimes = { ...times, postgresMs: performance.now() - startedAt };
  console.log(JSON.stringify(all));
  // Fast shutdown.
  server.kill("SIGINT");
  await ended;
  await pod.stop();
}

/** Whether a session begins: recovery has ended, and the catalogue can be read. */
function answers(): Promise<boolean> {
  const head = Buffer.alloc(8);
  head.writeInt32BE(head.length + STARTUP.length);
  head.writeInt32BE(3 << 16, 4);
  return new Promise((resolve) => {
    const socket = createConnection(`${SOCKET_DIR}/.s.PGSQL.${PORT}`);
    const done = (isReady: boolean) => {
      socket.destroy();
      resolve(isReady);
    };
    const received: Buffer[] = [];
    socket.once("connect", () => socket.write(Buffer.concat([head, Buffer.from(STARTUP)])));
    socket.on("data", (part: Buffer) => {
      received.push(part);
      if (isReady(Buffer.concat(received))) done(true);
    });
    socket.once("error", () => done(false));
    socket.once("close", () => done(false));
  });
}

/** Messages are a letter, and a length that counts itself. */
function isReady(messages: Buffer): boolean {
  for (let at = 0; at + 5 <= messages.length; at += 1 + messages.readInt32BE(at + 1)) {
    if (messages[at] === READY_FOR_QUERY) return true;
  }
  return false;
}
