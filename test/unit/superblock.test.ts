import { suite } from "uvu";
import * as assert from "uvu/assert";
import { isPandoError, type PandoError } from "../../engine/base/errors.js";
import { replaceSuperblocks } from "../../engine/core/superblocks.js";
import {
  blockOffset,
  checkSuperblock,
  chooseSuperblock,
  decodeSuperblock,
  encodeSuperblock,
  type Superblock,
  type UncheckedSuperblock,
} from "../../engine/store/superblock.js";

const test = suite("superblock");
const MIB = 1024 * 1024;

const SAMPLE: Superblock = {
  version: 1,
  blockSizeBytes: 4096,
  uuid: "3f8a1c52-9d0e-4b67-8a21-5c6d7e8f9012",
  generation: 1,
  deviceSizeBytes: 12 * MIB,
  journalOffsetBytes: MIB,
  journalBlocks: 256,
  dataOffsetBytes: 2 * MIB,
  dataBlocks: 2560,
  epoch: 0,
  reclaims: 0,
};

const decode = (superblock: Superblock): UncheckedSuperblock =>
  decodeSuperblock(encodeSuperblock(superblock)) as UncheckedSuperblock;

function errorOf(action: () => unknown): PandoError {
  try {
    action();
  } catch (error) {
    assert.ok(isPandoError(error), String(error));
    return error;
  }
  throw new Error("not refused");
}

test("comes back as it was", () => {
  assert.equal(checkSuperblock(decode(SAMPLE), 12 * MIB), SAMPLE);
  assert.is(blockOffset(SAMPLE, 1), 2 * MIB);
  assert.is(blockOffset(SAMPLE, 2560), 12 * MIB - 4096);
  assert.throws(() => blockOffset(SAMPLE, 0));
  assert.throws(() => blockOffset(SAMPLE, 2561));
});

test("of two copies the one counts that was written last", () => {
  const first = encodeSuperblock({ ...SAMPLE, epoch: 7, reclaims: 3 });
  for (const later of [{ epoch: 8 }, { epoch: 7, reclaims: 4 }, { generation: 2 }]) {
    const second = encodeSuperblock({ ...SAMPLE, ...later });
    const expected = decodeSuperblock(second);
    assert.equal(chooseSuperblock(first, second), expected);
    assert.equal(chooseSuperblock(second, first), expected);
  }
});

test("superblocks are replaced so that one is good at any moment", async () => {
  const now = { ...SAMPLE, epoch: 7 };
  const old = encodeSuperblock({ ...SAMPLE, epoch: 6 });
  const good = encodeSuperblock(now);
  const bad = new Uint8Array(good.length);
  for (const [a, b] of [
    [good, good],
    [good, bad],
    [bad, good],
    [good, old],
    [old, good],
  ] as const) {
    const copies = new Map([
      [0, a],
      [64 * 1024, b],
    ]);
    const at = (offset: number) => copies.get(offset) as Uint8Array;
    const others = (offset: number) => (offset === 0 ? 64 * 1024 : 0);
    let unflushed = 0;
    await replaceSuperblocks(
      {
        read: at,
        write(offset, bytes) {
          assert.is(unflushed++, 0, "the one before is durable");
          // A cut takes this one: the other one must be as new as anything was.
          assert.ok([7n, 8n].includes(decodeSuperblock(at(others(offset)))?.epoch ?? 0n));
          copies.set(offset, bytes);
        },
        async flush() {
          unflushed = 0;
        },
      },
      { ...now, epoch: 8 },
    );
    for (const copy of copies.values()) assert.is(decodeSuperblock(copy)?.epoch, 8n);
  }
});

test("no flipped byte goes unnoticed", () => {
  const good = encodeSuperblock(SAMPLE);
  for (let at = 0; at < good.length; at++) {
    const bad = new Uint8Array(good);
    bad[at] = (bad[at] as number) ^ 0x10;
    assert.is(decodeSuperblock(bad), null, `byte ${at}`);
  }
});

test("the valid copy of the higher generation counts", () => {
  const older = encodeSuperblock(SAMPLE);
  const newer = encodeSuperblock({ ...SAMPLE, generation: 2 });
  const torn = Buffer.concat([newer.subarray(0, 512), older.subarray(512)]);
  const zero = new Uint8Array(4096);
  assert.is(chooseSuperblock(older, newer).generation, 2n);
  assert.is(chooseSuperblock(newer, older).generation, 2n);
  assert.is(chooseSuperblock(torn, older).generation, 1n);
  assert.is(chooseSuperblock(newer, torn).generation, 2n);
  assert.is(errorOf(() => chooseSuperblock(torn, zero)).code, "ECORRUPT");
  const other = encodeSuperblock({ ...SAMPLE, uuid: SAMPLE.uuid.replace("3f", "40") });
  assert.is(errorOf(() => chooseSuperblock(older, other)).context.field, "uuid");
});

test("impossible geometry is refused by the name of the field", () => {
  const cases: [Partial<UncheckedSuperblock>, string][] = [
    [{ blockSize: 0 }, "blockSize"],
    [{ blockSize: 4097 }, "blockSize"],
    [{ generation: 0n }, "generation"],
    [{ deviceSize: 2n ** 63n }, "deviceSize"],
    [{ deviceSize: BigInt(12 * MIB + 4096) }, "deviceSize"],
    [{ journalOffset: 4096n }, "journalOffset"],
    [{ journalOffset: BigInt(MIB + 1) }, "journalOffset"],
    [{ journalBlocks: 63n }, "journalBlocks"],
    [{ journalBlocks: 2n ** 40n }, "journalBlocks"],
    [{ journalBlocks: 257n }, "dataOffset"],
    [{ dataOffset: BigInt(2 * MIB + 4096) }, "dataOffset"],
    [{ dataBlocks: 2561n }, "dataBlocks"],
    [{ dataBlocks: 2n ** 53n }, "dataBlocks"],
    [{ dataBlocks: 0n }, "dataBlocks"],
  ];
  for (const [change, field] of cases) {
    const error = errorOf(() => checkSuperblock({ ...decode(SAMPLE), ...change }, 12 * MIB));
    assert.is(error.context.field, field, error.message);
    assert.is(error.code, "ECORRUPT");
    assert.match(error.message, field);
  }
});

test("a truncated device is refused", () => {
  const error = errorOf(() => checkSuperblock(decode(SAMPLE), 12 * MIB - 1));
  assert.is(error.context.field, "deviceSize");
});

test("unknown versions and features are refused as such", () => {
  const refusal = (change: Partial<UncheckedSuperblock>): PandoError =>
    errorOf(() => checkSuperblock({ ...decode(SAMPLE), ...change }, 12 * MIB));
  assert.is(refusal({ version: 2 }).code, "EVERSION");
  assert.is(refusal({ incompatible: 1n }).code, "EVERSION");
  assert.is(refusal({ readOnlyCompatible: 8n }).code, "EVERSION");
  assert.is(checkSuperblock({ ...decode(SAMPLE), compatible: 1n }, 12 * MIB).version, 1);
});

test.run();
