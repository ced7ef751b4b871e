// Formatting and lint are part of the tests: a change that passes here needs no second look.
import { spawnSync } from "node:child_process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { skip } from "./support/skip.js";

const script = new URL("../../scripts/lint.mjs", import.meta.url).pathname;
const { status, stdout, stderr } = spawnSync(process.execPath, [script], { encoding: "utf8" });
if (status === 77) skip("needs clang-format");

test("formatter and linter have nothing to say (npm run format repairs most)", () => {
  if (status !== 0) console.log(`${stdout}${stderr}`);
  assert.is(status, 0);
});

test.run();
