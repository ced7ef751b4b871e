// Writes, discards and write zeroes: plan → device I/O → apply.
#include <algorithm>
#include <cstring>
#include <utility>

#include "assert.h"
#include "piece.h"
#include "volume.h"

namespace pando {
namespace {

/// What one slot's change can take in the journal at most: a record of its own with one free run.
constexpr uint32_t kSlotRecordBytes = kRecordBytes + kFreeRunBytes;

/// The part of a piece's bytes that lies in one slot.
struct SlotRange {
  uint64_t begin_byte;  // in the volume
  uint32_t within;      // in the block
  uint32_t length;
};

SlotRange slot_range(const Piece& piece, uint32_t slot, uint32_t block_size) {
  const uint64_t slot_begin = (uint64_t{piece.span} * kSlotsPerSpan + slot) * block_size;
  const uint64_t begin = std::max(slot_begin, piece.begin_byte);
  const uint64_t end = std::min(slot_begin + block_size, piece.end_byte);
  return {begin, static_cast<uint32_t>(begin - slot_begin), static_cast<uint32_t>(end - begin)};
}

enum class SlotChange : uint8_t { kNothing, kInPlace, kNewBlock, kMergedBlock, kHole };

SlotChange change_of(IoOp op, const IndexBlock& index, uint64_t layer, uint32_t slot, bool whole) {
  const bool hole = index.block_at(slot) == 0;
  if (op != IoOp::kWrite) {
    if (hole) return SlotChange::kNothing;
    if (whole) return SlotChange::kHole;
  }
  // The own bits of an ancestor's index block say what that ancestor owns.
  if (index.layer() == layer && index.owns(slot)) return SlotChange::kInPlace;
  return whole ? SlotChange::kNewBlock : SlotChange::kMergedBlock;
}

/// Zeroes to write from; never written to.
std::byte* zero_block() {
  alignas(4096) static std::byte zeroes[65536];
  return zeroes;
}

}  // namespace

void Volume::run_write(Piece* piece) {
  if (!piece->locked) {
    piece->locked = true;
    if (!locks_.lock(piece)) {
      ++pool_.counters_.overlap_waits;
      return;  // finish_write of the one before runs it
    }
  }
  if (pool_.failed_) {
    abandon(piece, IoStatus::kIoError);
    return;
  }
  if (pool_.holds_.held(layer_->id(), piece->span)) {
    ++pool_.counters_.fold_waits;
    pool_.holds_.wait(layer_->id(), piece->span, [this, piece] { run_write(piece); });
    return;
  }
  const IndexBlock* index = pool_.index_.resolve(layer_, piece->span, [this, piece](bool failed) {
    failed ? abandon(piece, IoStatus::kIoError) : run_write(piece);
  });
  if (index == nullptr) {
    ++pool_.counters_.index_waits;
    return;
  }
  if (!make_plan(piece, *index)) return;
  if (!piece->merged.empty()) {
    read_old(piece);
  } else {
    write_data(piece);
  }
}

bool Volume::make_plan(Piece* piece, const IndexBlock& index) {
  const IoOp op = piece->request->io->op;
  const uint32_t block_size = pool_.options_.block_size;
  const uint64_t layer = layer_->id();
  std::byte* data = piece->request->io->data;

  piece->new_block_count = 0;
  piece->hole_count = 0;
  for (uint32_t slot = piece->first_slot; slot < piece->first_slot + piece->slot_count; ++slot) {
    const SlotRange range = slot_range(*piece, slot, block_size);
    const SlotChange change = change_of(op, index, layer, slot, range.length == block_size);
    if (change == SlotChange::kHole) ++piece->hole_count;
    if (change == SlotChange::kNewBlock || change == SlotChange::kMergedBlock) {
      ++piece->new_block_count;
    }
  }

  taken_.clear();
  const uint32_t changed = piece->new_block_count + piece->hole_count;
  if (changed > 0) {
    if (!pool_.journal_.reserve(changed * kSlotRecordBytes)) {
      ++pool_.counters_.journal_waits;
      pool_.room_waiters_.push_back([this, piece] { run_write(piece); });
      pool_.want_room(changed * kSlotRecordBytes);
      return false;
    }
    piece->reserved_bytes = changed * kSlotRecordBytes;
    if (!pool_.extents_.take(&cursor_, piece->new_block_count, &taken_)) {
      pool_.journal_.unreserve(std::exchange(piece->reserved_bytes, 0));
      // Freed blocks that wait for a checkpoint are worth asking for.
      if (pool_.exhausted_ && pool_.releases_.pending_blocks() == 0) {
        abandon(piece, IoStatus::kNoSpace);
        return false;
      }
      ++pool_.counters_.extent_waits;
      pool_.extent_waiters_.push_back([this, piece](bool no_space) {
        no_space ? abandon(piece, IoStatus::kNoSpace) : run_write(piece);
      });
      pool_.want_extents();
      return false;
    }
    if (pool_.extents_.free_blocks() < pool_.options_.extents_low_blocks) pool_.want_extents();
  }

  // From here to the device nothing waits: these addresses count as in use from this step on.
  pool_.releases_.start(&piece->active, false);
  size_t run = 0;
  for (uint32_t slot = piece->first_slot; slot < piece->first_slot + piece->slot_count; ++slot) {
    const SlotRange range = slot_range(*piece, slot, block_size);
    const SlotChange change = change_of(op, index, layer, slot, range.length == block_size);
    if (change == SlotChange::kNothing || change == SlotChange::kHole) continue;
    std::byte* source = op == IoOp::kWrite
                            ? data + (range.begin_byte - piece->request->io->offset_bytes)
                            : zero_block();
    if (change == SlotChange::kInPlace) {
      add_segment(piece, DiskOpKind::kWrite,
                  pool_.device_offset(index.block_at(slot)) + range.within, range.length, source);
      continue;
    }
    const uint32_t block = taken_[run].first++;
    if (--taken_[run].count == 0) ++run;
    if (!piece->new_runs.empty() &&
        piece->new_runs.back().slot + piece->new_runs.back().run.count == slot &&
        piece->new_runs.back().run.first + piece->new_runs.back().run.count == block) {
      ++piece->new_runs.back().run.count;
    } else {
      piece->new_runs.push_back({slot, {block, 1}});
    }
    if (change == SlotChange::kMergedBlock) {
      piece->merged.push_back({slot, block, index.block_at(slot), pool_.buffers_.take(block_size)});
      PANDO_ASSERT(piece->merged.back().buffer);
    } else {
      add_segment(piece, DiskOpKind::kWrite, pool_.device_offset(block), block_size, source);
    }
  }
  if (piece->new_block_count > 0) {
    ++pool_.counters_.allocating_writes;
  } else if (piece->hole_count == 0) {
    ++pool_.counters_.in_place_writes;
  }
  return true;
}

void Volume::read_old(Piece* piece) {
  // The segments of the new data wait until the old data is here.
  std::vector<Segment*> later = std::exchange(piece->segments, {});
  const uint32_t block_size = pool_.options_.block_size;
  for (MergedBlock& merged : piece->merged) {
    if (merged.old_block == 0) {
      std::memset(merged.buffer.data(), 0, block_size);
    } else {
      add_segment(piece, DiskOpKind::kRead, pool_.device_offset(merged.old_block), block_size,
                  merged.buffer.data());
    }
  }
  const bool reads = !piece->segments.empty();
  piece->merging = true;
  if (reads) submit_segments(piece);
  piece->segments = std::move(later);
  if (!reads) data_written(piece);
}

void Volume::write_data(Piece* piece) {
  if (piece->segments.empty()) {
    data_written(piece);
    return;
  }
  submit_segments(piece);
}

void Volume::data_written(Piece* piece) {
  if (piece->merging) {
    piece->merging = false;
    if (piece->error == 0) {
      const uint32_t block_size = pool_.options_.block_size;
      const BlockIo& io = *piece->request->io;
      for (MergedBlock& merged : piece->merged) {
        const SlotRange range = slot_range(*piece, merged.slot, block_size);
        if (io.op == IoOp::kWrite) {
          std::memcpy(merged.buffer.data() + range.within,
                      io.data + (range.begin_byte - io.offset_bytes), range.length);
        } else {
          std::memset(merged.buffer.data() + range.within, 0, range.length);
        }
        add_segment(piece, DiskOpKind::kWrite, pool_.device_offset(merged.block), block_size,
                    merged.buffer.data());
      }
      write_data(piece);
      return;
    }
    for (Segment* segment : std::exchange(piece->segments, {})) {
      segment_arena_.give_back(segment);
    }
  }
  pool_.releases_.finish(&piece->active);
  if (piece->error != 0 || pool_.failed_) {
    for (const NewRun& run : piece->new_runs) pool_.extents_.give_back(run.run);
    pool_.journal_.unreserve(std::exchange(piece->reserved_bytes, 0));
    pool_.room_released();
    finish_write(piece, IoStatus::kIoError);
    return;
  }
  if (piece->new_block_count + piece->hole_count == 0) {
    finish_write(piece, IoStatus::kOk);
    return;
  }
  apply(piece);
}

void Volume::apply(Piece* piece) {
  // The index block may have left memory while the data was written; the blocks and the journal's
  // room are kept meanwhile.
  const auto wake = [this, piece](bool failed) {
    if (!failed) {
      apply(piece);
      return;
    }
    for (const NewRun& run : piece->new_runs) pool_.extents_.give_back(run.run);
    pool_.journal_.unreserve(std::exchange(piece->reserved_bytes, 0));
    pool_.room_released();
    finish_write(piece, IoStatus::kIoError);
  };
  // A fold may have read the index block while the data was written: it is not to change until the
  // fold is durable, and which slots are the layer's own is decided by it.
  if (pool_.holds_.held(layer_->id(), piece->span)) {
    ++pool_.counters_.fold_waits;
    pool_.holds_.wait(layer_->id(), piece->span, [this, wake] { wake(pool_.failed_); });
    return;
  }
  const IndexBlock* resolved = pool_.index_.resolve(layer_, piece->span, wake);
  if (resolved == nullptr) {
    ++pool_.counters_.index_waits;
    return;
  }
  IndexEntry* entry = pool_.index_.own(layer_, piece->span);
  IndexBlock& index = *entry->block;
  const uint16_t owned_before = index.owned();
  const uint16_t mapped_before = index.mapped();
  const uint64_t first_ordinal = pool_.journal_.last_ordinal() + 1;

  // What is freed is decided here, not when the write was submitted: the slot may have become the
  // layer's own since.
  const auto record = [&](uint32_t first_slot, uint32_t count, uint32_t first_block) {
    JournalRecord change{
        layer_->id(), piece->span, static_cast<uint16_t>(first_slot), static_cast<uint16_t>(count),
        first_block,  {}};
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t slot = first_slot + i;
      const uint32_t old_block = index.block_at(slot);
      if (index.owns(slot)) {
        if (!change.frees.empty() &&
            change.frees.back().first + change.frees.back().count == old_block) {
          ++change.frees.back().count;
        } else if (change.frees.size() < kMaxFreeRuns) {
          change.frees.push_back({old_block, 1});
        } else {
          change.slot_count = static_cast<uint16_t>(i);
          break;
        }
      }
      index.set(slot, first_block == 0 ? 0 : first_block + i);
    }
    const uint32_t done = change.slot_count;
    const std::vector<BlockRun> frees = change.frees;
    const uint64_t ordinal = pool_.journal_.append(std::move(change));
    for (const BlockRun& run : frees) pool_.releases_.add(run, ordinal);
    return done;
  };
  const auto record_all = [&](uint32_t first_slot, uint32_t count, uint32_t first_block) {
    while (count > 0) {
      const uint32_t done = record(first_slot, count, first_block);
      first_slot += done;
      count -= done;
      if (first_block != 0) first_block += done;
    }
  };

