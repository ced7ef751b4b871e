// A seeded bug that no longer fits the sources would be found on CI only: this finds it here.
import { spawnSync } from "node:child_process";
import { test } from "uvu";
import * as assert from "uvu/assert";

const script = new URL("../../../scripts/mutants.mjs", import.meta.url).pathname;

test("every seeded bug fits the sources once, and names a test that exists", () => {
  const { stdout } = spawnSync(process.execPath, [script, "--check"], { encoding: "utf8" });
  assert.match(stdout, /^[1-9]\d* passed, 0 failed, 0 skipped$/m, stdout);
});

test.run();
