// Builds the C++: the addon with cmake-js into build/, the test executables with cmake into
// build-tests/ (or build-SANITIZER/). Incremental. Prints nothing but errors, unless PANDO_VERBOSE
// is set.
//
//   node scripts/build-native.mjs [--if-possible]     --if-possible: no tools is no error
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const verbose = process.env.PANDO_VERBOSE !== undefined;
const parallel = String(Math.min(availableParallelism(), 4));

/** A sanitizer needs lines, not speed: this halves the time of the build. */
const SANITIZER_FLAGS = "CMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -g1 -DNDEBUG";

/** Into `directory`, with sanitizers or without. Throws BuildError. */
export function buildAddon({ tree = root, directory = join(tree, "build"), sanitizer = "" } = {}) {
  removeForeign(directory, tree);
  if (!existsSync(join(directory, "RelWithDebInfo/pando.node"))) say("building the native addon");
  const cmakeJs = join(dirname(require.resolve("cmake-js/package.json")), "bin", "cmake-js");
  const addonApi = dirname(require.resolve("node-addon-api/package.json"));
  const args = ["compile", "--directory", join(tree, "native"), "--out", directory];
  args.push("--config", "RelWithDebInfo", "--parallel", parallel);
  args.push("--log-level", verbose ? "verbose" : "error", `--CDNODE_ADDON_API_DIR=${addonApi}`);
  if (sanitizer !== "") args.push(`--CDPANDO_SANITIZE=${sanitizer}`, `--CD${SANITIZER_FLAGS}`);
  run(process.execPath, [cmakeJs, ...args], tree, "the native addon did not build");
}

/** Builds the C++ tests, all or only `targets`. Throws BuildError. */
export function buildTests({ tree = root, sanitizer = "", targets = [] } = {}) {
  const directory = testsDirectory({ tree, sanitizer });
  removeForeign(directory, tree);
  if (!existsSync(join(directory, "CMakeCache.txt"))) {
    say(`building the C++ tests${sanitizer === "" ? "" : ` (${sanitizer} sanitizer)`}`);
    const ninja = spawnSync("ninja", ["--version"]).status === 0;
    const args = ["-S", join(tree, "native"), "-B", directory, ...(ninja ? ["-G", "Ninja"] : [])];
    args.push("-DPANDO_TESTS=ON", `-DPANDO_SANITIZE=${sanitizer}`);
    if (sanitizer !== "") args.push(`-D${SANITIZER_FLAGS}`);
    run("cmake", args, tree, "the C++ tests cannot be configured");
  }
  const args = ["--build", directory, "--parallel", parallel];
  if (targets.length > 0) args.push("--target", ...targets);
  run("cmake", args, tree, "the C++ tests did not build");
}

export function testsDirectory({ tree = root, sanitizer = "" } = {}) {
  return join(tree, sanitizer === "" ? "build-tests" : `build-${sanitizer.replaceAll(",", "-")}`);
}

/** A build directory that came here from elsewhere points to sources that are not ours. */
function removeForeign(directory, tree) {
  const cache = join(directory, "CMakeCache.txt");
  if (!existsSync(cache)) return;
  const home = `CMAKE_HOME_DIRECTORY:INTERNAL=${join(tree, "native")}\n`;
  if (!readFileSync(cache, "utf8").includes(home)) rmSync(directory, { recursive: true });
}

function run(command, args, cwd, complaint) {
  const result = spawnSync(command, args, {
    cwd,
    stdio: verbose ? "inherit" : ["ignore", "pipe", "pipe"],
    encoding: "utf8",
    maxBuffer: 256 * 1024 * 1024,
  });
  if (result.status === 0) return;
  throw new BuildError(complaint, `${result.stdout ?? ""}${result.stderr ?? ""}`);
}

/** `output`: what the compiler said. */
export class BuildError extends Error {
  name = "BuildError";

  constructor(message, output) {
    super(message);
    this.output = output;
  }
}

function say(text) {
  process.stderr.write(`setup: ${text}\n`);
}

function hasTools() {
  const cmake = spawnSync("cmake", ["--version"]).status === 0;
  const headers = ["liburing.h", "openssl/ssl.h"];
  return cmake && headers.every((file) => existsSync(`/usr/include/${file}`));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv.includes("--if-possible") && !hasTools()) {
    say(
      "native addon left out: cmake, liburing-dev or libssl-dev is missing (npm start tells how to get it)",
    );
  } else {
    try {
      buildAddon();
    } catch (error) {
      if (!(error instanceof BuildError)) throw error;
      process.stderr.write(`${error.output}\nerror: ${error.message}\n`);
      process.exit(1);
    }
  }
}
