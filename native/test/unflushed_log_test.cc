// The list of what is acknowledged and not durable: what a reader finds in its memory at any
// moment, around the end of the ring too.
#include "unflushed_log.h"

#include <vector>

#include "bytes.h"
#include "check.h"

namespace pando {
namespace {

constexpr size_t kRing = 64 * 1024;

struct Bench {
  std::vector<std::byte> memory = std::vector<std::byte>(UnflushedLog::kHeaderBytes + kRing);
  UnflushedLog log{memory, {{1, 2, 3}, 7, "boot"}};

  /// The ordinals that a reader finds, by docs/format.md.
  std::vector<uint64_t> ordinals() const {
    const auto field = [this](size_t at) { return load_le<uint64_t>(memory.data() + at); };
    std::vector<uint64_t> found;
    uint64_t at = field(0x58);
    while (at < field(0x50)) {
      const std::byte* entry = memory.data() + UnflushedLog::kHeaderBytes + at % kRing;
      const uint32_t size = load_le<uint32_t>(entry);
      if (size == 0) {
        at += kRing - at % kRing;
        continue;
      }
      const uint64_t ordinal = load_le<uint64_t>(entry + 8);
      if (ordinal > field(0x60)) found.push_back(ordinal);
      at += size;
    }
    return found;
  }
};

JournalRecord record(uint32_t runs) {
  JournalRecord made{1, 2, 3, 1, 4, {}};
  for (uint32_t i = 0; i < runs; ++i) made.frees.push_back({10 + i * 2, 1});
  return made;
}

void test_entries_stay_until_durable() {
  Bench bench;
  CHECK(bench.ordinals().empty());
  for (uint64_t ordinal = 1; ordinal <= 3; ++ordinal) bench.log.append(ordinal, record(2));
  CHECK((bench.ordinals() == std::vector<uint64_t>{1, 2, 3}));
  bench.log.durable(2);
  CHECK((bench.ordinals() == std::vector<uint64_t>{3}));
  bench.log.durable(3);
  CHECK(bench.ordinals().empty());
  CHECK(bench.log.used_bytes() == 0);
}

void test_goes_around() {
  Bench bench;
  uint64_t durable = 0;
  for (uint64_t ordinal = 1; ordinal <= 5'000; ++ordinal) {
    const uint32_t runs = static_cast<uint32_t>(ordinal * 7 % (kMaxFreeRuns + 1));
    const JournalRecord next = record(runs);
    while (!bench.log.reserve(next.encoded_bytes())) bench.log.durable(++durable);
    bench.log.append(ordinal, next);
    bench.log.unreserve(next.encoded_bytes());
    const auto found = bench.ordinals();
    REQUIRE(found.size() == ordinal - durable);
    REQUIRE(found.front() == durable + 1 && found.back() == ordinal);
  }
  CHECK(durable > 4'000);
}

void test_room_is_never_oversold() {
  Bench bench;
  uint32_t granted = 0;
  while (bench.log.reserve(kMaxRecordBytes)) ++granted;
  CHECK(granted > 20);
  for (uint32_t i = 1; i <= granted; ++i) bench.log.append(i, record(kMaxFreeRuns));
  CHECK(bench.ordinals().size() == granted);
  CHECK(!bench.log.reserve(kRecordBytes));
  bench.log.unreserve(0);
}

}  // namespace
}  // namespace pando

int main() {
  pando::test_entries_stay_until_durable();
  pando::test_goes_around();
  pando::test_room_is_never_oversold();
  return pando::test::finish("unflushed_log_test");
}
