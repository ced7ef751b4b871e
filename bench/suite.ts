// What a suite is given and what it gives. A suite leaves nothing behind but its result: its files
// are below its folder, which the caller removes, and its processes have ended.
import { spawnSync } from "node:child_process";
import type { RunOptions, SuiteResult } from "./results.js";

export interface SuiteContext extends RunOptions {
  /** Empty, on the file system to be measured; the suite's own. */
  folder: string;
  /** SPDK's nvmf_tgt, if the user has one. */
  spdk: string | null;
  /** One line of progress, for people. */
  say(text: string): void;
  /** Short-lived progress; the next line replaces it. */
  status(text: string): void;
}

export interface Suite {
  name: string;
  /** For the help. */
  describe: string;
  /** Programs without which it cannot run. */
  needs: string[];
  run(context: SuiteContext): Promise<Omit<SuiteResult, "name">>;
}

/** Which of the programs are not there. */
export function missingPrograms(names: readonly string[]): string[] {
  return names.filter((name) => {
    const look = ["-c", 'command -v "$0"', name];
    return spawnSync("sh", look, { stdio: "ignore" }).status !== 0;
  });
}
