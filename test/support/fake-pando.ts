// `pando` with the fake engine, as a program: without a native build.
import { run } from "../../engine/cli/cli.js";
import { fakeEngine } from "./fake-engine.js";

process.exitCode = await run(process.argv.slice(2), async () => fakeEngine);
