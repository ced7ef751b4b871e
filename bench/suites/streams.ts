// A volume on its way to another pool: what `volume send` and `volume receive` move in a second,
// through a file, beside `cp` of as many bytes on the same file system. What is read comes from the
// device, and what is written is there when the clock stops.
import { execFile } from "node:child_process";
import { createReadStream, createWriteStream, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { receiveStream } from "../../engine/cli/receive.js";
import { sendSnapshot } from "../../engine/cli/send.js";
import { native } from "../../native/native.js";
import { TableBuilder } from "../results.js";
import { servePando } from "../subjects/pando.js";
import { makeRaw } from "../subjects/qemu.js";
import type { Suite } from "../suite.js";
import { FILL, runFioLoad } from "../workload.js";

const run = promisify(execFile);
const VOLUME = "bench";
const SNAPSHOT = "sent";
const POOL_OVERHEAD_BYTES = 256 * 1024 * 1024;
const MIB = 1024 * 1024;
const { crc32c: checksum } = native;

export const streamsSuite: Suite = {
  name: "streams",
  describe: "sending and receiving a whole volume, beside cp",
  needs: ["fio", "cp", "dd"],
  async run(context) {
    const { folder, sizeBytes } = context;
    const table = new TableBuilder({
      id: "streams",
      title: "A whole volume, through a file",
      metrics: [
        { name: "MiB/s", unit: "", better: "higher", relative: false },
        { name: "of cp", unit: "", better: "higher", relative: true },
      ],
    });
    const raw = join(folder, "raw");
    const stream = join(folder, "stream");
    const pando = await servePando(join(folder, "pool"), {
      poolBytes: 2 * sizeBytes + POOL_OVERHEAD_BYTES,
    });
    const { client } = pando;
    const steps: [column: string, from: string | null, step: () => Promise<void>][] = [
      [
        "cp",
        raw,
        async () => {
          await run("cp", ["--reflink=never", "--sparse=never", raw, `${raw}-copy`]);
          await sync(`${raw}-copy`);
        },
      ],
      [
        "send",
        null,
        async () => {
          const target = { volume: VOLUME, snapshot: SNAPSHOT };
          const out = createWriteStream(stream);
          await sendSnapshot(client, { target, base: null, startBytes: 0, out, checksum });
          await new Promise<void>((resolve) => out.end(resolve));
          await sync(stream);
        },
      ],
      [
        "receive",
        stream,
        async () => {
          const source = createReadStream(stream, { highWaterMark: MIB });
          const options = { name: "received", snapshot: null, resume: false };
          await receiveStream(client, { ...options, source, checksum });
        },
      ],
    ];
    try {
      context.status("writing all in full");
      makeRaw(raw, sizeBytes);
      await client.createVolume(VOLUME, sizeBytes);
      const fill = { sizeBytes, durationMs: null, seed: 1 };
      await runFioLoad({ engine: "io_uring", path: raw }, FILL, fill);
      await runFioLoad({ engine: "nbd", uri: pando.uri(VOLUME) }, FILL, fill);
      await client.createSnapshot(VOLUME, SNAPSHOT);
      for (let round = 0; round < context.rounds; round++) {
        let ofCp = 0;
        for (const [column, from, step] of steps) {
          context.status(`${column}, round ${round + 1}`);
          if (from !== null) await forget(from);
          const began = performance.now();
          await step();
          const rate = sizeBytes / MIB / ((performance.now() - began) / 1000);
          if (column === "cp") ofCp = rate;
          table.add("written in full", column, [rate, rate / ofCp]);
        }
        await client.deleteSnapshot("received", SNAPSHOT);
        await client.deleteVolume("received");
        for (const path of [`${raw}-copy`, stream]) rmSync(path);
      }
      const note = "Both halves have a checksum for each MiB, in the process of the command.";
      return { tables: [table.build(note)], plots: [], absent: [] };
    } finally {
      await pando.stop();
    }
  },
};

async function sync(path: string): Promise<void> {
  const file = await open(path, "r+");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Nothing of it is left in the page cache. */
async function forget(path: string): Promise<void> {
  const nothing = ["oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"];
  await run("dd", [`of=${path}`, ...nothing]);
}
