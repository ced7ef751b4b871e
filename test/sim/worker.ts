// A process that runs seeds and tells its parent: the data path aborts the process when it finds
// itself wrong, so whoever wants to go on after a failure runs seeds in another one.
import { BASES, explore, newTally, sequencesOf, type Tally } from "./exhaustive.js";
import type { FaultRates } from "./faults.js";
import { parseRanges } from "./ranges.js";
import { type Goal, Reached } from "./reached.js";
import { Run, type Summary } from "./run.js";

/** What the parent asks for, as JSON in the first argument. */
export interface Job {
  first: number;
  /** Every so many seeds. */
  stride: number;
  seeds: number;
  /** No seed is begun after this, by the machine's clock. */
  endMs?: number;
  operations?: number;
  trialCuts?: number;
  rates?: Partial<FaultRates>;
  /** As in ranges.ts. */
  skippedOperations?: string;
  skippedFaults?: string;
  /** Tell every line. */
  verbose?: boolean;
  /** In place of seeds: every `stride`th sequence of operations from number `first` on. */
  exhaustive?: { length: number; setsPerPoint: number };
}

export type News =
  | { type: "begin"; seed: number; text: string }
  | { type: "line"; text: string }
  | { type: "end"; seed: number; summary: Summary; reached: [Goal, number][] }
  | { type: "explored"; tally: Tally }
  | { type: "failed"; seed: number; summary: Summary; error: string };

if (process.send !== undefined) {
  // Without a parent nobody would hear what it finds.
  process.once("disconnect", () => process.exit());
  await work(JSON.parse(process.argv[2] ?? "{}") as Job);
}

async function work(job: Job): Promise<void> {
  if (job.exhaustive === undefined) await runSeeds(job);
  else await exploreAll(job, job.exhaustive);
  process.disconnect();
}

async function runSeeds(job: Job): Promise<void> {
  for (let at = 0; at < job.seeds; at++) {
    if (job.endMs !== undefined && Date.now() > job.endMs) break;
    if (!(await runSeed(job, job.first + at * job.stride))) {
      process.exitCode = 1;
      break;
    }
  }
}

async function exploreAll(
  { first, stride }: Job,
  { length, setsPerPoint }: NonNullable<Job["exhaustive"]>,
): Promise<void> {
  let number = 0;
  for (const base of Object.keys(BASES)) {
    for (let operations = 1; operations <= length; operations++) {
      for (const sequence of sequencesOf(base, operations)) {
        if (number++ % stride !== first % stride) continue;
        const tally = newTally();
        await explore(base, sequence, setsPerPoint, tally);
        send({ type: "explored", tally });
      }
    }
  }
}

async function runSeed(job: Job, seed: number): Promise<boolean> {
  const reached = new Reached();
  const run = new Run(
    {
      seed,
      ...(job.operations !== undefined && { operations: job.operations }),
      ...(job.trialCuts !== undefined && { trialCuts: job.trialCuts }),
      ...(job.rates !== undefined && { rates: job.rates }),
      skippedOperations: parseRanges(job.skippedOperations ?? ""),
      skippedFaults: parseRanges(job.skippedFaults ?? ""),
      ...(job.verbose === true && { tell: (text: string) => send({ type: "line", text }) }),
    },
    reached,
  );
  send({ type: "begin", seed, text: run.describe() });
  try {
    await run.run();
  } catch (error) {
    const text = (error as Error).stack ?? String(error);
    send({ type: "failed", seed, summary: run.summary, error: text });
    return false;
  }
  send({ type: "end", seed, summary: run.summary, reached: reached.entries() });
  return true;
}

function send(news: News): void {
  process.send?.(news);
}
