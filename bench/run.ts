// Runs suites one after another, each in a folder of its own that is gone afterwards, and puts
// their results together. What is measured twice would disturb itself: one at a time.
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describeMachine, loadNow } from "./machine.js";
import { RESULTS_FORMAT, type Results, type RunOptions, type SuiteResult } from "./results.js";
import { unmountAll } from "./subjects/mounts.js";
import { killServers } from "./subjects/server-process.js";
import { missingPrograms, type Suite, type SuiteContext } from "./suite.js";

/** As a shell has it for a program that SIGINT ended. */
const CUT_SHORT_EXIT_CODE = 130;

export interface Reporter {
  say(text: string): void;
  status(text: string): void;
}

/** `folder` is made if there is none; only what the run itself makes in it is removed. */
export async function runSuites(
  suites: readonly Suite[],
  options: RunOptions & Pick<SuiteContext, "folder" | "spdk">,
  reporter: Reporter,
): Promise<Results> {
  const { folder, spdk, sizeBytes, seconds, rounds, idleSeconds } = options;
  const figures = { sizeBytes, seconds, rounds, idleSeconds };
  const missing = missingPrograms(suites.flatMap((suite) => suite.needs));
  if (missing.length > 0) throw new Error(`these programs are missing: ${missing.join(", ")}`);
  mkdirSync(folder, { recursive: true });
  const started = new Date();
  const machine = describeMachine(folder);
  const results: SuiteResult[] = [];
  const own = new Set<string>();
  const clean = (): void => {
    killServers();
    unmountAll();
    for (const path of own) rmSync(path, { recursive: true, force: true });
  };
  const cut = (): void => process.exit(CUT_SHORT_EXIT_CODE);
  process.once("exit", clean);
  process.once("SIGINT", cut);
  process.once("SIGTERM", cut);
  try {
    for (const suite of suites) {
      const place = join(folder, `pando-bench-${suite.name}`);
      rmSync(place, { recursive: true, force: true });
      mkdirSync(place);
      own.add(place);
      reporter.say(`${suite.name}: ${suite.describe}`);
      const context = { ...figures, folder: place, spdk, ...reporter };
      results.push({ name: suite.name, ...(await suite.run(context)) });
      rmSync(place, { recursive: true, force: true });
    }
  } finally {
    process.removeListener("exit", clean);
    process.removeListener("SIGINT", cut);
    process.removeListener("SIGTERM", cut);
    clean();
  }
  return {
    format: RESULTS_FORMAT,
    startedAt: started.toISOString(),
    seconds: Math.round((Date.now() - started.getTime()) / 1000),
    machine: { ...machine, loadAfter: loadNow() },
    options: figures,
    suites: results,
  };
}
