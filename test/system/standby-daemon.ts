// A daemon that is loaded before it is needed: it opens its pool when somebody writes to its gate.
//
// An emulated guest takes long to load a daemon, and a test that kills some would wait for that
// each time. From the gate on this is what `pando daemon` is.
//
//     node standby-daemon.js CONFIGURATION GATE
import { readFileSync } from "node:fs";
import { loadConfig, readEnvironment } from "../../engine/base/config.js";
import { separateMounts } from "../../engine/own-mounts.js";

const [configPath, gate = ""] = process.argv.slice(2);
const environment = readEnvironment();
await separateMounts(environment);
const { engine, runDaemon } = await import("../../engine/daemon.js");
process.stderr.write("loaded\n");
// Of a named pipe: answers when somebody has opened and closed its other end.
readFileSync(gate);
const config = loadConfig({ configPath, flags: {}, environment });
await runDaemon({ config, environment, openPool: engine.openPool });
