#!/usr/bin/env node
// The command `pandod`: `pando daemon` under the name that units and process lists know.
import { run } from "./cli.js";
import { loadEngine } from "./engine.js";
import { leaveQuietlyOnClosedPipe } from "./print.js";

leaveQuietlyOnClosedPipe();
process.exitCode = await run(["daemon", ...process.argv.slice(2)], loadEngine);
