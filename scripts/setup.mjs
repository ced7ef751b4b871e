// Makes a fresh clone ready: npm packages, Debian packages, the native addon, the compiled
// TypeScript. Does only what is missing, and says what it does; silent when there is nothing to do.
// Debian packages are installed only where that needs no password; else it prints the command.
//
//   node scripts/setup.mjs [--tests]     --tests: also what only the tests need
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildAddon } from "./build-native.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Throws an error whose message says what is missing and the command to try. */
export function setup({ tests = false } = {}) {
  debianPackages({ tests });
  npmPackages();
  buildAddon();
  compileTypeScript();
}

function debianPackages({ tests }) {
  const wanted = JSON.parse(readFileSync(join(root, "scripts/debian-packages.json"), "utf8"));
  if (run("dpkg-query", ["--version"]).status !== 0) {
    if (run("cmake", ["--version"]).status === 0) return; // not Debian, and no way to tell more
    fail(`this is not Debian, and cmake is missing; Pando needs: ${wanted.build.join(" ")}`);
  }
  const missingBuild = wanted.build.filter((name) => !isInstalled(name));
  const missingTest = tests ? wanted.test.filter((name) => !isInstalled(name)) : [];
  const missing = [...missingBuild, ...missingTest];
  if (missing.length === 0) return;

  const prefix = rootPrefix();
  const manual = `sudo apt-get install --no-install-recommends ${missing.join(" ")}`;
  if (prefix === null) {
    if (missingBuild.length > 0) fail(`missing Debian packages; install them with:\n  ${manual}`);
    say(`some tests will be skipped for want of Debian packages; to have them:\n  ${manual}`);
    return;
  }
  say(`installing Debian packages: ${missing.join(" ")}`);
  // A source that cannot be reached is apt's warning, not our failure: what counts is whether the
  // packages can be installed.
  apt(prefix, ["update", "-q"]);
  if (!apt(prefix, ["install", "-y", "-q", "--no-install-recommends", ...missing])) {
    // One name that this release lacks must not keep the others away.
    for (const name of missing) {
      apt(prefix, ["install", "-y", "-q", "--no-install-recommends", name]);
    }
  }
  const buildLeft = missingBuild.filter((name) => !isInstalled(name));
  if (buildLeft.length > 0) {
    fail(`apt-get could not install: ${buildLeft.join(" ")}; try by hand:\n  ${manual}`);
  }
  const testLeft = missingTest.filter((name) => !isInstalled(name));
  if (testLeft.length > 0) say(`not installed, so some tests are skipped: ${testLeft.join(" ")}`);
}

function isInstalled(name) {
  return run("dpkg-query", ["--status", name]).stdout.includes("\nStatus: install ok installed\n");
}

/** What to put before apt-get, or null where only a password would help. */
function rootPrefix() {
  if (process.getuid?.() === 0) return [];
  return run("sudo", ["-n", "true"]).status === 0 ? ["sudo", "-n"] : null;
}

function apt(prefix, args) {
  const command = [...prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", ...args];
  const result = run(command[0], command.slice(1));
  if (result.status !== 0) {
    process.stderr.write(`${result.stdout}${result.stderr}`.split("\n").slice(-20).join("\n"));
  }
  return result.status === 0;
}

function npmPackages() {
  const installed = modified(join(root, "node_modules/.package-lock.json"));
  if (installed !== null && installed >= modified(join(root, "package-lock.json"))) return;
  say("installing npm packages");
  // No install scripts: ours is the next step, and no dependency needs one on Linux.
  const result = run("npm", ["ci", "--ignore-scripts"]);
  if (result.status !== 0) fail(`npm ci failed:\n${result.stderr}${result.stdout}`);
}

function compileTypeScript() {
  const dist = join(root, "dist");
  for (const name of existsSync(dist) ? readdirSync(dist, { recursive: true }) : []) {
    // What was compiled from a file that is gone would still run, and pass.
    const source = join(root, name.replace(/\.js(\.map)?$/, ".ts"));
    if (/\.js(\.map)?$/.test(name) && !existsSync(source)) rmSync(join(dist, name));
  }
  const compiler = join(root, "node_modules/typescript/bin/tsc");
  const result = run(process.execPath, [compiler, "-p", join(root, "tsconfig.json")]);
  if (result.status !== 0) fail(`the TypeScript does not compile:\n${result.stdout}`);
}

function say(text) {
  process.stdout.write(`setup: ${text}\n`);
}

function fail(text) {
  throw new Error(text);
}

function run(command, args) {
  return spawnSync(command, args, {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    maxBuffer: 64 * 1024 * 1024,
  });
}

function modified(path) {
  return existsSync(path) ? statSync(path).mtimeMs : null;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    setup({ tests: process.argv.includes("--tests") });
  } catch (error) {
    process.stderr.write(`${error.output ?? ""}error: ${error.message}\n`);
    process.exitCode = 1;
  }
}
