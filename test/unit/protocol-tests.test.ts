// Every command, feature, log page, property, structure and error of the NVMe/TCP target has a row
// in docs/nvme.md with its section of the specification, and the tests that the row names are there
// and name it.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packagePath } from "../../engine/base/package-path.js";

const ENUMS: Record<string, string> = {
  AdminOpcode: "nvme_spec.h",
  FabricsType: "nvme_spec.h",
  IoOpcode: "nvme_spec.h",
  Property: "nvme_spec.h",
  Feature: "nvme_spec.h",
  LogPage: "nvme_spec.h",
  Status: "nvme_spec.h",
  IdentifyCns: "nvme_identify_data.h",
  FatalError: "nvme_pdu.h",
};
/** What the tests' host has a word of its own for. */
const WORDS: Record<string, string> = {
  "AdminOpcode::kGetLogPage": "log_page(",
  "AdminOpcode::kIdentify": "identify(",
  "FabricsType::kConnect": "connect(",
  "FabricsType::kPropertyGet": "property_get(",
  "FabricsType::kPropertySet": "property_set(",
  "IoOpcode::kRead": ".read(",
  "IoOpcode::kWrite": ".write(",
};
const SECTION = /^(Base|NVM|TCP) \d+(\.\d+)+$/;

interface Row {
  enumName: string;
  name: string;
  code: number;
  section: string;
  tests: string[];
  linux: string;
}

const rows = readRows();

for (const [enumName, header] of Object.entries(ENUMS)) {
  test(`${enumName}: what the target knows is in its table, each once`, () => {
    const documented = rows.filter((row) => row.enumName === enumName);
    assert.equal(
      documented.map(({ name, code }) => [name, code]),
      enumerators(header, enumName),
    );
  });
}

test("each row has a section, and tests that run and name it", () => {
  const problems: string[] = [];
  for (const { enumName, name, section, tests } of rows) {
    if (!SECTION.test(section)) problems.push(`${name}: ${section} is no section`);
    if (tests.length === 0) problems.push(`${name} has no test`);
    const full = `${enumName}::k${name}`;
    const wanted = [full, ...(WORDS[full] === undefined ? [] : [WORDS[full]])];
    for (const named of tests) {
      const body = bodyOf(named);
      if (body === null) problems.push(`${name}: there is no ${named}, or it is not run`);
      else if (!wanted.some((word) => body.includes(word))) {
        problems.push(`${name}: ${named} does not name it`);
      }
    }
  }
  assert.equal(problems, []);
});

test("what a Linux host is said to show is in the test that is named", () => {
  const problems = rows.flatMap(({ name, linux }) => {
    if (linux === "-") return [];
    const [file = "", ...rest] = linux.split(": ");
    const tail = file === "hundred-volumes" ? "" : ".test";
    const text = read("test/system", `${file}${tail}.ts`);
    return text.includes(rest.join(": ")) ? [] : [`${name}: ${linux}`];
  });
  assert.equal(problems, []);
});

test.run();

function readRows(): Row[] {
  let enumName = "";
  return read("docs", "nvme.md")
    .split("\n")
    .flatMap((line): Row[] => {
      const heading = /^\| `(\w+)` \| code \|/.exec(line);
      if (heading !== null) enumName = heading[1] as string;
      const cells = line.split("|").map((cell) => cell.trim());
      if (!/^0x[0-9a-f]+$/.test(cells[2] ?? "")) return [];
      const [, name = "", code = "", section = "", , tests = "", linux = ""] = cells;
      return [{ enumName, name, code: Number(code), section, tests: tests.split(", "), linux }];
    });
}

/** Names without their k, and values. */
function enumerators(header: string, enumName: string): [string, number][] {
  const body = new RegExp(`enum class ${enumName} : \\w+ \\{([^}]*)\\}`).exec(
    read("native/src", header),
  )?.[1];
  assert.ok(body !== undefined, `${header} has ${enumName}`);
  return [...body.matchAll(/^\s*k(\w+) = (0x[0-9A-Fa-f]+),/gm)].map((match) => [
    match[1] as string,
    Number(match[2]),
  ]);
}

/** `FILE: FUNCTION`; null if main() does not call it. */
function bodyOf(named: string): string | null {
  const [file = "", name = ""] = named.split(": ");
  const text = read("native/test", `${file}.cc`);
  const main = text.slice(text.indexOf("int main("));
  const body = new RegExp(`^void ${name}\\([^)]*\\) \\{\n(.*?)^\\}`, "ms").exec(text)?.[1];
  return body === undefined || !main.includes(`${name}(`) ? null : body;
}

function read(...path: string[]): string {
  return readFileSync(packagePath(join(...path)), "utf8");
}
