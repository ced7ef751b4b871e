// `npm run soak`: runs seeds of the simulator in parallel for as long as it is given, and says how
// much was run and where it has been. A seed that fails is reported, and the rest goes on. Or, in
// place of seeds, all short sequences of operations: `--exhaustive 4`.
import { availableParallelism } from "node:os";
import yargs from "yargs";
import { Reached } from "./reached.js";
import { TRIAL_CUTS } from "./run.js";
import { describeVersion } from "./version.js";
import { runJob } from "./workers.js";

const flags = await yargs(process.argv.slice(2))
  .scriptName("npm run soak --")
  .usage("$0 [--minutes N] [--first SEED] [--processes P] [--exhaustive LENGTH]")
  .option("minutes", { type: "number", default: 10, describe: "no seed is begun after these" })
  .option("first", { type: "number", default: 1, describe: "the first seed" })
  .option("processes", { type: "number", default: availableParallelism(), describe: "in parallel" })
  .option("trial-cuts", {
    type: "number",
    default: 2,
    describe: "of copies of the pool, once in so many turns of a run; 0: none",
  })
  .option("exhaustive", { type: "number", default: 0, describe: "all sequences up to this length" })
  .example("$0 --minutes 60", "an hour on every core")
  .example("$0 --minutes 5 --first 100000", "other seeds than the last time")
  .strict()
  .help()
  .parse();

const SEEDS = 1_000_000_000;
const REPORT_MS = 60_000;
/** Above this many, the sets of survivors at one point are a sample. */
const SETS_PER_POINT = 64;

const totals = {
  seeds: 0,
  sequences: 0,
  operations: 0,
  faults: 0,
  steps: 0,
  powerCuts: 0,
  trialCuts: 0,
  kills: 0,
};
const reached = new Reached();
let failed = 0;
const beginMs = Date.now();
const endMs = beginMs + flags.minutes * 60_000;

console.log(describeVersion());
const what =
  flags.exhaustive > 0
    ? `all sequences of up to ${flags.exhaustive} operations`
    : `${flags.minutes} minutes, from seed ${flags.first}`;
console.log(`${flags.processes} processes, ${what}`);
const reports = setInterval(() => console.log(progress()), REPORT_MS);
const share = flags.exhaustive > 0 ? exploreShare : soak;
await Promise.all(Array.from({ length: flags.processes }, (_, at) => share(flags.first + at)));
clearInterval(reports);

if (flags.exhaustive === 0) console.log(`\n${reached.describe()}`);
console.log(`\n${progress()}`);
process.exitCode = failed > 0 ? 1 : 0;

/** One process's share; another process takes over after a seed that failed. */
async function soak(first: number): Promise<void> {
  const stride = flags.processes;
  for (let next = first; Date.now() < endMs; ) {
    const job = { first: next, stride, seeds: SEEDS, endMs, trialCuts: flags.trialCuts };
    const failure = await runJob(job, (news) => {
      if (news.type !== "end") return;
      totals.seeds++;
      for (const key of [
        "operations",
        "faults",
        "steps",
        "powerCuts",
        "trialCuts",
        "kills",
      ] as const) {
        totals[key] += news.summary[key];
      }
      reached.addAll(news.reached);
    });
    if (failure === null) return;
    failed++;
    console.log(`seed ${failure.seed} FAILS: ${failure.error}`);
    const trials = flags.trialCuts === TRIAL_CUTS ? "" : ` --trial-cuts ${flags.trialCuts}`;
    console.log(`replay: npm run sim -- --seed ${failure.seed}${trials}`);
    next = failure.seed + stride;
  }
}

/** One process's share of all sequences; it ends at the first that fails. */
async function exploreShare(first: number): Promise<void> {
  const exhaustive = { length: flags.exhaustive, setsPerPoint: SETS_PER_POINT };
  const job = { first, stride: flags.processes, seeds: 0, exhaustive };
  const failure = await runJob(job, (news) => {
    if (news.type !== "explored") return;
    totals.sequences += news.tally.sequences;
    totals.powerCuts += news.tally.powerCuts;
    totals.kills += news.tally.kills;
  });
  if (failure === null) return;
  failed++;
  console.log(`FAILS: ${failure.error}`);
}

function progress(): string {
  const seconds = (Date.now() - beginMs) / 1000;
  const { powerCuts: ownCuts, trialCuts, kills, ...others } = totals;
  const powerCuts = ownCuts + trialCuts;
  const done = Object.entries(others).filter(([, count]) => count > 0);
  const work = done.map(([name, count]) => `${count} ${name}`).join(", ");
  const rate = (powerCuts / seconds).toFixed(1);
  return (
    `${seconds.toFixed(0)} s: ${work}, ${powerCuts} power cuts (${rate} a second), ` +
    `${kills} kills, ${failed} failed`
  );
}
