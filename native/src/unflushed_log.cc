#include "unflushed_log.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "assert.h"
#include "bytes.h"
#include "crc32c.h"

namespace pando {
namespace {

constexpr uint64_t kMagic = 0x3146'4C53'4E55'4450;  // "PDUNSLF1"
constexpr size_t kEpoch = 0x08;
constexpr size_t kPoolUuid = 0x10;
constexpr size_t kBootId = 0x20;
constexpr size_t kBootIdBytes = 40;
constexpr size_t kCapacity = 0x48;
constexpr size_t kHead = 0x50;
constexpr size_t kTail = 0x58;
constexpr size_t kDurable = 0x60;

constexpr uint32_t kEntryHeaderBytes = 16;  // size u32, CRC32C u32, ordinal u64
constexpr uint32_t kMaxEntryBytes = kEntryHeaderBytes + kMaxRecordBytes;
static_assert(kMaxEntryBytes % 8 == 0 && kRecordBytes % 8 == 0 && kFreeRunBytes % 8 == 0);

}  // namespace

UnflushedLog::UnflushedLog(std::span<std::byte> memory, const UnflushedIdentity& identity)
    : header_(memory.first(kHeaderBytes)), ring_(memory.subspan(kHeaderBytes)) {
  PANDO_ASSERT(ring_.size() >= 64 * 1024 && ring_.size() % 8 == 0);
  PANDO_ASSERT(identity.boot_id.size() <= kBootIdBytes);
  std::memset(header_.data(), 0, header_.size());
  store(kEpoch, identity.epoch);
  std::memcpy(header_.data() + kPoolUuid, identity.pool_uuid.data(), identity.pool_uuid.size());
  std::memcpy(header_.data() + kBootId, identity.boot_id.data(), identity.boot_id.size());
  store(kCapacity, ring_.size());
  store(0, kMagic);
}

void UnflushedLog::store(size_t offset, uint64_t value) {
  // Release: whoever reads this memory after the process has ended sees what was written before it.
  std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(header_.data() + offset))
      .store(value, std::memory_order_release);
}

uint64_t UnflushedLog::worst_case(uint32_t bytes) {
  if (bytes == 0) return 0;
  // Each record has at least kRecordBytes; one entry's room may be lost at the end of the ring.
  const uint64_t records = bytes / kRecordBytes + 1;
  return bytes + records * kEntryHeaderBytes + kMaxEntryBytes;
}

bool UnflushedLog::reserve(uint32_t bytes) {
  if (used_bytes() + worst_case(bytes) > ring_.size()) return false;
  reserved_ += worst_case(bytes);
  return true;
}

void UnflushedLog::unreserve(uint32_t bytes) {
  PANDO_ASSERT(reserved_ >= worst_case(bytes));
  reserved_ -= worst_case(bytes);
}

void UnflushedLog::append(uint64_t ordinal, const JournalRecord& record) {
  const uint32_t size = kEntryHeaderBytes + record.encoded_bytes();
  const uint64_t left = ring_.size() - head_ % ring_.size();
  if (left < size) {
    // A size of 0 sends the reader to the start of the ring.
    store_le<uint32_t>(ring_.data() + head_ % ring_.size(), 0);
    head_ += left;
  }
  PANDO_ASSERT(head_ + size - tail_ <= ring_.size());
  std::byte* entry = ring_.data() + head_ % ring_.size();
  store_le<uint32_t>(entry, size);
  store_le<uint64_t>(entry + 8, ordinal);
  encode_record(record, entry + kEntryHeaderBytes);
  store_le<uint32_t>(entry + 4, crc32c(entry + 8, size - 8));
  head_ += size;
  entries_.push_back({ordinal, head_});
  store(kHead, head_);
}

void UnflushedLog::durable(uint64_t ordinal) {
  while (!entries_.empty() && entries_.front().ordinal <= ordinal) {
    tail_ = entries_.front().end;
    entries_.pop_front();
  }
  // The ordinal first: a reader that still finds older entries leaves them out by it.
  store(kDurable, ordinal);
  store(kTail, tail_);
}

SharedMemory::SharedMemory(const std::string& path, size_t bytes) {
  unlink(path.c_str());
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  int error = fd < 0 ? errno : posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  void* mapped = MAP_FAILED;
  if (error == 0) {
    mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) error = errno;
  }
  if (fd >= 0) close(fd);
  if (error != 0) throw std::system_error(error, std::generic_category(), "map " + path);
  bytes_ = {static_cast<std::byte*>(mapped), bytes};
}

SharedMemory::~SharedMemory() {
  munmap(bytes_.data(), bytes_.size());
}

}  // namespace pando