  for (const NewRun& run : piece->new_runs) record_all(run.slot, run.run.count, run.run.first);
  if (piece->hole_count > 0) {
    const uint32_t block_size = pool_.options_.block_size;
    const uint32_t end = piece->first_slot + piece->slot_count;
    uint32_t slot = piece->first_slot;
    while (slot < end) {
      uint32_t next = slot;
      while (next < end && index.block_at(next) != 0 &&
             slot_range(*piece, next, block_size).length == block_size) {
        const bool owned = index.owns(next);
        ++(owned ? pool_.counters_.freed_owned_discards : pool_.counters_.freed_shared_discards);
        ++next;
      }
      if (next > slot) record_all(slot, next - slot, 0);
      slot = std::max(next, slot + 1);
    }
  }

  const uint64_t ordinal = pool_.journal_.last_ordinal();
  PANDO_ASSERT(ordinal >= first_ordinal);
  pool_.index_.changed(entry, owned_before, mapped_before, ordinal);
  pool_.journal_.unreserve(std::exchange(piece->reserved_bytes, 0));
  pool_.room_released();
  last_ordinal_ = std::max(last_ordinal_, ordinal);
  pool_.consider_commit(false);
  pool_.consider_checkpoint(false);
  finish_write(piece, IoStatus::kOk);
}

void Volume::abandon(Piece* piece, IoStatus status) {
  PANDO_ASSERT(piece->reserved_bytes == 0 && piece->new_runs.empty());
  finish_write(piece, status);
}

void Volume::finish_write(Piece* piece, IoStatus status) {
  piece->locked = false;
  std::vector<Piece*> next = locks_.unlock(piece);
  pool_.publish_released();
  piece_done(piece, status);
  for (Piece* waiter : next) run_write(waiter);
}

}  // namespace pando
