// The partition table: what is written is read again, from either copy, and nothing that is damaged
// is believed. That the kernel and blkid read it the same is shown in test/system/device.test.ts.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { newUuid } from "../../engine/base/random.js";
import {
  crc32,
  DATA_TYPE,
  type Disk,
  decodeGpt,
  encodeGpt,
  META_TYPE,
  planPartitions,
} from "../../engine/gpt.js";
import { refuses } from "../support/refuses.js";

const test = suite("gpt");
const MIB = 2 ** 20;
const DISKS: Disk[] = [
  { sectorBytes: 512, sectors: (100 * MIB) / 512 },
  { sectorBytes: 4096, sectors: (100 * MIB) / 4096 },
  { sectorBytes: 512, sectors: (100 * MIB) / 512 - 7 },
];

/** Written: `offset` and length of each piece, and the disk as it is after them. */
function written(disk: Disk): { bytes: Buffer; pieces: [number, number][] } {
  const bytes = Buffer.alloc(disk.sectorBytes * disk.sectors);
  const { meta, data } = planPartitions(disk, 64 * MIB, newUuid);
  const pieces: [number, number][] = [];
  for (const piece of encodeGpt(disk, newUuid(), [meta, data])) {
    bytes.set(piece.bytes, piece.offsetBytes);
    pieces.push([piece.offsetBytes, piece.bytes.length]);
  }
  return { bytes, pieces };
}

const decode = (disk: Disk, bytes: Buffer) =>
  decodeGpt(disk, (offset, length) => bytes.subarray(offset, offset + length));

test("the checksum is the one of IEEE 802.3", () => {
  assert.is(crc32(Buffer.from("123456789")), 0xcbf43926);
});

for (const disk of DISKS) {
  test(`${disk.sectors} sectors of ${disk.sectorBytes} bytes`, () => {
    const { bytes, pieces } = written(disk);
    const [meta, data] = decode(disk, bytes) ?? [];
    assert.is(meta?.type, META_TYPE);
    assert.is(data?.type, DATA_TYPE);
    assert.equal([meta?.name, data?.name], ["pando-meta", "pando-data"]);
    const range = ({ firstSector = 0, sectors = 0 } = {}): [number, number] => [
      firstSector * disk.sectorBytes,
      sectors * disk.sectorBytes,
    ];
    assert.equal(range(meta), [MIB, 64 * MIB]);
    assert.is(range(data)[0], 65 * MIB);
    assert.is(range(data)[1] % MIB, 0);
    // Nothing of the table is inside a partition, nothing at all outside the disk.
    const all = [...pieces, range(meta), range(data)].sort(([a], [b]) => a - b);
    all.forEach(([offset, length], at) => {
      assert.ok(offset + length <= (all[at + 1]?.[0] ?? bytes.length), `at ${offset}`);
    });
  });

  test(`${disk.sectors} sectors of ${disk.sectorBytes} bytes: one damaged copy is not believed`, () => {
    const { bytes } = written(disk);
    const whole = decode(disk, bytes);
    const last = (disk.sectors - 1) * disk.sectorBytes;
    for (const at of [0, 16, 24, 40, 60, 72, 80, 88].map((field) => disk.sectorBytes + field)) {
      const damaged = Buffer.from(bytes);
      damaged[at] = (damaged[at] as number) ^ 1;
      assert.equal(decode(disk, damaged), whole, "by the copy at the end");
      damaged.fill(0, last);
      assert.is(decode(disk, damaged), null);
    }
    const entries = Buffer.from(bytes);
    entries[2 * disk.sectorBytes + 32] = 0xee;
    assert.equal(decode(disk, entries), whole);
  });
}

test("a disk that is too small is refused", () => {
  const small = { sectorBytes: 512, sectors: (65 * MIB) / 512 };
  refuses(() => planPartitions(small, 64 * MIB, newUuid), "EINVAL", /no room/);
});

test.run();
