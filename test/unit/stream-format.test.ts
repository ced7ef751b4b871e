// The bytes of a stream: what is written comes back, every flipped bit is seen, and the example of
// docs/stream-format.md is what is written.
import { readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packagePath } from "../../engine/base/package-path.js";
import {
  decodeStreamHeader,
  decodeStreamRecord,
  encodeStreamHeader,
  encodeStreamRecord,
  type StreamHeader,
  type StreamRecord,
  streamDataBytes,
} from "../../engine/base/stream-format.js";
import { native } from "../../native/native.js";

const checksum = native.crc32c;
const HEADER: StreamHeader = {
  contents: "3f8a1c52-9d0e-4b67-8a21-5c6d7e8f9012",
  base: null,
  sizeBytes: 16 * 2 ** 20,
  startBytes: 0,
  snapshot: "monday",
};
const EARLIER = "00000000-0000-4000-8000-000000000001";
const DATA = Buffer.alloc(4096, "x");
const RECORDS: [StreamRecord, Buffer][] = [
  [{ type: "data", number: 0, offsetBytes: 8192, lengthBytes: 4096 }, DATA],
  [{ type: "zero", number: 1, offsetBytes: 2 ** 50 - 4096, lengthBytes: 4096 }, Buffer.alloc(0)],
  [{ type: "end", number: 2 ** 32 + 1, offsetBytes: 4096, lengthBytes: 4096 }, Buffer.alloc(0)],
];

const codeOf = (work: () => unknown): unknown => {
  try {
    work();
    return "none";
  } catch (error) {
    return (error as { code?: string }).code;
  }
};

test("a header comes back as it was", () => {
  const rest = { ...HEADER, base: EARLIER, startBytes: 4096, snapshot: "a".repeat(128) };
  for (const header of [HEADER, rest]) {
    assert.equal(decodeStreamHeader(encodeStreamHeader(header, checksum), checksum), header);
  }
});

test("a record comes back as it was", () => {
  for (const [record, data] of RECORDS) {
    const head = encodeStreamRecord(record, data, checksum);
    assert.is(streamDataBytes(head), data.length);
    const expected = { number: record.number, checksum };
    assert.equal(decodeStreamRecord(head, data, expected), record);
  }
});

test("every flipped bit is seen", () => {
  const header = encodeStreamHeader(HEADER, checksum);
  for (let bit = 0; bit < header.length * 8; bit++) {
    const flipped = Buffer.from(header);
    flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
    assert.is.not(
      codeOf(() => decodeStreamHeader(flipped, checksum)),
      "none",
      `bit ${bit}`,
    );
  }
  for (const [record, data] of RECORDS) {
    const whole = Buffer.concat([encodeStreamRecord(record, data, checksum), data]);
    for (let bit = 0; bit < Math.min(whole.length, 64) * 8; bit++) {
      const flipped = Buffer.from(whole);
      flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
      const expected = { number: record.number, checksum };
      const decode = () =>
        decodeStreamRecord(flipped.subarray(0, 32), flipped.subarray(32), expected);
      assert.is(codeOf(decode), "ECORRUPT", `bit ${bit}`);
    }
  }
});

test("a record that is out of its turn, or too large, is refused", () => {
  const [[record, data]] = RECORDS as [[StreamRecord, Buffer]];
  const head = encodeStreamRecord(record, data, checksum);
  assert.is(
    codeOf(() => decodeStreamRecord(head, data, { number: 1, checksum })),
    "ECORRUPT",
  );
  head.writeUInt32LE(2 ** 20 + 1, 4);
  assert.is(
    codeOf(() => streamDataBytes(head)),
    "ECORRUPT",
  );
  for (const wrong of [{ offsetBytes: 1 }, { lengthBytes: 8192 }, { offsetBytes: 100 }]) {
    const bytes = encodeStreamRecord({ ...record, ...wrong }, data, checksum);
    const decode = () => decodeStreamRecord(bytes, data, { number: 0, checksum });
    assert.is(codeOf(decode), "ECORRUPT");
  }
});

test("the example of the documentation is what is written", () => {
  const document = readFileSync(packagePath("docs/stream-format.md"), "utf8");
  const place = { offsetBytes: 4096, lengthBytes: 8192 };
  const end = { offsetBytes: 0, lengthBytes: 8192 };
  const none = Buffer.alloc(0);
  const parts = [
    encodeStreamHeader({ ...HEADER, base: EARLIER }, checksum),
    encodeStreamRecord({ type: "zero", number: 0, ...place }, none, checksum),
    encodeStreamRecord({ type: "end", number: 1, ...end }, none, checksum),
  ];
  for (const bytes of parts) assert.match(document, hexLines(bytes).join("\n"));
});

/** As the documentation has it: 16 bytes a line, those that are all zero left out. */
function hexLines(bytes: Buffer): string[] {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = bytes.subarray(at, at + 16);
    if (row.every((byte) => byte === 0)) {
      if (lines.at(-1) !== "    *") lines.push("    *");
      continue;
    }
    const hex = [...row].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    lines.push(`    ${at.toString(16).padStart(3, "0")}  ${hex}`);
  }
  return lines;
}

test.run();
