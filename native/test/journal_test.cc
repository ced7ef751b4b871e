// The journal's writer: byte for byte what the golden fixture has (which the TypeScript reader is
// tested against too), packed into blocks, around the end of the ring, one write at a time, and
// never without room.
#include "journal.h"

#include <array>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "bytes.h"
#include "check.h"
#include "committer.h"
#include "sim_disk.h"

namespace pando {
namespace {

constexpr uint64_t kJournalOffset = 1 << 20;
constexpr uint64_t kBlocks = 64;

/// The fixture's blocks, from lines of hex.
std::vector<std::vector<std::byte>> read_fixture(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::vector<std::byte> bytes;
  while (std::getline(file, line)) {
    for (size_t at = 0; at + 1 < line.size(); at += 2) {
      bytes.push_back(static_cast<std::byte>(std::stoi(line.substr(at, 2), nullptr, 16)));
    }
  }
  std::vector<std::vector<std::byte>> blocks;
  for (size_t at = 0; at + kJournalBlockBytes <= bytes.size(); at += kJournalBlockBytes) {
    blocks.emplace_back(bytes.begin() + static_cast<ptrdiff_t>(at),
                        bytes.begin() + static_cast<ptrdiff_t>(at + kJournalBlockBytes));
  }
  return blocks;
}

/// Reads a record by the offsets of docs/format.md, not by the writer's code.
JournalRecord read_record(const std::byte* at, uint32_t* size) {
  JournalRecord record;
  record.layer = load_le<uint64_t>(at);
  record.span = load_le<uint32_t>(at + 0x08);
  record.first_slot = load_le<uint16_t>(at + 0x0c);
  record.slot_count = load_le<uint16_t>(at + 0x0e);
  record.first_block = load_le<uint32_t>(at + 0x10);
  const uint16_t runs = load_le<uint16_t>(at + 0x14);
  for (uint16_t i = 0; i < runs; ++i) {
    record.frees.push_back(
        {load_le<uint32_t>(at + 0x18 + i * 8), load_le<uint32_t>(at + 0x1c + i * 8)});
  }
  *size = 24 + runs * 8u;
  return record;
}

void test_golden(const std::string& path) {
  const auto blocks = read_fixture(path);
  REQUIRE(blocks.size() >= 2);
  for (const auto& golden : blocks) {
    std::vector<std::byte> written(kJournalBlockBytes, std::byte{0xAA});
    JournalBlockHeader header{};
    header.sequence = load_le<uint64_t>(golden.data() + 0x08);
    header.epoch = load_le<uint64_t>(golden.data() + 0x10);
    header.durable_up_to = load_le<uint64_t>(golden.data() + 0x18);
    std::memcpy(header.pool_uuid.data(), golden.data() + 0x28, 16);
    header.first_ordinal = load_le<uint64_t>(golden.data() + 0x38);
    const uint16_t count = load_le<uint16_t>(golden.data() + 0x20);
    uint32_t at = kJournalHeaderBytes;
    uint32_t used = 0;
    for (uint16_t i = 0; i < count; ++i) {
      uint32_t size = 0;
      const JournalRecord record = read_record(golden.data() + at, &size);
      used += encode_record(record, written.data() + kJournalHeaderBytes + used);
      at += size;
    }
    seal_journal_block(written.data(), header, count, used);
    CHECK(written == golden);
  }
}

struct Bench {
  SimDisk disk{4 << 20, 4096};
  BufferPool buffers;
  JournalOptions options{kJournalOffset, kBlocks, 100, 7, {}};
  Journal journal{disk, buffers, options};
  int failure = 0;
  Committer committer{disk, journal, [this](int error) { failure = error; }};

