#!/usr/bin/env node
// The command `pando`.
import { run } from "./cli.js";
import { loadEngine } from "./engine.js";
import { leaveQuietlyOnClosedPipe } from "./print.js";

leaveQuietlyOnClosedPipe();
process.exitCode = await run(process.argv.slice(2), loadEngine);
