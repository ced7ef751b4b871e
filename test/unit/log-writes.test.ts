// The reader of the kernel's write log, on a log that is laid out here as the kernel does it.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { readLog } from "../support/log-writes.js";
import { temporaryFolder } from "../support/pando.js";

const test = suite("log of writes");
const SECTOR = 512;
const folder = temporaryFolder();
test.after(() => folder.remove());

function header(entries: number, magic = 0x6a736677736872n): Buffer {
  const bytes = Buffer.alloc(SECTOR);
  bytes.writeBigUInt64LE(magic, 0);
  bytes.writeBigUInt64LE(1n, 8);
  bytes.writeBigUInt64LE(BigInt(entries), 16);
  bytes.writeUInt32LE(SECTOR, 24);
  return bytes;
}

function entry(sector: number, sectors: number, flags: number, mark = ""): Buffer {
  const bytes = Buffer.alloc(SECTOR);
  bytes.writeBigUInt64LE(BigInt(sector), 0);
  bytes.writeBigUInt64LE(BigInt(sectors), 8);
  bytes.writeBigUInt64LE(BigInt(flags), 16);
  bytes.writeBigUInt64LE(BigInt(mark.length), 24);
  bytes.write(mark, 32);
  return bytes;
}

test("writes with their data, discards without, flushes and marks, in their order", () => {
  const path = join(folder.path, "log");
  const parts = [
    header(5),
    entry(8, 2, 0),
    Buffer.alloc(2 * SECTOR, "a"),
    entry(0, 0, 1),
    entry(100, 50, 4),
    entry(0, 0, 8, "step 3"),
    entry(9, 1, 3),
    Buffer.alloc(SECTOR, "b"),
    Buffer.alloc(SECTOR, 0xee), // of an earlier log
  ];
  writeFileSync(path, Buffer.concat(parts));
  const found = [...readLog(path)].map(({ data, ...rest }) => ({ ...rest, data: data() }));
  const plain = { flush: false, fua: false, offsetBytes: 0, lengthBytes: 0, mark: "" };
  const empty = Buffer.alloc(0);
  assert.equal(found, [
    { ...plain, kind: "write", offsetBytes: 4096, lengthBytes: 1024, data: parts[2] },
    { ...plain, kind: "write", flush: true, data: empty },
    { ...plain, kind: "discard", offsetBytes: 51_200, lengthBytes: 25_600, data: empty },
    { ...plain, kind: "mark", mark: "step 3", data: empty },
    {
      ...plain,
      kind: "write",
      flush: true,
      fua: true,
      offsetBytes: 4608,
      lengthBytes: 512,
      data: parts[7],
    },
  ]);
});

test("what is no log, or ends too soon, is refused", () => {
  const path = join(folder.path, "bad");
  writeFileSync(path, header(1, 7n));
  assert.throws(() => [...readLog(path)], /it is a log of dm-log-writes/);
  writeFileSync(path, header(2));
  assert.throws(() => [...readLog(path)], /the log ends at 512/);
});

test.run();
