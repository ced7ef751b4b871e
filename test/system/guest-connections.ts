// Runs in a guest: connects it to many volumes, as a compute node does, and says how long each
// took.
// Started by hundred-volumes.ts:
//
//     node guest-connections.js TARGETS
//
// TARGETS is a JSON file: a list of {nqn, traddr, trsvcid}.
import { readFileSync } from "node:fs";
import { DEFAULT_CONNECTION, Initiator, type Target } from "../../nvmf/initiator.js";
import { guestHost } from "./guest-nvme.js";

/** An emulated processor does all the connecting, one after another. */
const TIMEOUT_MS = 600_000;

const targets = JSON.parse(readFileSync(process.argv[2] ?? "", "utf8")) as Target[];
const initiator = new Initiator(guestHost, { timeoutMs: TIMEOUT_MS });
const settings = { ...DEFAULT_CONNECTION, ioQueues: 1 };
const started = performance.now();
let connected = 0;
await Promise.all(
  targets.map(async (target) => {
    await initiator.connect(target, settings);
    connected += 1;
    if (connected % 10 !== 0) return;
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(`${connected} are connected after ${seconds} s`);
  }),
);
