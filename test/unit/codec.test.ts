// Every kind of value of the store: it comes back as it was, and no flipped byte goes unnoticed.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { INDEX_BLOCK_BYTES, SLOTS_PER_SPAN } from "../../engine/base/constants.js";
import { isPandoError } from "../../engine/base/errors.js";
import { decodeChunk, decodePiece, encodeBitmap } from "../../engine/store/codec-bitmaps.js";
import { seal, unseal } from "../../engine/store/codec-envelope.js";
import {
  countSlots,
  decodeIndexBlock,
  decodeIndexBlockHeader,
  emptyIndexBlock,
  encodeIndexBlock,
  getBlock,
  inheritIndexBlock,
  isOwned,
  setSlot,
} from "../../engine/store/codec-index-block.js";
import * as keys from "../../engine/store/codec-keys.js";
import * as records from "../../engine/store/codec-records.js";
import { Decoded } from "../../engine/store/decoded.js";
import { type Random, seeded } from "../prng.js";

const test = suite("codec");
const KEY = keys.spanKey(3, 9);
const UUID = "3f8a1c52-9d0e-4b67-8a21-5c6d7e8f9012";
const TIME = "2026-01-02T03:04:05.000Z";

/** Flips each byte in turn: the decoder must refuse every one of them with ECORRUPT. */
function assertNoByteIsLoose(value: Uint8Array, decode: (value: Uint8Array) => unknown): void {
  for (let at = 0; at < value.length; at++) {
    const bad = new Uint8Array(value);
    bad[at] = (bad[at] as number) ^ (1 << (at % 8));
    assert.ok(
      refused(() => decode(bad)),
      `byte ${at}`,
    );
  }
  for (const length of [0, 3, 4, value.length - 1]) {
    if (length >= value.length) continue;
    assert.ok(
      refused(() => decode(value.subarray(0, length))),
      `cut to ${length}`,
    );
  }
}

function refused(decode: () => unknown): boolean {
  try {
    decode();
  } catch (error) {
    return isPandoError(error, "ECORRUPT");
  }
  return false;
}

function randomIndexBlock(random: Random): Uint8Array {
  const raw = emptyIndexBlock();
  const shape = random.below(4);
  let slot = 0;
  while (slot < SLOTS_PER_SPAN) {
    const length = shape === 0 ? 1 : 1 + random.below(shape === 1 ? 4 : SLOTS_PER_SPAN);
    const hole = random.oneIn(4);
    const owned = random.oneIn(2);
    const first = random.oneIn(8) ? 2 ** 32 - 1 - length : 1 + random.below(2 ** 31);
    for (let i = 0; i < length && slot < SLOTS_PER_SPAN; i++, slot++) {
      setSlot(raw, slot, hole ? 0 : first + i, !hole && owned);
    }
  }
  return raw;
}

test("keys sort as their numbers do", () => {
  const ids = [0, 1, 255, 256, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 1, Number.MAX_SAFE_INTEGER];
  const encoded = ids.map((id) => Buffer.from(keys.layerKey(id)).toString("latin1"));
  assert.equal([...encoded].sort(), encoded);
  for (const id of ids) {
    assert.is(keys.decodeLayerKey(keys.layerKey(id)), id);
    assert.equal(keys.decodeSpanKey(keys.spanKey(id, 77)), { storageKey: id, span: 77 });
    assert.equal(keys.decodeChildKey(keys.childKey(id, 5)), { parent: id, child: 5 });
  }
  assert.is(keys.decodeChunkKey(keys.chunkKey(2 ** 32 - 1)), 2 ** 32 - 1);
  assert.equal(keys.decodeSnapshotKey(keys.snapshotKey("db", "mönday")), {
    volume: "db",
    snapshot: "mönday",
  });
  assert.throws(() => keys.layerKey(-1));
  assert.throws(() => keys.layerKey(2 ** 53));
});

test("the snapshots of a volume are not those of a volume whose name begins alike", () => {
  const range = keys.snapshotsOf("db");
  const inside = (key: Uint8Array): boolean =>
    Buffer.compare(key, range.start as Uint8Array) >= 0 &&
    Buffer.compare(key, range.end as Uint8Array) < 0;
  assert.ok(inside(keys.snapshotKey("db", "a")));
  assert.not(inside(keys.snapshotKey("db2", "a")));
  assert.not(inside(keys.snapshotKey("da", "a")));
  assert.not(inside(keys.snapshotKey("db-test", "a")));
});

