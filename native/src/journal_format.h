// The journal's bytes, as docs/format.md has them. Shared with the TypeScript reader through golden
// fixtures.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pando {

inline constexpr uint32_t kJournalBlockBytes = 4096;
inline constexpr uint32_t kJournalHeaderBytes = 0x40;
inline constexpr uint32_t kJournalPayloadBytes = kJournalBlockBytes - kJournalHeaderBytes;
inline constexpr uint32_t kRecordBytes = 24;
inline constexpr uint32_t kFreeRunBytes = 8;
inline constexpr uint32_t kMaxFreeRuns = 64;
inline constexpr uint32_t kMaxRecordBytes = kRecordBytes + kMaxFreeRuns * kFreeRunBytes;
static_assert(kMaxRecordBytes == 536 && kMaxRecordBytes < kJournalPayloadBytes);

struct BlockRun {
  uint32_t first;
  uint32_t count;
};

/// One change of one index block.
struct JournalRecord {
  uint64_t layer;
  uint32_t span;
  uint16_t first_slot;
  uint16_t slot_count;
  uint32_t first_block;  // 0: the slots become holes
  std::vector<BlockRun> frees;

  uint32_t encoded_bytes() const {
    return kRecordBytes + static_cast<uint32_t>(frees.size()) * kFreeRunBytes;
  }
};

struct JournalBlockHeader {
  uint64_t sequence;
  uint64_t epoch;
  uint64_t durable_up_to;
  std::array<uint8_t, 16> pool_uuid;
  uint64_t first_ordinal;  // of its first record: its number since the pool was opened
};

/// Writes `record` at `out`; returns the bytes written (record.encoded_bytes()).
uint32_t encode_record(const JournalRecord& record, std::byte* out);

/// Completes a journal block of 4,096 bytes whose records are already at offset 0x40: header, zero
/// tail, checksum.
void seal_journal_block(std::byte* block, const JournalBlockHeader& header, uint16_t record_count,
                        uint32_t used_bytes);

}  // namespace pando
