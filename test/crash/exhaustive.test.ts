// Bounded exhaustive, as much of it as CI has time for: from an empty pool all sequences of up to
// three operations, from one with a snapshot and a clone all of up to two and every twentieth of
// three, and from one with a snapshot alone those of up to two that delete it. `npm run soak --
// --exhaustive 4` runs all of up to four from both.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { explore, newTally, sequencesOf } from "../sim/exhaustive.js";

const test = suite("exhaustive crashes");
const SETS_PER_POINT = 8;

const BOUNDS: { base: string; length: number; oneIn: number; having?: string }[] = [
  { base: "empty", length: 1, oneIn: 1 },
  { base: "empty", length: 2, oneIn: 1 },
  { base: "empty", length: 3, oneIn: 1 },
  { base: "branched", length: 1, oneIn: 1 },
  { base: "branched", length: 2, oneIn: 1 },
  { base: "branched", length: 3, oneIn: 20 },
  { base: "line", length: 1, oneIn: 1, having: "delete snapshot" },
  { base: "line", length: 2, oneIn: 1, having: "delete snapshot" },
];

for (const { base, length, oneIn, having } of BOUNDS) {
  const which = having === undefined ? "" : ` with "${having}"`;
  const share = oneIn === 1 ? "all" : `one in ${oneIn} of`;
  test(`${share} sequences${which} of ${length} from the ${base} pool, crashed everywhere`, async () => {
    const tally = newTally();
    let at = 0;
    for (const sequence of sequencesOf(base, length)) {
      if (having !== undefined && !sequence.includes(having)) continue;
      if (at++ % oneIn === 0) await explore(base, sequence, SETS_PER_POINT, tally);
    }
    console.log(`${base}, length ${length}: ${JSON.stringify(tally)}`);
    assert.ok(tally.sequences > 0 && tally.powerCuts > tally.points, "power was cut everywhere");
  });
}

test.run();
