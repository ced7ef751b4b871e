#include "journal_format.h"

#include <cstring>

#include "assert.h"
#include "bytes.h"
#include "crc32c.h"

namespace pando {
namespace {

constexpr uint32_t kMagic = 0x31424A50;  // "PJB1"

}  // namespace

uint32_t encode_record(const JournalRecord& record, std::byte* out) {
  PANDO_ASSERT(record.slot_count > 0 && record.first_slot + record.slot_count <= 512);
  PANDO_ASSERT(record.frees.size() <= kMaxFreeRuns);
  store_le<uint64_t>(out + 0x00, record.layer);
  store_le<uint32_t>(out + 0x08, record.span);
  store_le<uint16_t>(out + 0x0c, record.first_slot);
  store_le<uint16_t>(out + 0x0e, record.slot_count);
  store_le<uint32_t>(out + 0x10, record.first_block);
  store_le<uint16_t>(out + 0x14, static_cast<uint16_t>(record.frees.size()));
  store_le<uint16_t>(out + 0x16, 0);
  std::byte* at = out + kRecordBytes;
  for (const BlockRun& run : record.frees) {
    store_le<uint32_t>(at, run.first);
    store_le<uint32_t>(at + 4, run.count);
    at += kFreeRunBytes;
  }
  return record.encoded_bytes();
}

void seal_journal_block(std::byte* block, const JournalBlockHeader& header, uint16_t record_count,
                        uint32_t used_bytes) {
  PANDO_ASSERT(used_bytes <= kJournalPayloadBytes);
  std::memset(block, 0, kJournalHeaderBytes);
  std::memset(block + kJournalHeaderBytes + used_bytes, 0, kJournalPayloadBytes - used_bytes);
  store_le<uint32_t>(block + 0x00, kMagic);
  store_le<uint64_t>(block + 0x08, header.sequence);
  store_le<uint64_t>(block + 0x10, header.epoch);
  store_le<uint64_t>(block + 0x18, header.durable_up_to);
  store_le<uint16_t>(block + 0x20, record_count);
  store_le<uint32_t>(block + 0x24, used_bytes);
  std::memcpy(block + 0x28, header.pool_uuid.data(), header.pool_uuid.size());
  store_le<uint64_t>(block + 0x38, header.first_ordinal);
  store_le<uint32_t>(block + 0x04, crc32c(block + 8, kJournalBlockBytes - 8));
}

}  // namespace pando
