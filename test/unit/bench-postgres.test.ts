// What pgbench says, of the releases that there are.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { parsePgbench } from "../../bench/subjects/postgres.js";

const REPORT = `pgbench (15.6)
starting vacuum...end.
transaction type: <builtin: TPC-B (sort of)>
scaling factor: 16
query mode: simple
number of clients: 8
number of threads: 1
maximum number of tries: 1
duration: 5 s
number of transactions actually processed: 1234
number of failed transactions: 0 (0.000%)
latency average = 32.457 ms
initial connection time = 12.345 ms
tps = 246.487654 (without initial connection time)
`;

test("the figures are those without the time that connecting took", () => {
  const expected = { transactions: 1234, tps: 246.487654, latencyMs: 32.457 };
  assert.equal(parsePgbench(REPORT), expected);
  const older = REPORT.replace(
    "tps",
    "tps = 1.5 (including connections establishing)\ntps",
  ).replace("without initial connection time", "excluding connections establishing");
  assert.equal(parsePgbench(older), expected);
});

test("transactions that failed, or a report that says nothing, are no figures", () => {
  const failed = REPORT.replace("transactions: 0", "transactions: 3");
  assert.throws(() => parsePgbench(failed), /3 transactions failed/);
  assert.throws(() => parsePgbench("pgbench: error"), /has no transactions:\npgbench: error/);
});

test.run();