test("an envelope belongs to its key", () => {
  const value = seal(KEY, Buffer.from("payload"));
  assert.is(Buffer.from(unseal("index", KEY, value)).toString(), "payload");
  assert.ok(refused(() => unseal("index", keys.spanKey(3, 10), value)));
  try {
    unseal("index", keys.spanKey(3, 10), value);
  } catch (error) {
    assert.match((error as Error).message, /index 0x00000000000000030000000a/);
  }
});

const SAMPLES: [string, records.RecordCodec<object>, object][] = [
  [
    "pool",
    records.poolRecord as records.RecordCodec<object>,
    { version: 1, uuid: UUID, generation: 1, blockSize: 4096, dataBlocks: 9, journalBlocks: 64 },
  ],
  ["journal", records.journalRecord as records.RecordCodec<object>, { epoch: 3, tail: 2 ** 40 }],
  ["ids", records.idsRecord as records.RecordCodec<object>, { nextLayer: 7 }],
  ["lineage", records.lineageRecord as records.RecordCodec<object>, { changes: 12 }],
  ["space", records.spaceRecord as records.RecordCodec<object>, { allocatedBlocks: 0 }],
  [
    "layer",
    records.layerRecord as records.RecordCodec<object>,
    { parent: null, state: "live", key: 1, indexBlocks: 0, ownedBlocks: 0, mappedDelta: -5 },
  ],
  [
    "volume",
    records.volumeRecord as records.RecordCodec<object>,
    {
      uuid: UUID,
      layer: 4,
      sizeBytes: 2 ** 30,
      createdAt: TIME,
      allowedHosts: ["nqn.2014-08.org.nvmexpress:uuid:x"],
      origin: { volume: "db", snapshot: null },
    },
  ],
  [
    "snapshot",
    records.snapshotRecord as records.RecordCodec<object>,
    { uuid: UUID, layer: 4, sizeBytes: 2 ** 30, createdAt: TIME, volumeUuid: UUID },
  ],
  ["uuid", records.uuidRecord as records.RecordCodec<object>, { name: "db" }],
  ["reclaim", records.reclaimRecord as records.RecordCodec<object>, { since: TIME }],
];

for (const [name, codec, sample] of SAMPLES) {
  test(`a ${name} record comes back, and only with exactly its fields`, () => {
    const key = Buffer.from(name);
    const value = codec.encode(key, sample);
    assert.equal(codec.decode("meta", key, value), sample);
    assertNoByteIsLoose(value, (bad) => codec.decode("meta", key, bad));
    const sealed = (record: unknown): Uint8Array => seal(key, Buffer.from(JSON.stringify(record)));
    assert.ok(refused(() => codec.decode("meta", key, sealed({ ...sample, extra: 1 }))));
    assert.ok(refused(() => codec.decode("meta", key, sealed([]))));
    assert.ok(refused(() => codec.decode("meta", key, sealed(null))));
    assert.ok(refused(() => codec.decode("meta", key, seal(key, Buffer.from("{")))));
    for (const field of Object.keys(sample)) {
      const { [field]: _gone, ...rest } = sample as Record<string, unknown>;
      assert.ok(
        refused(() => codec.decode("meta", key, sealed(rest))),
        `without ${field}`,
      );
      for (const wrong of [true, -1.5, {}, [[]], ""]) {
        const changed = sealed({ ...sample, [field]: wrong });
        assert.ok(
          refused(() => codec.decode("meta", key, changed)),
          `${field} ${wrong}`,
        );
      }
    }
  });
}

test("index blocks of all kinds come back", () => {
  const random = seeded(1);
  for (let round = 0; round < 400; round++) {
    const raw = randomIndexBlock(random);
    const inherited = random.below(SLOTS_PER_SPAN + 1);
    const { value, header } = encodeIndexBlock(KEY, raw, inherited);
    assert.ok(value.length <= 4 + 8 + INDEX_BLOCK_BYTES, "never longer than plain");
    const block = decodeIndexBlock(KEY, value);
    assert.ok(Buffer.from(raw).equals(block.raw));
    assert.equal(header, { ...countSlots(raw), inherited });
    assert.equal(decodeIndexBlockHeader(KEY, value), header);
    assert.equal({ ...block, raw: null }, { ...header, raw: null });
  }
});

