// `npm run soak`: runs seeds of the simulator in parallel for as long as it is given, and says how
// much was run and where it has been. A seed that fails is reported, and the rest goes on.
import { availableParallelism } from "node:os";
import yargs from "yargs";
import { Reached } from "./reached.js";
import { describeVersion } from "./version.js";
import { runJob } from "./workers.js";

const flags = await yargs(process.argv.slice(2))
  .scriptName("npm run soak --")
  .usage("$0 [--minutes N] [--first SEED] [--processes P]")
  .option("minutes", { type: "number", default: 10, describe: "no seed is begun after these" })
  .option("first", { type: "number", default: 1, describe: "the first seed" })
  .option("processes", { type: "number", default: availableParallelism(), describe: "in parallel" })
  .example("$0 --minutes 60", "an hour on every core")
  .example("$0 --minutes 5 --first 100000", "other seeds than the last time")
  .strict()
  .help()
  .parse();

const SEEDS = 1_000_000_000;
const REPORT_MS = 60_000;

const totals = { seeds: 0, operations: 0, faults: 0, steps: 0, powerCuts: 0, kills: 0 };
const reached = new Reached();
const failed: number[] = [];
const beginMs = Date.now();
const endMs = beginMs + flags.minutes * 60_000;

console.log(describeVersion());
console.log(`${flags.processes} processes, ${flags.minutes} minutes, from seed ${flags.first}`);
const reports = setInterval(() => console.log(progress()), REPORT_MS);
await Promise.all(Array.from({ length: flags.processes }, (_, at) => soak(flags.first + at)));
clearInterval(reports);

console.log(`\n${reached.describe()}\n\n${progress()}`);
if (failed.length > 0) console.log(`failed seeds: ${failed.join(", ")}`);
process.exitCode = failed.length > 0 ? 1 : 0;

/** One process's share; another process takes over after a seed that failed. */
async function soak(first: number): Promise<void> {
  const stride = flags.processes;
  for (let next = first; Date.now() < endMs; ) {
    const job = { first: next, stride, seeds: SEEDS, endMs };
    const failure = await runJob(job, (news) => {
      if (news.type !== "end") return;
      totals.seeds++;
      for (const key of ["operations", "faults", "steps", "powerCuts", "kills"] as const) {
        totals[key] += news.summary[key];
      }
      reached.addAll(news.reached);
    });
    if (failure === null) return;
    failed.push(failure.seed);
    console.log(`seed ${failure.seed} FAILS: ${failure.error}`);
    console.log(`replay: npm run sim -- --seed ${failure.seed}`);
    next = failure.seed + stride;
  }
}

function progress(): string {
  const seconds = (Date.now() - beginMs) / 1000;
  const { seeds, operations, steps, powerCuts, kills, faults } = totals;
  const rate = (powerCuts / seconds).toFixed(1);
  return (
    `${seconds.toFixed(0)} s: ${seeds} seeds, ${operations} operations, ${steps} steps, ` +
    `${faults} faults, ${powerCuts} power cuts (${rate} a second), ${kills} kills, ` +
    `${failed.length} failed`
  );
}
