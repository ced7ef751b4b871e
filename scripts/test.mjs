// npm test: sets up, builds, and runs every test.
//
//   npm test -- [NAME…] [--list] [--no-setup] [--sanitizer address,undefined|thread]
//
//   NAME         only files whose name contains it (unit/crc32c, native/, system)
//   --list       names only
//   --no-setup   what is built already
//   --sanitizer  the C++ tests only, built with it
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { buildTests, testsDirectory } from "./build-native.mjs";
import { setup } from "./setup.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      list: { type: "boolean", default: false },
      "no-setup": { type: "boolean", default: false },
      sanitizer: { type: "string", default: "" },
    },
  });
  const { sanitizer } = values;
  if (!values["no-setup"]) {
    setup({ tests: true });
    buildTests({ sanitizer });
  }
  const args = [join(root, "dist/test/runner/main.js"), ...positionals];
  args.push("--native-build", testsDirectory({ sanitizer }));
  if (sanitizer !== "") args.push("--sanitizer", sanitizer);
  if (values.list) args.push("--list");
  return spawnSync(process.execPath, args, { stdio: "inherit" }).status ?? 1;
}

try {
  process.exitCode = main();
} catch (error) {
  process.stdout.write(`${error.output ?? ""}\nerror: ${error.message}\n`);
  process.stdout.write("0 passed, 1 failed, 0 skipped\n");
  process.exitCode = 1;
}
