// Free blocks of a pool in a real file: a sparse one gives its space back to the file system, one
// that was given all of its space keeps it, unless it is told otherwise.
import { statSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { DiscardMode } from "../../engine/base/config.js";
import { makeLog } from "../../engine/base/log.js";
import { createPool } from "../../engine/core/format.js";
import { openRealPool } from "../../engine/open-pool.js";
import { IO_OP } from "../../native/native.js";
import { temporaryFolder } from "../support/pando.js";

const test = suite("punched file");
const MIB = 2 ** 20;
/** What a file system may need beside the data. */
const SLACK_BYTES = MIB;

const CASES: { sparse: boolean; discard: DiscardMode; state: "on" | "off" }[] = [
  { sparse: true, discard: "auto", state: "on" },
  { sparse: true, discard: "off", state: "off" },
  { sparse: false, discard: "auto", state: "off" },
  { sparse: false, discard: "on", state: "on" },
];

for (const { sparse, discard, state } of CASES) {
  test(`a ${sparse ? "sparse" : "full"} file, discard ${discard}: ${state}`, async () => {
    const folder = temporaryFolder();
    const path = join(folder.path, "pool");
    await createPool(path, { sizeBytes: 24 * MIB, journalBytes: MIB, sparse });
    const log = makeLog("fatal");
    const opened = await openRealPool({ path, metaPath: null, indexCacheBytes: MIB, discard, log });
    const { pool } = opened;
    const takes = () => statSync(join(path, "data")).blocks * 512;
    try {
      await pool.createVolume("db", 16 * MIB);
      await pool.hold("db");
      for (let at = 0; at < 8 * MIB; at += MIB) {
        const { status } = await pool.io("db", IO_OP.write, at, MIB, new Uint8Array(MIB).fill(7));
        assert.is(status, "ok");
      }
      await pool.io("db", IO_OP.flush, 0, 0);
      await pool.checkpoint();
      const before = takes();
      await pool.io("db", IO_OP.discard, 4096, 6 * MIB);
      await pool.checkpoint();
      const given = state === "on" ? 6 * MIB : 0;
      const info = await pool.info();
      assert.equal(info.discard, { state, punchedBytes: given, skippedBytes: 0 });
      assert.ok(Math.abs(before - takes() - given) < SLACK_BYTES, `${before} became ${takes()}`);
      const { data } = await pool.io("db", IO_OP.read, 0, MIB);
      assert.ok(data.every((byte, at) => byte === (at < 4096 ? 7 : 0)));
      await pool.release("db");
      assert.ok((await pool.check()).clean);
    } finally {
      await opened.close();
      folder.remove();
    }
  });
}

test.run();
