// The TypeScript tests with the addon under the address sanitizer, inside an ordinary Node: what
// the two languages do to each other's memory, which the C++ tests by themselves do not see.
//
//   node scripts/test-addon.mjs [NAME…]      as npm test; without a name all that are quick enough
//
// The addon is built into build-address-addon/, beside a copy of dist/: compiled files look for
// the addon where they are. Leaks are not looked for: Node leaves what it has when it ends.
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildAddon } from "./build-native.mjs";
import { setup } from "./setup.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const tree = join(root, "build-address-addon");
const SHARED = [
  "bench",
  "csi",
  "docs",
  "engine",
  "native",
  "node_modules",
  "nvmf",
  "package.json",
  "scripts",
];
const KINDS = /^(unit|contract|crash)\//;
/** Many minutes by itself, and nothing of the seam that the others do not touch. */
const TOO_SLOW = /^crash\/(enumerated|exhaustive)/;
/**
 * Of other processes, without the addon, or with what the sanitizer cannot bear: fio, libraries
 * that fail calls.
 */
const NOT_OF_THE_ADDON = /^unit\/(bench|cli|csi-|fio-wrapper|lmdb-failure)/;

function main(names) {
  setup({ tests: true });
  buildAddon({ directory: join(tree, "build"), sanitizer: "address" });
  copyTree();
  const runtime = spawnSync("g++", ["-print-file-name=libasan.so"], { encoding: "utf8" });
  const env = {
    ...process.env,
    LD_PRELOAD: runtime.stdout.trim(),
    ASAN_OPTIONS: "detect_leaks=0:abort_on_error=1",
  };
  const runner = join(tree, "dist/test/runner/main.js");
  const chosen = names.length > 0 ? names : quickTests(runner);
  const args = [runner, ...chosen, "--native-build", join(root, "build-tests")];
  return spawnSync(process.execPath, args, { stdio: "inherit", env }).status ?? 1;
}

function quickTests(runner) {
  const { stdout } = spawnSync(process.execPath, [runner, "--list"], { encoding: "utf8" });
  return stdout
    .split("\n")
    .filter((name) => KINDS.test(name) && !TOO_SLOW.test(name) && !NOT_OF_THE_ADDON.test(name));
}

function copyTree() {
  mkdirSync(tree, { recursive: true });
  for (const copied of ["dist", "test"]) {
    rmSync(join(tree, copied), { recursive: true, force: true });
    cpSync(join(root, copied), join(tree, copied), { recursive: true });
  }
  for (const name of SHARED) {
    rmSync(join(tree, name), { force: true });
    symlinkSync(join(root, name), join(tree, name));
  }
}

try {
  process.exitCode = main(process.argv.slice(2));
} catch (error) {
  process.stdout.write(`${error.output ?? ""}\nerror: ${error.message}\n`);
  process.stdout.write("0 passed, 1 failed, 0 skipped\n");
  process.exitCode = 1;
}
