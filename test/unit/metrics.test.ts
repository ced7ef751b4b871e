// One scrape as text, and what /readyz says of a pool that takes no more writes.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { makeLog } from "../../engine/base/log.js";
import { startHttpServer } from "../../engine/serve/http.js";
import { renderMetrics } from "../../engine/serve/metrics.js";
import type { PoolPlace } from "../../engine/serve/pools.js";
import { FakePool } from "../support/fake-pool.js";

const placeOf = (pool: FakePool, name: string | null = null): PoolPlace => ({
  name,
  path: "/p",
  pool,
  places: { advertise: [], nvmet: null, nbdSocket: null },
});

test("the pool's gauges, the engine's counters, and a series for open volumes only", async () => {
  const pool = new FakePool("/p");
  for (const name of ["db", "idle"]) await pool.createVolume(name, 8192);
  pool.open("db", { frontEnd: "nvme-tcp", hostNqn: "nqn.2014-08.org.example:a", count: 2 });
  pool.open("db", { frontEnd: "nvme-tcp", hostNqn: "nqn.2014-08.org.example:b", count: 1 });
  const text = await renderMetrics([
    { name: null, info: await pool.info(), open: await pool.listOpenVolumes() },
  ]);
  for (const line of [
    "# TYPE pando_pool_used_bytes gauge",
    "pando_pool_used_bytes 4096",
    "pando_pool_writable 1",
    "pando_journal_used_bytes 8192",
    "# TYPE pando_journal_commits_total counter",
    "pando_journal_commits_total 7",
    "pando_reads_inherited_total 3",
    'pando_volume_size_bytes{volume="db"} 8192',
    'pando_volume_sessions{volume="db",front_end="nvme-tcp"} 3',
  ]) {
    assert.ok(text.split("\n").includes(line), `${line} is not in:\n${text}`);
  }
  assert.not.match(text, /idle/);
  assert.not.match(text, /nqn/);
});

test("a counter that is there twice under two spellings fails no scrape", async () => {
  const info = await new FakePool("/p").info();
  const counters = { indexMisses: 1, index_misses: 2, "9lives": 3 };
  const text = await renderMetrics([{ name: null, info: { ...info, counters }, open: [] }]);
  assert.match(text, "\npando_index_misses_total 3\n");
  assert.match(text, "\npando_9lives_total 3\n");
});

test("not ready once the pool has failed, alive all the same", async () => {
  const pool = new FakePool("/p");
  pool.failure = "the journal cannot be written";
  const address = { host: "127.0.0.1", port: 0 };
  const server = await startHttpServer({ pools: [placeOf(pool)], address, log: makeLog("fatal") });
  try {
    const get = (path: string) =>
      fetch(`http://127.0.0.1:${server.port}${path}`, { headers: { connection: "close" } });
    const ready = await get("/readyz");
    assert.is(ready.status, 503);
    assert.is(await ready.text(), "the journal cannot be written\n");
    assert.is((await get("/healthz")).status, 200);
    assert.match(await (await get("/metrics")).text(), "\npando_pool_writable 0\n");
  } finally {
    await server.close();
  }
});

test("several pools have a label each, and one that is not there is said to be unwritable", async () => {
  const info = await new FakePool("/p").info();
  const text = await renderMetrics([
    { name: "fast", info, open: [] },
    { name: "bulk", info: { ...info, usedBytes: 8192 }, open: [] },
    { name: "lost", info: null, open: [] },
  ]);
  for (const line of [
    'pando_pool_used_bytes{pool="fast"} 4096',
    'pando_pool_used_bytes{pool="bulk"} 8192',
    'pando_journal_commits_total{pool="bulk"} 7',
    'pando_pool_writable{pool="fast"} 1',
    'pando_pool_writable{pool="lost"} 0',
  ]) {
    assert.ok(text.split("\n").includes(line), `${line} is not in:\n${text}`);
  }
  assert.not.match(text, /used_bytes\{pool="lost"/);
});

test("ready as long as one of several pools takes writes", async () => {
  const [fast, bulk] = [new FakePool("/fast"), new FakePool("/bulk")];
  const lost = { name: "lost", path: "/lost", failure: new Error("the device is away") };
  const pools = [placeOf(fast, "fast"), placeOf(bulk, "bulk"), lost];
  const address = { host: "127.0.0.1", port: 0 };
  const server = await startHttpServer({ pools, address, log: makeLog("fatal") });
  const ready = async () => {
    const headers = { connection: "close" };
    const reply = await fetch(`http://127.0.0.1:${server.port}/readyz`, { headers });
    return `${reply.status} ${await reply.text()}`;
  };
  try {
    assert.is(await ready(), "200 the pool lost is not served: the device is away\n");
    fast.failure = "the journal cannot be written";
    assert.match(await ready(), /^200 the journal cannot be written\n/);
    bulk.failure = "so it is here";
    assert.match(await ready(), /^503 /);
  } finally {
    await server.close();
  }
});

test.run();
