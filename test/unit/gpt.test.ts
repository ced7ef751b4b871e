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
  type Partition,
  type Piece,
  planPartitions,
} from "../../engine/gpt.js";
import { type Enlarged, enlargePartition } from "../../engine/gpt-enlarge.js";
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

/** Of a disk, what was written; the rest is zeroes. */
class Written {
  readonly #sectors: Map<number, Buffer>;

  constructor(from: Written | null = null) {
    this.#sectors = new Map(from === null ? [] : from.#sectors);
  }

  readonly read = (offset: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length);
    for (let at = 0; at < length; at += 512) {
      this.#sectors.get((offset + at) / 512)?.copy(bytes, at);
    }
    return bytes;
  };

  write({ offsetBytes, bytes }: Piece, length = bytes.length): void {
    for (let at = 0; at < length; at += 512) {
      const sector = this.read(offsetBytes + at, 512);
      sector.set(bytes.subarray(at, Math.min(at + 512, length)));
      this.#sectors.set((offsetBytes + at) / 512, sector);
    }
  }
}

const dataOf = (disk: Disk, { read }: Written) =>
  decodeGpt(disk, read)?.find(({ type }) => type === DATA_TYPE);

function enlarge(disk: Disk, { read }: Written): Enlarged {
  const found = enlargePartition(disk, read, DATA_TYPE);
  assert.ok(found !== null);
  return found;
}

for (const small of DISKS) {
  const disk = { ...small, sectors: small.sectors + (20 * MIB) / small.sectorBytes };
  const made = (more: Partition[] = []) => {
    const { meta, data } = planPartitions(small, 64 * MIB, newUuid);
    const now = new Written();
    for (const piece of encodeGpt(small, newUuid(), [meta, data, ...more])) now.write(piece);
    return { now, data };
  };

  test(`from ${small.sectors} to ${disk.sectors} sectors: a cut finds the one or the other`, () => {
    const { now, data: old } = made();
    const guid = now.read(disk.sectorBytes, 512).subarray(56, 72);
    const whole = decodeGpt(disk, now.read);
    const { sectors, steps } = enlarge(disk, now);
    assert.is(sectors - old.sectors, (20 * MIB) / disk.sectorBytes);
    for (const pieces of steps) {
      // What is written of a step when it is cut: all ways, and each piece torn in the middle.
      for (let set = 0; set < 3 ** pieces.length; set++) {
        const cut = new Written(now);
        pieces.forEach((piece, at) => {
          const { length } = piece.bytes;
          cut.write(piece, [0, length >> 1, length][Math.floor(set / 3 ** at) % 3]);
        });
        assert.ok([old.sectors, sectors].includes(dataOf(disk, cut)?.sectors ?? 0), `set ${set}`);
        // Whoever goes on from there comes to the same end.
        for (const piece of enlarge(disk, cut).steps.flat()) cut.write(piece);
        const tables = decodeGpt(disk, cut.read);
        assert.is(dataOf(disk, cut)?.sectors, sectors);
        for (const sector of [1, disk.sectors - 1]) {
          const one = new Written(cut);
          const bytes = Buffer.alloc(disk.sectorBytes);
          one.write({ offsetBytes: sector * disk.sectorBytes, bytes });
          assert.equal(decodeGpt(disk, one.read), tables, "the other copy says the same");
        }
      }
      for (const piece of pieces) now.write(piece);
    }
    const [meta, data] = decodeGpt(disk, now.read) ?? [];
    assert.equal([meta, { ...data, sectors: old.sectors }], whole);
    assert.ok(guid.equals(now.read(disk.sectorBytes, 512).subarray(56, 72)));
    assert.is(now.read(0, 512).readUInt32LE(458), disk.sectors - 1);
    assert.equal(enlarge(disk, now).steps, []);
  });

  test(`from ${small.sectors} to ${disk.sectors} sectors: not into what is behind it`, () => {
    const { data } = made();
    const end = data.firstSector + data.sectors + (5 * MIB) / small.sectorBytes;
    const other = { ...data, number: 7, type: newUuid(), name: "other", firstSector: end };
    const { now } = made([other]);
    const { sectors, steps } = enlarge(disk, now);
    assert.is(data.firstSector + sectors, end);
    for (const piece of steps.flat()) now.write(piece);
    assert.equal(decodeGpt(disk, now.read)?.at(-1), other);
  });
}

test("a disk that is too small is refused", () => {
  const small = { sectorBytes: 512, sectors: (65 * MIB) / 512 };
  refuses(() => planPartitions(small, 64 * MIB, newUuid), "EINVAL", /no room/);
});

test.run();
