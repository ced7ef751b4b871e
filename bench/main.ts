// npm run bench: measures, compares two measurements, publishes one in docs/performance.md.
import { writeFileSync } from "node:fs";
import { resolve } from "node:path";
import yargs from "yargs";
import { hideBin } from "yargs/helpers";
import { packagePath } from "../engine/base/package-path.js";
import { formatSize, parseSize } from "../engine/base/size.js";
import { compareResults, comparisonText } from "./compare.js";
import { machineText, runText, suiteText } from "./markdown.js";
import { publish } from "./publish.js";
import { type Results, readResults, writeResults } from "./results.js";
import { type Reporter, runSuites } from "./run.js";
import { spdkVersion } from "./subjects/spdk.js";
import type { Suite } from "./suite.js";
import { branchSuite } from "./suites/branch.js";
import { costSuite } from "./suites/cost.js";
import { csiSuite } from "./suites/csi.js";
import { engineSuite } from "./suites/engine.js";
import { idleSuite } from "./suites/idle.js";
import { lineageSuite } from "./suites/lineage.js";
import { nbdSuite } from "./suites/nbd.js";
import { postgresSuite } from "./suites/postgres.js";
import { scaleSuite } from "./suites/scale.js";
import { stallsSuite } from "./suites/stalls.js";
import { streamsSuite } from "./suites/streams.js";
import { systemSuite } from "./suites/system.js";
import { targetSuite } from "./suites/target.js";
import { wakingSuite } from "./suites/waking.js";

const SUITES: Suite[] = [
  ...[engineSuite, costSuite, nbdSuite, targetSuite],
  ...[branchSuite, stallsSuite, postgresSuite, systemSuite],
  ...[csiSuite, wakingSuite, scaleSuite, lineageSuite, streamsSuite, idleSuite],
];
/** To see whether everything works, not to learn anything. */
const QUICK = { size: "64MiB", seconds: 1, rounds: 1, idleSeconds: 2 };
const DEFAULT_TOLERANCE_PERCENT = 5;
const MIN_SECONDS = 0.1;
const MAX_SECONDS = 3600;
const MAX_ROUNDS = 100;

process.exitCode = await main(hideBin(process.argv));

