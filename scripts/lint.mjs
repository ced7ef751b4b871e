// Formatting and lint of both languages: Biome for TypeScript, scripts and JSON, clang-format for
// C++. With --fix it repairs what it can. Exit code 77 (after `skip: …`) where clang-format is
// missing and all else is well.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { wrapComments } from "./wrap-comments.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const fix = process.argv.includes("--fix");

if (fix) for (const path of typescriptFiles()) rewrap(path);

const biome = run(process.execPath, [
  join(root, "node_modules/@biomejs/biome/bin/biome"),
  "check",
  ...(fix ? ["--write"] : []),
  "--error-on-warnings",
  "--max-diagnostics=50",
  root,
]);
const sources = readdirSync(join(root, "native"), { recursive: true, encoding: "utf8" })
  .filter((name) => /\.(cc|h)$/.test(name))
  .map((name) => join(root, "native", name));
const clangFormat = run("clang-format", [...(fix ? ["-i"] : ["--dry-run", "-Werror"]), ...sources]);

if (clangFormat.error?.code === "ENOENT") {
  process.stdout.write("skip: needs clang-format\n");
  process.exitCode = biome.status === 0 ? 77 : 1;
} else {
  process.exitCode = biome.status === 0 && clangFormat.status === 0 ? 0 : 1;
}

function typescriptFiles() {
  const folders = ["engine", "native", "nvmf", "csi", "bench", "test", "scripts"];
  return folders
    .filter((folder) => existsSync(join(root, folder)))
    .flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
        .filter((name) => /\.(ts|mjs)$/.test(name))
        .map((name) => join(root, folder, name)),
    );
}

function rewrap(path) {
  const text = readFileSync(path, "utf8");
  const wrapped = wrapComments(text);
  if (wrapped !== text) writeFileSync(path, wrapped);
}

function run(command, args) {
  return spawnSync(command, args, { cwd: root, stdio: "inherit" });
}
