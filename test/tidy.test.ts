// Keeps the architecture: who may import whom, which file alone may use what, and what the text of
// the project never contains. A rule that stands in your way is changed here, with its reason.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

const NOTHING = /^$/;
const ANYTHING = /^/;

/** By the first place that fits a file: the places of ours that it may import, beside its own. */
const MAY_IMPORT: [RegExp, RegExp][] = [
  [/^engine\/base\//, NOTHING],
  [/^engine\/store\//, /^(engine\/base|native)\//],
  [/^engine\/core\//, /^(engine\/base|engine\/store|native)\//],
  [/^engine\/serve\//, /^(engine\/base|engine\/core|native)\//],
  [/^engine\/cli\//, /^(engine\/(base\/|serve\/client|daemon\.|own-mounts\.)|nvmf\/)/],
  [/^engine\/(?=[^/]+$)/, /^(engine|nvmf|native)\//], // the composition root
  [/^native\//, /^engine\/base\//],
  [/^nvmf\//, /^(engine\/base|engine\/core|native)\//],
  [/^csi\//, /^(engine\/(base\/|serve\/client)|nvmf\/)/],
  [/^bench\/fio-wrapper\//, NOTHING],
  // The VMs, and Postgres in them, are the tests'.
  [
    /^bench\//,
    /^(engine|native)\/|^csi\/(protocol|main)\.ts|^test\/(csi|system|support\/nvme-host\.ts)/,
  ],
  [/^test\//, ANYTHING],
];

interface NamedFiles {
  what: RegExp;
  only: RegExp;
  why: string;
}

const ONLY_IN: NamedFiles[] = [
  {
    what: /from "lmdb"/,
    only: /^engine\/(store\/lmdb-\w+|\w+\/index-worker)\.ts$/,
    why: "one environment, opened with the same options everywhere",
  },
  { what: /from "prom-client"/, only: /^engine\/serve\//, why: "the data path only counts" },
  {
    what: /createRequire|\.node"/,
    only: /^native\/(native\.ts|test\/fail_nth_call\.cc)$/,
    why: "one file types and checks the addon",
  },
  {
    what: /#include <napi\.h>/,
    only: /^native\/binding\//,
    why: "ring, request and protocols know nothing of JavaScript",
  },
  {
    what: /\b(Date\.now|new Date\(\)|performance\.now|process\.hrtime|setTimeout|setInterval)\b/,
    only: /^engine\/(base\/clock|daemon)\.ts$|^engine\/(serve|cli)\/|^(csi|nvmf|bench|test)\//,
    why: "the engine runs under a simulated clock",
  },
  {
    what: /\b(Math\.random|randomUUID|randomBytes)\b/,
    only: /^engine\/base\/random\.ts$|^(bench|test)\//,
    why: "randomness is passed in, so that a seed repeats a run",
  },
  {
    what: /process\.env\b/,
    only: /^engine\/base\/config\.ts$|^test\//,
    why: "configuration is read once, in one place",
  },
];

const NEVER: { what: RegExp; why: string }[] = [
  { what: /\b(FIXM[E]|TOD[O]|HAC[K]|XX[X])\b/, why: "do it, or write down that it is absent" },
  { what: /@ts-(ignor[e]|nochec[k])/, why: "say it with types" },
  { what: /\/(work|home|Users|workspace)\/[\w.-]|\/root\/\./, why: "a path of one machine" },
  { what: /"resolved"\s*:\s*"\w+:/, why: "a package registry of one machine" },
];

/**
 * A sentence for people is not cut in two: the formatter does not, and it is searched for whole.
 */
const LONG_STRING = /["`][^"`]{60,}["`]/;

const files = readTree();
const typescript = [...files.keys()].filter((path) => path.endsWith(".ts"));
const scripts = [...files.keys()].filter((path) => path.endsWith(".mjs"));
const cpp = [...files.keys()].filter((path) => /\.(cc|h)$/.test(path));

test("imports point one way", () => {
  const wrong: string[] = [];
  for (const path of typescript) {
    const [own, allowed] = MAY_IMPORT.find(([place]) => place.test(path)) ?? [];
    if (own === undefined || allowed === undefined) {
      wrong.push(`${path} is in no place that MAY_IMPORT knows`);
      continue;
    }
    for (const target of ownImports(path)) {
      if (!own.test(target) && !allowed.test(target)) wrong.push(`${path} imports ${target}`);
    }
  }
  assert.equal(wrong, []);
});

test("what only named files may use", () => {
  const wrong: string[] = [];
  for (const path of [...typescript, ...cpp].filter((path) => path !== "test/tidy.test.ts")) {
    const code = withoutComments(text(path));
    for (const { what, only, why } of ONLY_IN) {
      const found = what.exec(code);
      if (found !== null && !only.test(path)) wrong.push(`${path}: ${found[0]} (${why})`);
    }
  }
  assert.equal(wrong, []);
});

test("what no file contains", () => {
  const wrong: string[] = [];
  for (const [path, content] of files) {
    content.split("\n").forEach((line, index) => {
      for (const { what, why } of NEVER) {
        if (what.test(line)) wrong.push(`${path}:${index + 1}: ${line.trim()} (${why})`);
      }
    });
  }
  assert.equal(wrong, []);
});

test("lines of code have at most 100 characters", () => {
  const wrong: string[] = [];
  for (const path of [...typescript, ...scripts, ...cpp]) {
    text(path)
      .split("\n")
      .forEach((line, index) => {
        const isLong = [...line].length > 100 && !LONG_STRING.test(line);
        if (isLong) wrong.push(`${path}:${index + 1}`);
      });
  }
  assert.equal(wrong, [], "npm run format wraps comments");
});

test("no file is there for nobody", () => {
  const { bin } = JSON.parse(text("package.json")) as { bin: Record<string, string> };
  const started = Object.values(bin).map((path) => path.replace(/^dist\/(.*)\.js$/, "$1.ts"));
  const used = new Set([...started, ...typescript.flatMap(ownImports)]);
  const scriptText = [...scripts, "package.json"].map(text).join("\n");
  const cmake = text("native/CMakeLists.txt");
  const included = new Set(
    cpp.flatMap((path) => [...text(path).matchAll(/#include "(.+)"/g)].map((match) => match[1])),
  );
  const unused = [
    ...typescript.filter((path) => {
      if (path.endsWith(".test.ts") || used.has(path)) return false;
      // Started as a program: by a script, or by another file of ours.
      const compiled = path.replace(/\.ts$/, ".js");
      const program = `/${compiled.split("/").at(-1)}`;
      const starters = typescript.filter((other) => other !== path);
      return (
        !scriptText.includes(compiled) && !starters.some((other) => text(other).includes(program))
      );
    }),
    ...cpp.filter((path) => path.endsWith(".h") && !included.has(path.split("/").at(-1))),
    ...cpp.filter((path) => {
      const globbed = path.startsWith("native/binding/") || path.endsWith("_test.cc");
      const name = path.replace(/^.*\//, "").replace(/\.cc$/, "");
      const compiled = typescript.some((other) => text(other).includes(`/${name}.cc`));
      const built = globbed || compiled || new RegExp(`\\b${name}\\b`).test(cmake);
      return path.endsWith(".cc") && !built;
    }),
  ];
  assert.equal(unused, []);
});

test("every package is used", () => {
  const { dependencies, devDependencies } = JSON.parse(text("package.json")) as {
    dependencies: Record<string, string>;
    devDependencies: Record<string, string>;
  };
  // Found by others: by cmake-js, by the compiler.
  const implicit = /^(node-api-headers|@types\/.+)$/;
  const all = [...typescript, ...scripts].map(text).join("\n");
  const unused = Object.keys({ ...dependencies, ...devDependencies }).filter(
    (name) => !implicit.test(name) && !new RegExp(`["/]${name}["/]`).test(all),
  );
  assert.equal(unused, []);
});

test("every test that is written is run", () => {
  const wrong: string[] = [];
  for (const path of typescript.filter((path) => path.endsWith(".test.ts"))) {
    const content = text(path);
    const suites = [...content.matchAll(/(\w+) = suite\b/g)].map((match) => match[1]);
    if (/import \{[^}]*\btest\b[^}]*\} from "uvu"/.test(content)) suites.push("test");
    for (const name of suites) {
      if (!content.includes(`${name}.run()`)) wrong.push(`${path}: ${name}.run() is missing`);
      if (new RegExp(`\\b${name}\\.only\\(`).test(content)) wrong.push(`${path}: ${name}.only`);
    }
  }
  assert.equal(wrong, []);
});

test.run();

/** Our text files, by path. */
function readTree(): Map<string, string> {
  const kinds = /\.(ts|mjs|cc|h|json|md|txt|proto|patch|sh|yaml|yml|conf)$|^\.ci\/run$/;
  const ours = /^(engine|native|nvmf|csi|bench|test|scripts|docs|\.ci)\/|^[^/]+$/;
  const found = new Map<string, string>();
  const visit = (folder: string): void => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = join(folder, entry.name);
      if (entry.isDirectory() && ours.test(`${path}/`) && entry.name !== "node_modules") {
        visit(path);
      } else if (entry.isFile() && ours.test(path) && kinds.test(path)) {
        found.set(path, readFileSync(join(root, path), "utf8"));
      }
    }
  };
  visit("");
  return found;
}

function text(path: string): string {
  const content = files.get(path);
  assert.ok(content !== undefined, `no such file: ${path}`);
  return content as string;
}

/** Sources that a file imports, by path, workers (`new URL("./x.js", …)`) included. */
function ownImports(path: string): string[] {
  const specifiers = withoutComments(text(path)).matchAll(/(?:from|import|URL)[ (]*"(\.[^"]+)"/g);
  return [...specifiers]
    .map((match) => normalize(join(dirname(path), match[1] ?? "")).replace(/\.js$/, ".ts"))
    .filter((target) => target.endsWith(".ts") && existsSync(join(root, target)));
}

function withoutComments(code: string): string {
  return code.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "$1");
}