async function main(argv: string[]): Promise<number> {
  let exitCode = 0;
  const suites = SUITES.map(({ name, describe }) => `  ${name.padEnd(8)} ${describe}`).join("\n");
  const parser = yargs(argv)
    .scriptName("npm run bench --")
    .usage(`$0 [run] [SUITE..]\n$0 compare OLD NEW\n$0 publish FILE\n\nSuites:\n${suites}`)
    .command(
      ["run [suites..]", "$0"],
      "Measure: the named suites, or all",
      (command) =>
        command
          .positional("suites", {
            type: "string",
            array: true,
            choices: SUITES.map((suite) => suite.name),
          })
          .option("dir", {
            type: "string",
            default: ".pando-bench",
            describe: "Where the files go: a folder on the device to be measured",
          })
          .option("size", {
            type: "string",
            default: "4GiB",
            describe: "Of what is read and written; more than any cache holds",
          })
          .option("seconds", { type: "number", default: 5, describe: "Of each measurement" })
          .option("rounds", { type: "number", default: 3, describe: "The median counts" })
          .option("idle-seconds", {
            type: "number",
            default: 60,
            describe: "How long the suite idle watches what does nothing",
          })
          .option("spdk", {
            type: "string",
            describe: "A build of SPDK's nvmf_tgt, to be measured beside ours by the suite target",
          })
          .option("quick", {
            type: "boolean",
            default: false,
            describe: `Only see that it works: ${QUICK.size}, ${QUICK.seconds} s, one round`,
          })
          .option("out", { type: "string", describe: "Write the results to this file, as JSON" })
          .option("publish", {
            type: "boolean",
            default: false,
            describe: "Put them into docs/performance.md, too",
          })
          .example("$0 --dir /mnt/nvme --size 16GiB --publish", "Everything, on a disk of yours")
          .example("$0 engine --quick", "Whether it runs here"),
      async (args) => {
        const quick = args.quick ? QUICK : {};
        const { size, seconds, rounds, idleSeconds } = { ...args, ...quick };
        const options = {
          sizeBytes: checkedSize(size),
          seconds: checkedSeconds("seconds", seconds),
          rounds: checkedRounds(rounds),
          idleSeconds: checkedSeconds("idle-seconds", idleSeconds),
        };
        const names = args.suites ?? [];
        const chosen = SUITES.filter(({ name }) => names.length === 0 || names.includes(name));
        const folder = resolve(args.dir);
        const { spdk = null } = args;
        if (spdk !== null) spdkVersion(spdk);
        const all = { ...options, folder, spdk };
        const results = await runSuites(chosen, all, terminalReporter());
        if (args.out !== undefined) writeFileSync(args.out, writeResults(results));
        print(results);
        if (args.publish) publishResults(results);
      },
    )
    .command(
      "compare <old> <new>",
      "Name the figures of NEW that are worse than OLD's by more than their noise; exit code 1 if there are any",
      (command) =>
        command
          .positional("old", { type: "string", demandOption: true })
          .positional("new", { type: "string", demandOption: true })
          .option("tolerance", {
            type: "number",
            default: DEFAULT_TOLERANCE_PERCENT,
            describe: "Percent that are noise in any case",
          }),
      (args) => {
        const [before, after] = [readResults(args.old), readResults(args.new)];
        const comparison = compareResults(before, after, args.tolerance / 100);
        process.stdout.write(`${comparisonText(comparison)}\n`);
        if (comparison.changes.some(({ verdict }) => verdict === "worse")) exitCode = 1;
      },
    )
    .command(
      "publish <file>",
      "Put results into docs/performance.md, with their plots; other suites stay there",
      (command) => command.positional("file", { type: "string", demandOption: true }),
      (args) => publishResults(readResults(args.file)),
    )
    .strict()
    .fail((message, error) => {
      throw error ?? new Error(message);
    });
  try {
    await parser.parseAsync();
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    process.stderr.write(`error: ${text}\n`);
    return 1;
  }
  return exitCode;
}

function checkedSize(text: string): number {
  const sizeBytes = parseSize(text);
  if (sizeBytes % 2 ** 20 !== 0 || sizeBytes < 32 * 2 ** 20) {
    throw new Error(`--size ${formatSize(sizeBytes)}: whole MiB, at least 32 of them`);
  }
  return sizeBytes;
}

function checkedSeconds(flag: string, seconds: number): number {
  if (!(seconds >= MIN_SECONDS && seconds <= MAX_SECONDS)) {
    throw new Error(`--${flag} ${seconds}: ${MIN_SECONDS} to ${MAX_SECONDS}`);
  }
  return seconds;
}

function checkedRounds(rounds: number): number {
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > MAX_ROUNDS) {
    throw new Error(`--rounds ${rounds}: a whole number, 1 to ${MAX_ROUNDS}`);
  }
  return rounds;
}

function publishResults(results: Results): void {
  for (const path of publish(results, packagePath("docs"))) {
    process.stderr.write(`wrote ${path}\n`);
  }
}

function print(results: Results): void {
  const suites = results.suites.map((suite) => suiteText({ ...suite, plots: [] }, () => ""));
  process.stdout.write(`${[machineText(results), runText(results), ...suites].join("\n\n")}\n`);
}

function terminalReporter(): Reporter {
  const { stderr } = process;
  const clear = stderr.isTTY ? "\r\x1b[K" : "";
  return {
    say: (text) => void stderr.write(`${clear}${text}\n`),
    status: (text) => {
      if (stderr.isTTY)
        stderr.write(`${clear}  ${text.slice(0, Math.max(20, stderr.columns - 3))}`);
    },
  };
}
