// docs/format.md has a worked example in hex. It is read here, so that the document stays true.
import { readFileSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  decodeIndexBlock,
  encodeIndexBlock,
  getBlock,
  isOwned,
} from "../../engine/store/codec-index-block.js";
import { decodeSpanKey } from "../../engine/store/codec-keys.js";
import { decodeJournalBlock } from "../../engine/store/journal.js";
import {
  checkSuperblock,
  decodeSuperblock,
  type UncheckedSuperblock,
} from "../../engine/store/superblock.js";

const test = suite("format example");
const path = new URL("../../../docs/format.md", import.meta.url);
const example = readFileSync(path, "utf8").split("## Worked example")[1]?.split("\n## ")[0] ?? "";
const UUID = "3f8a1c52-9d0e-4b67-8a21-5c6d7e8f9012";
const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

/** The dumps of 4,096 bytes, in their order. */
function dumps(): Uint8Array[] {
  const found: Buffer[] = [];
  for (const [, offset, hex] of example.matchAll(
    /^ {4}([0-9a-f]{3}) {2}((?:[0-9a-f]{2} ?){16})$/gm,
  )) {
    if (offset === "000") found.push(Buffer.alloc(4096));
    found.at(-1)?.set(bytesOf(hex as string), Number.parseInt(offset as string, 16));
  }
  return found;
}

const bytesOf = (hex: string): Buffer => Buffer.from(hex.replaceAll(" ", ""), "hex");
const line = (name: string): Buffer =>
  bytesOf(new RegExp(`^ {4}${name} +([0-9a-f ]+)$`, "m").exec(example)?.[1] ?? "");

test("the superblock", () => {
  assert.is(dumps().length, 2);
  const found = decodeSuperblock(dumps()[0] as Uint8Array);
  assert.equal(checkSuperblock(found as UncheckedSuperblock, GIB), {
    version: 1,
    blockSizeBytes: 4096,
    uuid: UUID,
    generation: 1,
    deviceSizeBytes: GIB,
    journalOffsetBytes: MIB,
    journalBlocks: 16384,
    dataOffsetBytes: 65 * MIB,
    dataBlocks: 245504,
    epoch: 0,
    reclaims: 0,
  });
});

test("the journal block", () => {
  const record = { layer: 2, span: 17, firstSlot: 100 };
  assert.equal(decodeJournalBlock(dumps()[1] as Uint8Array), {
    sequence: 7,
    epoch: 3,
    durableUpTo: 5,
    firstOrdinal: 12,
    uuid: UUID,
    records: [
      { ...record, slots: 8, firstBlock: 1000, frees: [] },
      { ...record, slots: 4, firstBlock: 0, frees: [{ first: 1000, count: 4 }] },
    ],
  });
});

test("the index block", () => {
  const key = line("key");
  assert.equal(decodeSpanKey(key), { storageKey: 2, span: 17 });
  const { raw, ...header } = decodeIndexBlock(key, line("value"));
  assert.equal(header, { owned: 4, mapped: 104, inherited: 100 });
  for (let slot = 0; slot < 512; slot++) {
    const owned = slot >= 104 && slot < 108;
    assert.is(isOwned(raw, slot), owned);
    assert.is(getBlock(raw, slot), slot < 100 ? 600 + slot : owned ? 900 + slot : 0);
  }
  assert.ok(line("value").equals(encodeIndexBlock(key, raw, 100).value));
});

test.run();
