// `npm run sim`: runs seeds of the simulator, and makes one that fails shorter.
import yargs from "yargs";
import { FAULTS, type Fault, type FaultRates } from "./faults.js";
import { formatRanges } from "./ranges.js";
import { OPERATIONS, TRIAL_CUTS } from "./run.js";
import { type Masks, shrink } from "./shrink.js";
import { describeVersion } from "./version.js";
import type { Job } from "./worker.js";
import { type Failure, runJob } from "./workers.js";

const kebab = (name: string): string => name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`);
const FAULT_NAMES = Object.keys(FAULTS) as Fault[];

const command = yargs(process.argv.slice(2))
  .scriptName("npm run sim --")
  .usage("$0 --seed N [--seeds M] [--ops K] [fault rates]")
  .option("seed", { type: "number", default: 1, describe: "the first seed" })
  .option("seeds", { type: "number", default: 1, describe: "how many, one after the other" })
  .option("ops", { type: "number", default: OPERATIONS, describe: "operations of a run" })
  .option("trial-cuts", {
    type: "number",
    default: TRIAL_CUTS,
    describe: "of a copy of the pool, once in so many turns; 0: none",
  })
  .option("skip-ops", { type: "string", default: "", describe: "leave these out, like 0-11,13" })
  .option("skip-faults", { type: "string", default: "", describe: "leave these out" })
  .option("shrink-minutes", { type: "number", default: 3, describe: "for a failing run; 0: not" })
  .option("verbose", { type: "boolean", default: false, describe: "every line of the log" })
  .example("$0 --seed 17", "one run")
  .example("$0 --seed 1 --seeds 500", "until one fails")
  .example("$0 --seed 17 --power-cut 20 --data-error 0", "with other faults than the seed's")
  .example("$0 --seed 17 --skip-ops 0-11,13 --verbose", "what a failing run was shortened to")
  .strict()
  .help();
for (const fault of FAULT_NAMES) {
  command.option(kebab(fault), {
    type: "number",
    describe: `once in so many, 0: never; ${FAULTS[fault]}`,
    group: "Faults (by default the seed decides):",
  });
}
const flags = await command.parse();

const rates: Partial<FaultRates> = {};
for (const fault of FAULT_NAMES) {
  const given = flags[kebab(fault)];
  if (typeof given === "number") rates[fault] = given;
}
const { seed: first, ops, trialCuts } = flags;
for (const [name, value] of Object.entries({ ...rates, seed: first, ops, trialCuts })) {
  if (Number.isSafeInteger(value) && value >= 0) continue;
  console.error(`error: --${kebab(name)} is a whole number, not ${value}`);
  process.exit(1);
}

console.log(describeVersion());
const job: Job = {
  first: flags.seed,
  stride: 1,
  seeds: flags.seeds,
  operations: flags.ops,
  trialCuts: flags.trialCuts,
  rates,
  skippedOperations: flags.skipOps,
  skippedFaults: flags.skipFaults,
  verbose: flags.verbose,
};
const failure = await runJob(job, (news) => {
  if (news.type === "begin" && !flags.verbose) console.log(news.text);
  if (news.type === "line") console.log(news.text);
  if (news.type === "end") console.log(`seed ${news.seed}: ok ${JSON.stringify(news.summary)}`);
});
if (failure !== null) {
  console.log(`\nseed ${failure.seed} FAILS: ${failure.error}`);
  console.log(`\nreplay: ${replay(failure.seed, flags.skipOps, flags.skipFaults)}`);
  const masked = flags.skipOps !== "" || flags.skipFaults !== "";
  if (!masked && flags.shrinkMinutes > 0) await shorten(failure);
  process.exitCode = 1;
}

async function shorten({ seed, summary }: Failure): Promise<void> {
  console.log(`shrinking, for up to ${flags.shrinkMinutes} minutes`);
  const one = { ...job, first: seed, seeds: 1, verbose: false };
  const jobOf = ({ operations, faults }: Masks): Job => ({
    ...one,
    skippedOperations: formatRanges(operations),
    skippedFaults: formatRanges(faults),
  });
  // Of a process that died nobody knows how far it came: everything is tried.
  const sizes = {
    operations: summary?.operations ?? 3 * flags.ops,
    faults: summary?.faults ?? 500,
  };
  let error = "";
  const { skipped, attempts } = await shrink({
    sizes,
    endMs: Date.now() + flags.shrinkMinutes * 60_000,
    fails: async (masks) => {
      const found = await runJob(jobOf(masks), () => undefined);
      if (found !== null) error = found.error;
      return found !== null;
    },
  });
  const left = sizes.operations - skipped.operations.size;
  const faults = sizes.faults - skipped.faults.size;
  const { skippedOperations = "", skippedFaults = "" } = jobOf(skipped);
  console.log(`after ${attempts} attempts: ${left} operations and ${faults} faults are left`);
  if (error !== "") console.log(`it FAILS: ${error}`);
  console.log(`replay: ${replay(seed, skippedOperations, skippedFaults)} --verbose`);
}

function replay(seed: number, skipOps: string, skipFaults: string): string {
  const given = Object.entries(rates).map(([fault, rate]) => ` --${kebab(fault)} ${rate}`);
  const ops = flags.ops === OPERATIONS ? "" : ` --ops ${flags.ops}`;
  const trials = flags.trialCuts === TRIAL_CUTS ? "" : ` --trial-cuts ${flags.trialCuts}`;
  const masks = [
    skipOps === "" ? "" : ` --skip-ops ${skipOps}`,
    skipFaults === "" ? "" : ` --skip-faults ${skipFaults}`,
  ];
  return `npm run sim -- --seed ${seed}${ops}${trials}${given.join("")}${masks.join("")}`;
}
