// The fio wrapper as others get it: packed, unpacked elsewhere, imported by its name.
import { spawnSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";

const root = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const folder = mkdtempSync(join(tmpdir(), "fio-package-test-"));
const modules = join(root, "node_modules");

test.after(() => rmSync(folder, { recursive: true }));

function run(command: string, args: string[], cwd: string): string {
  const result = spawnSync(command, args, { cwd, encoding: "utf8" });
  assert.is(result.status, 0, `${command} ${args.join(" ")}\n${result.stderr}${result.stdout}`);
  return result.stdout;
}

test("the package that npm packs has all that its importers need, and nothing else", () => {
  const source = join(folder, "source");
  // A copy, so that what the build leaves is not in the tree.
  cpSync(join(root, "bench/fio-wrapper"), source, {
    recursive: true,
    filter: (path) => !/fio-wrapper\/(dist|node_modules)/.test(path),
  });
  symlinkSync(modules, join(source, "node_modules"));
  const [packed] = JSON.parse(run("npm", ["pack", "--json", "--offline"], source));
  const files: string[] = packed.files.map((file: { path: string }) => file.path);
  assert.ok(files.includes("README.md") && files.includes("dist/index.d.ts"));
  assert.equal(
    files.filter((path) => !/^(package\.json|README\.md|dist\/[\w-]+\.(js|d\.ts))$/.test(path)),
    [],
  );

  const user = join(folder, "user");
  const installed = join(user, "node_modules/fio-wrapper");
  mkdirSync(installed, { recursive: true });
  run("tar", ["xzf", join(source, packed.filename), "--strip-components=1"], installed);
  const { dependencies } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
  assert.is(dependencies, undefined);
  writeFileSync(join(user, "package.json"), '{ "type": "module" }');
  writeFileSync(
    join(user, "index.ts"),
    `import { type FioJob, jobFile, runFio } from "fio-wrapper";
const job: FioJob = {
  name: "a",
  target: { engine: "psync", path: "/tmp/a" },
  pattern: "randread",
  blockBytes: 4096,
  sizeBytes: 65536,
};
console.log(jobFile([job]).includes("bs=4096"), typeof runFio);
`,
  );
  symlinkSync(join(modules, "@types"), join(user, "node_modules/@types"));
  const compiler = join(modules, "typescript/bin/tsc");
  const flags = ["--module", "nodenext", "--target", "es2022", "--types", "node", "--strict"];
  run(process.execPath, [compiler, ...flags, "index.ts"], user);
  assert.is(run(process.execPath, ["index.js"], user), "true function\n");
});

test.run();
