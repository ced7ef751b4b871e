// npm start: sets up, builds, and takes the tour in dist/engine/cli/start.js.
import { setup } from "./setup.mjs";

try {
  setup();
} catch (error) {
  process.stderr.write(`${error.output ?? ""}error: ${error.message}\n`);
  process.exit(1);
}
await import("../dist/engine/cli/start.js");
