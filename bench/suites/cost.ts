// What one request costs the engine in what does not depend on the machine's noise: instructions,
// allocations, system calls. A program of the C++ tests runs the engine alone under a load of so
// many requests; the difference between a short and a long run is that of the requests.
import { execFile } from "node:child_process";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { packagePath } from "../../engine/base/package-path.js";
import { formatSize } from "../../engine/base/size.js";
import { TableBuilder } from "../results.js";
import { countInstructions, countSystemCalls } from "../subjects/counted-program.js";
import { missingPrograms, type Suite } from "../suite.js";

const PROGRAM = "engine_cost";
const FILE_BYTES = 512 * 2 ** 20;

interface Requests {
  /** Of the program's. */
  kind: string;
  name: string;
  blockBytes: number;
  depth: number;
  short: number;
  long: number;
}

const SMALL = { blockBytes: 4096, short: 2000, long: 6000 };
const LARGE = { blockBytes: 128 * 1024, depth: 8, short: 200, long: 600 };
const KINDS: Requests[] = [
  ...[1, 32].flatMap((depth): Requests[] => [
    { kind: "randread", name: "random read", depth, ...SMALL },
    { kind: "randwrite", name: "random write in place", depth, ...SMALL },
    { kind: "firstwrite", name: "random first write", depth, ...SMALL },
  ]),
  { kind: "read", name: "sequential read", ...LARGE },
  { kind: "write", name: "sequential write in place", ...LARGE },
];

export const costSuite: Suite = {
  name: "cost",
  describe: "instructions, allocations and system calls of a request to the engine",
  needs: [],
  async run(context) {
    const missing = missingPrograms(["valgrind", "strace", "cmake"]);
    if (missing.length > 0) {
      const absent = `the cost of a request: these programs are missing: ${missing.join(", ")}`;
      return { tables: [], plots: [], absent: [absent] };
    }
    context.status("building the program");
    const program = join(await build(), PROGRAM);
    const file = join(context.folder, "data");
    writeFileSync(file, "");
    truncateSync(file, FILE_BYTES);
    const metrics = ["instructions", "allocations", "system calls"];
    const table = new TableBuilder({
      id: "cost",
      title: "What a request costs the engine",
      metrics: metrics.map((name) => ({ name, unit: "", better: "lower", relative: true })),
    });
    for (const { kind, name, blockBytes, depth, short, long } of KINDS) {
      const row = `${name} ${formatSize(blockBytes)}, depth ${depth}`;
      context.status(row);
      const command = (requests: number) => {
        return [program, file, kind, `${blockBytes}`, `${depth}`, `${requests}`];
      };
      const perRequest = async (count: (command: readonly string[]) => Promise<number>) => {
        const [few, many] = [await count(command(short)), await count(command(long))];
        return Math.max(0, many - few) / (long - short);
      };
      const instructions = await perRequest(countInstructions);
      const allocations = await perRequest(countAllocations);
      table.add(row, "engine", [instructions, allocations, await perRequest(countSystemCalls)]);
      context.say(`${row}: ${instructions.toFixed(0)} instructions`);
    }
    const note =
      "Instructions in user mode, with those of the load that asks. The system calls are those of a " +
      "run that strace slows down.";
    return { tables: [table.build(note)], plots: [], absent: [] };
  },
};

/** Returns the folder of the C++ programs. */
async function build(): Promise<string> {
  const script = pathToFileURL(packagePath("scripts/build-native.mjs")).href;
  const source = `import { buildTests, testsDirectory } from ${JSON.stringify(script)};
    buildTests({ targets: [${JSON.stringify(PROGRAM)}] });
    process.stdout.write(testsDirectory());`;
  const args = ["--input-type=module", "--eval", source];
  return (await promisify(execFile)(process.execPath, args)).stdout;
}

async function countAllocations([program = "", ...args]: readonly string[]): Promise<number> {
  const { stdout } = await promisify(execFile)(program, args);
  return (JSON.parse(stdout) as { allocations: number }).allocations;
}
