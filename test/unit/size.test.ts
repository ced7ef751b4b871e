import { test } from "uvu";
import * as assert from "uvu/assert";
import { checkWholeBlocks, formatSize, parseSize } from "../../engine/base/size.js";
import { refuses } from "../support/refuses.js";

test("sizes are bytes, or binary units with or without iB", () => {
  const table: [string, number][] = [
    ["1", 1],
    ["4096", 4096],
    ["4K", 4096],
    ["4KiB", 4096],
    ["512MiB", 512 * 2 ** 20],
    ["10G", 10 * 2 ** 30],
    ["10GiB", 10 * 2 ** 30],
    ["1TiB", 2 ** 40],
    ["1P", 2 ** 50],
    ["007", 7],
    ["9007199254740991", Number.MAX_SAFE_INTEGER],
  ];
  for (const [text, bytes] of table) assert.is(parseSize(text), bytes, text);
});

test("anything else is not a size", () => {
  const table = [
    ...["", " ", "10GG", "10GB", "10g", "10 G", "-1", "+1", "1.5G", "1e3", "0x10", "G", "GiB"],
    ...["10iB", "10Gi", "10KiBx", "NaN", "Infinity", "１０", "10\n", "1,000"],
  ];
  for (const text of table) refuses(() => parseSize(text), "EINVAL", /is not a valid size/);
});

test("nothing, and more than can be counted, are refused by name", () => {
  for (const text of ["0", "000", "0G", "0TiB"]) refuses(() => parseSize(text), "EINVAL", /is 0$/);
  for (const text of ["8P", "9007199254740992", "9".repeat(400)]) {
    refuses(() => parseSize(text, "journal size"), "EINVAL", /^the journal size .* larger than/);
  }
});

test("a size is shown with one decimal at most, never as more than it is", () => {
  const table: [number, string][] = [
    [0, "0"],
    [1, "1 B"],
    [1023, "1023 B"],
    [1024, "1 KiB"],
    [1536, "1.5 KiB"],
    [2 ** 20 - 1, "1023.9 KiB"],
    [10 * 2 ** 30, "10 GiB"],
    [2 ** 50, "1 PiB"],
    [2 ** 53, "8 PiB"],
    [5000 * 2 ** 50, "5000 PiB"],
  ];
  for (const [bytes, text] of table) assert.is(formatSize(bytes), text);
});

test("a size that is not whole blocks is refused with the next that is", () => {
  const check = (sizeBytes: number) =>
    checkWholeBlocks({ sizeBytes, blockSizeBytes: 4096, field: "size" });
  check(4096);
  check(2 ** 50);
  const error = refuses(() => check(5000), "EINVAL", /5000 is not a multiple of .* 4096/);
  assert.match(error.context.hint ?? "", /^8192 /);
});

test.run();
