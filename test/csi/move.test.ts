// A pod with Postgres moves to a second compute node while the first one still has its volume
// mounted and writes to it: what was committed is there, and nothing comes from the first node any
// more.
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { skip } from "../support/skip.js";
import {
  initCluster,
  postgresPrograms,
  query,
  startCluster,
  startQueries,
  stopCluster,
} from "../system/guest-postgres.js";
import { timed } from "../system/timed.js";
import type { Vm } from "../system/vm/vm.js";
import { type CsiWorld, csiSkipReason, playScenario, startCsiWorld } from "./world.js";

const OTHER_NODE = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-0000000000bb";
/** The pod's, on either node. */
const CLUSTER = { mountPoint: "/tmp/csi/moving/target", port: 5432 };
const ROWS_BEFORE_MOVE = 20;

const missing = await csiSkipReason(postgresPrograms);
if (missing !== null) skip(missing);

let world: CsiWorld;
let first: Vm;
let second: Vm;

test.before(async () => {
  world = await startCsiWorld("csi-move");
  first = world.vm;
  second = await world.addNode("csi-move-second", OTHER_NODE);
});

test.after(() => world?.close());

const play = (vm: Vm, step: string) => playScenario(world, vm, { scenario: `move: ${step}` });

test("a pod moves to a second node, and the first one is fenced", async () => {
  await play(first, "begins");
  await timed("Postgres runs on the first node", async () => {
    await initCluster(first, CLUSTER);
    await startCluster(first, CLUSTER);
    await query(first, CLUSTER, "create table counted (n int);");
  });
  // One row a transaction, each told when it is committed.
  const rows = 'seq 1000000 | sed "s/.*/insert into counted values (&) returning n;/"';
  const counting = startQueries(first, CLUSTER, rows);
  let counts = true;
  counting.done.finally(() => {
    counts = false;
  });
  while (counts && counted(await counting.stdout()) < ROWS_BEFORE_MOVE) await sleep(100);
  assert.ok(counts, await counting.stderr());
  await play(second, "takes over");
  const { status, stdout } = await counting.done;
  assert.is.not(status, 0, "the first node's Postgres commits no more");
  const committed = counted(stdout);
  await timed("Postgres runs on the second node", async () => {
    await second.must(`rm ${CLUSTER.mountPoint}/data/postmaster.pid`);
    await startCluster(second, CLUSTER);
  });
  const rowsThere = () => query(second, CLUSTER, "select count(*), max(n) from counted;");
  const found = await rowsThere();
  // The last one may have been committed without anybody hearing of it.
  const possible = [committed, committed + 1].map((count) => `${count}|${count}`);
  assert.ok(possible.includes(found), `${found} rows, and ${committed} were told`);
  await first.run("pkill -9 postgres; sleep 1");
  await play(first, "is fenced");
  assert.is(await rowsThere(), found, "nothing came from the first node");
  await stopCluster(second, CLUSTER);
  await play(second, "ends");
});

test.run();

/** The last row that was told. */
function counted(told: string): number {
  return Number(told.trimEnd().split("\n").at(-1));
}