  /// Of a write, whose data has completed.
  uint64_t append(uint64_t layer, uint32_t runs = 0) {
    committer.written();
    JournalRecord record{layer, 0, 0, 1, 5, {}};
    for (uint32_t i = 0; i < runs; ++i) record.frees.push_back({10 + i * 2, 1});
    return journal.append(record);
  }
  void finish_disk() {
    while (disk.pending_count() > 0) disk.complete(0, 0, 0);
  }
  /// The sequence in the journal block at `position` of the ring.
  uint64_t sequence_at(uint64_t position) {
    std::array<std::byte, 4096> block;
    disk.read_now(kJournalOffset + position * 4096, 4096, block.data());
    return load_le<uint64_t>(block.data() + 8);
  }
};

void test_commit_makes_durable() {
  Bench bench;
  const uint64_t ordinal = bench.append(1);
  int result = -1;
  bench.committer.commit(ordinal, [&](int error) { result = error; });
  CHECK(bench.disk.pending_count() == 1);
  CHECK(bench.disk.pending(0).kind == DiskOpKind::kFlush);
  bench.disk.complete(0, 0, 0);
  CHECK(result == -1);
  REQUIRE(bench.disk.pending_count() == 1);
  CHECK(bench.disk.pending(0).kind == DiskOpKind::kWriteDurable);
  CHECK(bench.journal.durable_ordinal() == 0);
  bench.disk.complete(0, 0, 0);
  CHECK(result == 0);
  CHECK(bench.journal.durable_ordinal() == ordinal);
  bench.disk.cut_power(Survivors::kNone, 0);
  CHECK(bench.sequence_at(100 % kBlocks) == 100);
}

void test_late_record_is_not_captured() {
  Bench bench;
  const uint64_t first = bench.append(1);
  int first_result = -1;
  bench.committer.commit(first, [&](int error) { first_result = error; });
  // Its data was not covered by the flush that is under way.
  const uint64_t late = bench.append(2);
  bench.disk.complete(0, 0, 0);
  bench.disk.complete(0, 0, 0);
  CHECK(first_result == 0);
  CHECK(bench.journal.durable_ordinal() == first);
  int late_result = -1;
  bench.committer.commit(late, [&](int error) { late_result = error; });
  bench.finish_disk();
  CHECK(late_result == 0);
}

void test_rounds_overlap_but_writes_do_not() {
  Bench bench;
  std::vector<int> order;
  bench.committer.commit(bench.append(1), [&](int) { order.push_back(1); });
  bench.disk.complete(0, 0, 0);  // flush 1; its journal write is pending
  bench.committer.commit(bench.append(2), [&](int) { order.push_back(2); });
  REQUIRE(bench.disk.pending_count() == 2);
  CHECK(bench.disk.pending(1).kind == DiskOpKind::kFlush);
  bench.disk.complete(1, 0, 0);  // flush 2 ends first: its journal write waits for the one before
  CHECK(bench.disk.pending_count() == 1);
  CHECK(order.empty());
  bench.disk.complete(0, 0, 0);
  CHECK(order == std::vector<int>{1});
  bench.finish_disk();
  CHECK((order == std::vector<int>{1, 2}));
}

void test_flush_without_records_writes_nothing() {
  Bench bench;
  int result = -1;
  bench.committer.commit(0, [&](int error) { result = error; });
  REQUIRE(bench.disk.pending_count() == 1);
  bench.disk.complete(0, 0, 0);
  CHECK(result == 0);
  CHECK(bench.disk.pending_count() == 0);
  CHECK(bench.committer.journal_writes() == 0);
}

void test_what_is_flushed_is_not_flushed_again() {
  Bench bench;
  int done = 0;
  const auto commit = [&] { bench.committer.commit(0, [&](int error) { done += error == 0; }); };
  commit();  // nobody knows what the process before this one has left in the cache
  REQUIRE(bench.disk.pending_count() == 1);
  bench.committer.written();  // not covered by the flush that is under way
  bench.finish_disk();
  CHECK(done == 1);
  commit();
  REQUIRE(bench.disk.pending_count() == 1);
  CHECK(bench.disk.pending(0).kind == DiskOpKind::kFlush);
  bench.finish_disk();
  commit();
  CHECK(bench.disk.pending_count() == 0);
  CHECK(done == 3);
}

void test_error_is_sticky() {
  Bench bench;
  int result = -1;
  bench.committer.commit(bench.append(1), [&](int error) { result = error; });
  bench.disk.complete(0, EIO, 0);
  CHECK(result == EIO);
  CHECK(bench.failure == EIO);
  int later = -1;
  bench.committer.commit(0, [&](int error) { later = error; });
  CHECK(later == EIO);
}

void test_wraps_around() {
  Bench bench;
  for (uint64_t round = 0; round < 3 * kBlocks; ++round) {
    const uint64_t ordinal = bench.append(round + 1);
    bench.committer.commit(ordinal, [](int) {});
    bench.finish_disk();
    bench.journal.release(bench.journal.durable_sequence(), ordinal);
  }
  CHECK(bench.journal.tail() == 100 + 3 * kBlocks);
  CHECK(bench.sequence_at((100 + 3 * kBlocks - 1) % kBlocks) == 100 + 3 * kBlocks - 1);
}

void test_reserved_records_always_fit() {
  Bench bench;
  // Take every bit of room that reserve() gives, each record committed by itself: the worst
  // packing.
  uint64_t granted = 0;
  while (bench.journal.reserve(kMaxRecordBytes)) ++granted;
  CHECK(granted == kBlocks);
  for (uint64_t i = 0; i < granted; ++i) {
    const uint64_t ordinal = bench.append(1, kMaxFreeRuns);
    bench.journal.unreserve(kMaxRecordBytes);
    bench.committer.commit(ordinal, [](int) {});
    bench.finish_disk();
  }
  CHECK(bench.journal.used_blocks() == kBlocks);
  CHECK(!bench.journal.reserve(kRecordBytes));
  bench.journal.release(bench.journal.durable_sequence(), bench.journal.durable_ordinal());
  CHECK(bench.journal.reserve(kRecordBytes));
}

void test_many_records_in_one_commit() {
  Bench bench;
  uint64_t ordinal = 0;
  for (int i = 0; i < 300; ++i) ordinal = bench.append(1, 5);
  const uint64_t used = bench.journal.used_blocks();
  bench.committer.commit(ordinal, [](int) {});
  bench.finish_disk();
  CHECK(bench.journal.durable_ordinal() == ordinal);
  CHECK(bench.journal.used_blocks() <= used);
  CHECK(bench.journal.changes_up_to(ordinal).size() == 300 * 6);
  CHECK(bench.journal.changes_up_to(1).size() == 6);
}

}  // namespace
}  // namespace pando

int main() {
  pando::test_golden(std::string(PANDO_FIXTURES) + "/journal-v1.hex");
  pando::test_commit_makes_durable();
  pando::test_late_record_is_not_captured();
  pando::test_rounds_overlap_but_writes_do_not();
  pando::test_flush_without_records_writes_nothing();
  pando::test_what_is_flushed_is_not_flushed_again();
  pando::test_error_is_sticky();
  pando::test_wraps_around();
  pando::test_reserved_records_always_fit();
  pando::test_many_records_in_one_commit();
  return pando::test::finish("journal_test");
}
