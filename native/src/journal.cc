#include "journal.h"

#include <algorithm>
#include <utility>

#include "assert.h"

namespace pando {
namespace {

/// A block takes at least this much before the next record does not fit.
constexpr uint32_t kAssuredBytes = kJournalPayloadBytes - kMaxRecordBytes;
/// Blocks per device write.
constexpr size_t kWriteBlocks = 64;

}  // namespace

Journal::Journal(Disk& disk, BufferPool& buffers, const JournalOptions& options,
                 UnflushedLog* unflushed)
    : disk_(disk),
      buffers_(buffers),
      options_(options),
      unflushed_(unflushed),
      tail_(options.next_sequence),
      next_sequence_(options.next_sequence),
      written_sequence_(options.next_sequence) {
  op_.context = this;
  op_.done = [](DiskOp* op) {
    auto* self = static_cast<Journal*>(op->context);
    if (op->error == 0) {
      self->blocks_written_ += self->blocks_in_flight_;
      self->written_sequence_ += self->blocks_in_flight_;
      self->write_next();
      return;
    }
    self->writing_ = false;
    std::exchange(self->done_, nullptr)(op->error);
  };
}

uint64_t Journal::blocks_for(uint64_t bytes) {
  return bytes == 0 ? 0 : bytes / kAssuredBytes + 1;
}

uint64_t Journal::used_blocks() const {
  return next_sequence_ - tail_ + reserved_blocks_ + blocks_for(captured_bytes_) +
         blocks_for(fresh_bytes_);
}

bool Journal::reserve(uint32_t bytes) {
  const uint64_t blocks = blocks_for(bytes);
  if (is_full_for(bytes)) return false;
  if (unflushed_ != nullptr && !unflushed_->reserve(bytes)) return false;
  reserved_blocks_ += blocks;
  return true;
}

void Journal::unreserve(uint32_t bytes) {
  PANDO_ASSERT(reserved_blocks_ >= blocks_for(bytes));
  reserved_blocks_ -= blocks_for(bytes);
  if (unflushed_ != nullptr) unflushed_->unreserve(bytes);
}

uint64_t Journal::append(JournalRecord record) {
  const uint64_t ordinal = ++last_ordinal_;
  fresh_bytes_ += record.encoded_bytes();
  if (record.first_block != 0) {
    changes_.push_back({ordinal, {record.first_block, record.slot_count, true}});
  }
  for (const BlockRun& run : record.frees) {
    changes_.push_back({ordinal, {run.first, run.count, false}});
  }
  if (unflushed_ != nullptr) unflushed_->append(ordinal, record);
  records_.push_back(std::move(record));
  return ordinal;
}

void Journal::capture() {
  captured_bytes_ += fresh_bytes_;
  fresh_bytes_ = 0;
  captured_ordinal_ = last_ordinal_;
}

void Journal::pack() {
  uint64_t remaining = captured_ordinal_ - durable_ordinal_;
  PANDO_ASSERT(remaining <= records_.size());
  while (remaining > 0) {
    if (blocks_.size() % kWriteBlocks == 0) {
      buffers_in_use_.push_back(buffers_.take(kWriteBlocks * kJournalBlockBytes));
      PANDO_ASSERT(buffers_in_use_.back());
    }
    std::byte* block =
        buffers_in_use_.back().data() + blocks_.size() % kWriteBlocks * kJournalBlockBytes;
    const uint64_t first_ordinal = captured_ordinal_ - remaining + 1;
    uint32_t used = 0;
    uint16_t count = 0;
    while (remaining > 0 && used + records_.front().encoded_bytes() <= kJournalPayloadBytes) {
      used += encode_record(records_.front(), block + kJournalHeaderBytes + used);
      records_.pop_front();
      ++count;
      --remaining;
    }
    seal_journal_block(
        block,
        {next_sequence_, options_.epoch, written_sequence_, options_.pool_uuid, first_ordinal},
        count, used);
    ++next_sequence_;
    blocks_.push_back(block);
  }
  captured_bytes_ = 0;
  PANDO_ASSERT(next_sequence_ - tail_ <= options_.block_count);
}

void Journal::write_captured(std::function<void(int)> done) {
  PANDO_ASSERT(!writing_);
  writing_ = true;
  writing_ordinal_ = captured_ordinal_;
  done_ = std::move(done);
  blocks_written_ = 0;
  pack();
  write_next();
}

void Journal::write_next() {
  if (blocks_written_ == blocks_.size()) {
    blocks_.clear();
    buffers_in_use_.clear();
    durable_ordinal_ = writing_ordinal_;
    if (unflushed_ != nullptr) unflushed_->durable(durable_ordinal_);
    writing_ = false;
    std::exchange(done_, nullptr)(0);
    return;
  }
  const uint64_t position = written_sequence_ % options_.block_count;
  size_t count = kWriteBlocks - blocks_written_ % kWriteBlocks;  // one buffer
  count = std::min(count, blocks_.size() - blocks_written_);
  count = std::min<uint64_t>(count, options_.block_count - position);  // the end of the ring
  blocks_in_flight_ = count;
  op_.kind = DiskOpKind::kWriteDurable;
  op_.offset = options_.offset_bytes + position * kJournalBlockBytes;
  op_.length = static_cast<uint32_t>(count) * kJournalBlockBytes;
  op_.data = blocks_[blocks_written_];
  disk_.submit(&op_);
}

std::vector<FreeMapChange> Journal::changes_up_to(uint64_t ordinal) const {
  std::vector<FreeMapChange> result;
  for (const auto& [at, change] : changes_) {
    if (at > ordinal) break;
    if (!result.empty() && result.back().allocate == change.allocate &&
        result.back().first_block + result.back().count == change.first_block) {
      result.back().count += change.count;  // most allocations go on where the last one ended
    } else {
      result.push_back(change);
    }
  }
  return result;
}

void Journal::release(uint64_t tail, uint64_t ordinal) {
  PANDO_ASSERT(tail >= tail_ && tail <= next_sequence_);
  PANDO_ASSERT(ordinal <= durable_ordinal_);
  tail_ = tail;
  tail_ordinal_ = ordinal;
  while (!changes_.empty() && changes_.front().ordinal <= ordinal) changes_.pop_front();
}

}  // namespace pando
