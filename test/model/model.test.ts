// The simulator's runs in CI: as many seeds as fit, some of them twice, and the two logs must be
// the same byte for byte. Together they have to have been everywhere that a run means to go. More
// of them, other faults, a failing run made shorter: `npm run sim -- --help`.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Reached } from "../sim/reached.js";
import { Run } from "../sim/run.js";

const SEEDS = 60;
/** One in so many is run twice. */
const TWICE = 3;

const test = suite("model");

test("random operations, crashes and faults, by seed; the same seed gives the same run", async () => {
  const reached = new Reached();
  for (let seed = 1; seed <= SEEDS; seed++) {
    const first = await logOf(seed, reached);
    if (seed % TWICE !== 0) continue;
    assert.is(await logOf(seed, new Reached()), first, `seed ${seed} ran differently`);
  }
  console.log(reached.describe());
  assert.equal(reached.missed(), [], "never reached");
});

async function logOf(seed: number, reached: Reached): Promise<string> {
  const lines: string[] = [];
  const run = new Run({ seed, tell: (line) => lines.push(line) }, reached);
  try {
    await run.run();
  } catch (error) {
    console.log(`${run.describe()}\nreplay: npm run sim -- --seed ${seed}`);
    throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
  }
  return lines.join("\n");
}

test.run();