test("a span that was written in one go takes a few bytes, a shuffled one is plain", () => {
  const sequential = emptyIndexBlock();
  const shuffled = emptyIndexBlock();
  for (let slot = 0; slot < SLOTS_PER_SPAN; slot++) {
    setSlot(sequential, slot, 1000 + slot, true);
    setSlot(shuffled, slot, ((slot * 2654435761) % 4000000000) + 1, slot % 2 === 0);
  }
  assert.ok(encodeIndexBlock(KEY, sequential, 0).value.length <= 18);
  const plain = encodeIndexBlock(KEY, shuffled, 0).value;
  assert.is(plain.length, 4 + 8 + INDEX_BLOCK_BYTES);
  assert.is(plain[5], 1);
});

test("a damaged index block is refused, whichever byte it is", () => {
  const random = seeded(2);
  for (let round = 0; round < 6; round++) {
    const { value } = encodeIndexBlock(KEY, randomIndexBlock(random), 0);
    assertNoByteIsLoose(value, (bad) => decodeIndexBlock(KEY, bad));
  }
});

test("an index block whose checksum fits is still not believed", () => {
  const random = seeded(3);
  let accepted = 0;
  for (let round = 0; round < 3000; round++) {
    const { value } = encodeIndexBlock(KEY, randomIndexBlock(random), 0);
    const payload = Buffer.from(value.subarray(4));
    payload[random.below(Math.min(payload.length, 64))] = random.below(256);
    try {
      const block = decodeIndexBlock(KEY, seal(KEY, payload));
      assert.equal(countSlots(block.raw), { owned: block.owned, mapped: block.mapped });
      accepted++;
    } catch (error) {
      assert.ok(isPandoError(error, "ECORRUPT"), String(error));
    }
  }
  assert.ok(accepted < 3000);
});

test("a hole with an owner is refused by both sides", () => {
  const raw = emptyIndexBlock();
  raw[SLOTS_PER_SPAN * 4] = 1;
  assert.throws(() => encodeIndexBlock(KEY, raw, 0), /hole/);
  const payload = Buffer.concat([Buffer.from([1, 1, 1, 0, 1, 0, 0, 0]), raw]);
  assert.ok(refused(() => decodeIndexBlock(KEY, seal(KEY, payload))));
});

test("an inherited copy maps the same and owns nothing", () => {
  const raw = randomIndexBlock(seeded(4));
  setSlot(raw, 7, 77, true);
  const copy = inheritIndexBlock(raw);
  for (let slot = 0; slot < SLOTS_PER_SPAN; slot++) {
    assert.is(getBlock(copy, slot), getBlock(raw, slot));
    assert.not(isOwned(copy, slot));
  }
  assert.ok(countSlots(raw).owned > 0, "the original is left alone");
});

test("a record that was decoded before is what the bytes say now", () => {
  const decoded = new Decoded(records.layerRecord, "layers");
  const record = { parent: 1, state: "live", key: 2, indexBlocks: 0, ownedBlocks: 0 } as const;
  const key = keys.layerKey(2);
  const encode = (mappedDelta: number) =>
    records.layerRecord.encode(key, { ...record, mappedDelta });
  const first = decoded.decode(2, key, encode(5));
  assert.equal(first, { ...record, mappedDelta: 5 });
  assert.is(decoded.decode(2, key, encode(5)), first);
  assert.throws(() => Object.assign(first, { mappedDelta: 7 }), TypeError);
  assert.is(decoded.decode(2, key, encode(6)).mappedDelta, 6);
  assertNoByteIsLoose(encode(6), (bad) => decoded.decode(2, key, bad));
  assert.is(decoded.decode(2, key, encode(5)).mappedDelta, 5);
});

test("bitmaps come back, of their own length only", () => {
  const random = seeded(5);
  const bits = (length: number): Uint8Array => Uint8Array.from({ length }, () => random.below(256));
  const piece = bits(512);
  const chunk = bits(1024);
  assert.equal([...decodePiece(KEY, encodeBitmap(KEY, piece))], [...piece]);
  assert.equal([...decodeChunk(KEY, encodeBitmap(KEY, chunk))], [...chunk]);
  assert.ok(refused(() => decodePiece(KEY, encodeBitmap(KEY, chunk))));
  assert.ok(refused(() => decodeChunk(KEY, encodeBitmap(KEY, piece))));
  assertNoByteIsLoose(encodeBitmap(KEY, piece), (bad) => decodePiece(KEY, bad));
});

test.run();
