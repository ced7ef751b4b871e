// Loaded before a command in tests: it collects garbage when the command has nothing left to do, so
// that a file that nobody closed is told of every time, and not only when memory happens to be
// short.
import { setImmediate as othersTurn } from "node:timers/promises";

process.once("beforeExit", async () => {
  globalThis.gc?.();
  // The warning is printed in a later turn.
  await othersTurn();
});
