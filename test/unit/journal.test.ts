// The journal's reader: the golden fixture that the C++ writer passes too, and where a scan ends,
// and when it refuses.
import { readFileSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { JOURNAL_BLOCK_BYTES } from "../../engine/base/constants.js";
import { isPandoError } from "../../engine/base/errors.js";
import {
  decodeJournalBlock,
  encodeJournalBlock,
  type JournalBlock,
  type JournalScan,
  type MappingRecord,
  scanJournal,
} from "../../engine/store/journal.js";
import { native } from "../../native/native.js";
import { refuses } from "../support/refuses.js";

const test = suite("journal");
const FIXTURES = new URL("../../../test/fixtures/", import.meta.url);
const UUID = "3f8a1c52-9d0e-4b67-8a21-5c6d7e8f9012";
const BLOCKS = 16;
const OFFSET = 1024 * 1024;

function goldenBlocks(): Uint8Array[] {
  const hex = readFileSync(new URL("journal-v1.hex", FIXTURES), "utf8").replaceAll(/\s/g, "");
  const bytes = Buffer.from(hex, "hex");
  assert.is(bytes.length % JOURNAL_BLOCK_BYTES, 0);
  return Array.from({ length: bytes.length / JOURNAL_BLOCK_BYTES }, (_, i) =>
    bytes.subarray(i * JOURNAL_BLOCK_BYTES, (i + 1) * JOURNAL_BLOCK_BYTES),
  );
}

const record = (layer: number, span: number): MappingRecord => ({
  layer,
  span,
  firstSlot: 3,
  slots: 1,
  firstBlock: 10,
  frees: [],
});

/** A ring in memory. */
class Ring {
  readonly bytes = Buffer.alloc(BLOCKS * JOURNAL_BLOCK_BYTES);
  reads = 0;

  write(sequence: number, change: Partial<JournalBlock> = {}): this {
    const block = {
      sequence,
      epoch: 2,
      durableUpTo: 0,
      uuid: UUID,
      firstOrdinal: sequence,
      records: [record(1, sequence)],
      ...change,
    };
    this.bytes.set(encodeJournalBlock(block), (sequence % BLOCKS) * JOURNAL_BLOCK_BYTES);
    return this;
  }

  tear(sequence: number): this {
    this.bytes.fill(0xee, (sequence % BLOCKS) * JOURNAL_BLOCK_BYTES + 2048, undefined);
    return this;
  }

  scan(tail: number, epoch = 2): JournalScan & { spans: number[] } {
    const spans: number[] = [];
    const scan = scanJournal(
      { offsetBytes: OFFSET, blocks: BLOCKS, uuid: UUID, epoch, tail, dataBlocks: 1000 },
      (offset, length) => {
        this.reads += length / JOURNAL_BLOCK_BYTES;
        return this.bytes.subarray(offset - OFFSET, offset - OFFSET + length);
      },
      (found, sequence) => {
        assert.is(found.span, sequence);
        spans.push(found.span);
      },
    );
    return { ...scan, spans };
  }
}

test("the golden blocks read as their fields say, and are written the same", () => {
  const golden = JSON.parse(readFileSync(new URL("journal-v1.json", FIXTURES), "utf8"));
  const blocks = goldenBlocks();
  assert.is(blocks.length, golden.blocks.length);
  blocks.forEach((bytes, i) => {
    assert.equal(decodeJournalBlock(bytes), golden.blocks[i]);
    assert.ok(Buffer.from(encodeJournalBlock(golden.blocks[i])).equals(bytes));
  });
  const records = golden.blocks.flatMap((block: JournalBlock) => block.records);
  assert.ok(records.some((entry: MappingRecord) => entry.frees.length === 64));
  assert.ok(records.some((entry: MappingRecord) => entry.firstBlock === 0));
  assert.ok(records.some((entry: MappingRecord) => entry.slots === 512));
});

test("no flipped byte goes unnoticed", () => {
  const good = goldenBlocks()[0] as Uint8Array;
  for (let at = 0; at < good.length; at++) {
    const bad = new Uint8Array(good);
    bad[at] = (bad[at] as number) ^ 0x40;
    assert.is(decodeJournalBlock(bad), null, `byte ${at}`);
  }
});

test("a block whose checksum fits and whose fields do not is ECORRUPT", () => {
  const good = goldenBlocks()[0] as Uint8Array;
  const cases: [string, (bytes: Buffer) => unknown][] = [
    ["used past the block", (bytes) => bytes.writeUInt32LE(4033, 0x24)],
    ["used past the records", (bytes) => bytes.writeUInt32LE(bytes.readUInt32LE(0x24) + 8, 0x24)],
    ["a record too many", (bytes) => bytes.writeUInt16LE(7, 0x20)],
    ["durable up to itself", (bytes) => bytes.writeBigUInt64LE(8n, 0x18)],
    ["no slots", (bytes) => bytes.writeUInt16LE(0, 0x40 + 0x0e)],
    ["slots past the span", (bytes) => bytes.writeUInt16LE(512, 0x40 + 0x0c)],
    ["65 free runs", (bytes) => bytes.writeUInt16LE(65, 0x40 + 0x14)],
    ["layer 0", (bytes) => bytes.writeBigUInt64LE(0n, 0x40)],
    ["layer 2^53", (bytes) => bytes.writeBigUInt64LE(2n ** 53n, 0x40)],
  ];
  for (const [what, change] of cases) {
    const bytes = Buffer.from(good);
    change(bytes);
    bytes.writeUInt32LE(native.crc32c(bytes.subarray(8)), 4);
    assert.throws(
      () => decodeJournalBlock(bytes),
      (error: unknown) => isPandoError(error, "ECORRUPT"),
      what,
    );
  }
});

test("a scan gives the records in order and reads the ring once", () => {
  const ring = new Ring();
  for (let sequence = 20; sequence < 30; sequence++) ring.write(sequence);
  const scan = ring.scan(20);
  assert.equal(scan.spans, [20, 21, 22, 23, 24, 25, 26, 27, 28, 29]);
  assert.is(scan.endSequence, 30);
  assert.is(scan.records, 10);
  assert.is(ring.reads, BLOCKS);
});

test("a full ring ends where it began, an empty one at its tail", () => {
  const ring = new Ring();
  assert.is(ring.scan(5).endSequence, 5);
  for (let sequence = 5; sequence < 5 + BLOCKS; sequence++) ring.write(sequence);
  assert.is(ring.scan(5).endSequence, 5 + BLOCKS);
});

test("a block of a later epoch, wherever it is, proves that the store is an older one", () => {
  const fresh = (): Ring => new Ring().write(20).write(21);
  for (const sequence of [20, 21, 22, 25]) {
    const ring = fresh().write(sequence, { epoch: 3 });
    const error = refuses(() => ring.scan(20), "ECORRUPT", /of epoch 3, and the store of 2/);
    assert.is(error.context.field, "epoch");
    assert.is(ring.scan(25, 3).endSequence, sequence === 25 ? 26 : 25);
  }
});

test("another epoch, another pool, a torn block, an older round: each ends the journal", () => {
  const fresh = (): Ring => new Ring().write(20).write(21).write(22);
  const other = "40000000-0000-4000-8000-000000000000";
  assert.is(fresh().write(21, { epoch: 1 }).scan(20).endSequence, 21);
  assert.is(fresh().write(21, { uuid: other }).scan(20).endSequence, 21);
  assert.is(fresh().tear(22).scan(20).endSequence, 22);
  assert.is(
    fresh()
      .write(22 - BLOCKS)
      .scan(20).endSequence,
    22,
  );
  assert.is(fresh().scan(20, 3).endSequence, 20);
});

test("a gap after which nothing was durable is a normal power cut", () => {
  const ring = new Ring().write(20).write(22, { durableUpTo: 21 }).write(23, { durableUpTo: 21 });
  const scan = ring.scan(20);
  assert.is(scan.endSequence, 21);
  assert.is(scan.blocksAfterEnd, 2);
  assert.equal(scan.spans, [20]);
});

test("a later block that proves the missing one durable refuses the pool, wherever it is", () => {
  for (let later = 22; later < 20 + BLOCKS; later++) {
    const ring = new Ring().write(20).write(later, { durableUpTo: 22 });
    assert.throws(() => ring.scan(20), /block 21 is lost/, `block ${later}`);
  }
  const first = new Ring().write(21, { durableUpTo: 21 });
  assert.throws(() => first.scan(20), /block 20 is lost/);
  const otherEpoch = new Ring().write(20).write(23, { durableUpTo: 22, epoch: 1 });
  assert.is(otherEpoch.scan(20).endSequence, 21);
});

test("a block of a later round says that the store is older than the journal", () => {
  const ring = new Ring().write(20).write(21 + BLOCKS);
  assert.throws(
    () => ring.scan(20),
    (error: unknown) => isPandoError(error, "ECORRUPT"),
  );
});

test("records of blocks outside the pool are refused", () => {
  const bad = (change: Partial<MappingRecord>): Ring =>
    new Ring().write(20, { records: [{ ...record(1, 20), ...change }] });
  const corrupt = (error: unknown): boolean => isPandoError(error, "ECORRUPT");
  assert.is(bad({ firstBlock: 1000 }).scan(20).records, 1);
  assert.throws(() => bad({ firstBlock: 1001 }).scan(20), corrupt);
  assert.throws(() => bad({ firstBlock: 1000, slots: 2 }).scan(20), corrupt);
  assert.throws(() => bad({ frees: [{ first: 0, count: 1 }] }).scan(20), corrupt);
  assert.throws(() => bad({ frees: [{ first: 1, count: 0 }] }).scan(20), corrupt);
  assert.throws(() => bad({ frees: [{ first: 999, count: 3 }] }).scan(20), corrupt);
});

test.run();
