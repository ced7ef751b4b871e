import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../native/native.js";

test("is CRC32C, and goes on from a seed", () => {
  const data = Buffer.from("123456789");
  assert.is(native.crc32c(data), 0xe3069283);
  assert.is(native.crc32c(data.subarray(4), native.crc32c(data.subarray(0, 4))), 0xe3069283);
  assert.is(native.crc32c(new Uint8Array(0)), 0);
});

test("refuses what is not bytes", () => {
  assert.throws(
    () => native.crc32c("123456789" as unknown as Uint8Array),
    /crc32c: expected data to be a Uint8Array/,
  );
});

test.run();
