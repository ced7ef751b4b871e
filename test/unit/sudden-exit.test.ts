// A process that ends with a pool open, by an error that nobody caught or by process.exit(): it
// says what it would have said without one, and the pool opens again.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { makeLog } from "../../engine/base/log.js";
import { createPool } from "../../engine/core/format.js";
import { openRealPool } from "../../engine/open-pool.js";
import { temporaryFolder } from "../support/pando.js";

const test = suite("sudden exit");
const MIB = 2 ** 20;
const OPEN_POOL = new URL("../../engine/open-pool.js", import.meta.url);
const LOG = new URL("../../engine/base/log.js", import.meta.url);

const ENDS = [
  { end: "throw new Error('nobody caught this')", code: 1, said: /nobody caught this/ },
  { end: "process.exit(3)", code: 3, said: /^$/ },
];

for (const { end, code, said } of ENDS) {
  test(end, async () => {
    const folder = temporaryFolder();
    const options = { path: join(folder.path, "pool"), metaPath: null, indexCacheBytes: MIB };
    try {
      await createPool(options.path, { sizeBytes: 8 * MIB, journalBytes: MIB, sparse: true });
      const script = `(async () => {
        const { openRealPool } = await import("${OPEN_POOL}");
        const { makeLog } = await import("${LOG}");
        const options = { ...${JSON.stringify(options)}, log: makeLog("fatal") };
        const { pool } = await openRealPool(options);
        await pool.createVolume("db", 4096);
        await pool.hold("db");
        ${end};
      })()`;
      const { status, signal, stderr } = spawnSync(process.execPath, ["-e", script], {
        encoding: "utf8",
      });
      assert.equal({ status, signal }, { status: code, signal: null }, stderr);
      assert.match(stderr, said);
      assert.not.match(stderr, "assertion failed");
      const opened = await openRealPool({ ...options, log: makeLog("fatal") });
      assert.ok((await opened.pool.check()).clean);
      await opened.close();
    } finally {
      folder.remove();
    }
  });
}

test.run();
