#include "pool.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "assert.h"
#include "volume.h"

namespace pando {
namespace {

/// More records than this since the tail call for a checkpoint: it bounds the work of one, and of
/// recovery.
constexpr uint64_t kCheckpointRecords = 200'000;

struct FoldCopies {
  std::vector<DirtyCopy> copies;
  uint64_t last_ordinal = 0;  // of the records that changed them
};

FoldCopies copies_of(const std::vector<IndexEntry*>& dirty) {
  FoldCopies result;
  for (const IndexEntry* entry : dirty) {
    result.last_ordinal = std::max(result.last_ordinal, entry->last_ordinal);
    result.copies.push_back(IndexCache::copy_of(*entry));
  }
  return result;
}

}  // namespace

Pool::Pool(Disk& disk, BufferPool& buffers, PoolHost& host, const PoolOptions& options,
           std::span<std::byte> shared)
    : disk_(disk),
      buffers_(buffers),
      host_(host),
      options_(options),
      unflushed_(shared, {options.journal.pool_uuid, options.journal.epoch, options.boot_id}),
      journal_(disk, buffers, options.journal, &unflushed_),
      committer_(disk, journal_, [this](int error) { poison(error, "flush or journal write"); }),
      index_(
          options.index_cache_bytes,
          [this](uint64_t token, uint64_t layer, uint32_t span) {
            host_.index_wanted(token, layer, span);
          },
          [this] { return host_.now_ns(); }),
      punches_(disk, options.data_offset_bytes, options.block_size) {
  PANDO_ASSERT(options.block_size % kSectorSize == 0);
}

Pool::~Pool() = default;

Volume* Pool::open_volume(const VolumeOptions& options) {
  PANDO_ASSERT(find_volume(options.id) == nullptr);
  auto made = std::make_unique<Volume>(*this, options);
  Volume* volume = made.get();
  volumes_.emplace(options.id, std::move(made));
  return volume;
}

Volume* Pool::find_volume(uint64_t id) {
  const auto found = volumes_.find(id);
  return found == volumes_.end() ? nullptr : found->second.get();
}

void Pool::close_volume(uint64_t id, std::function<void()> done) {
  Volume* volume = find_volume(id);
  PANDO_ASSERT(volume != nullptr);
  volume->close([this, id, done = std::move(done)]() mutable {
    // The volume is on the stack of whoever finished its last request.
    host_.defer([this, id, done = std::move(done)] {
      volumes_.erase(id);
      done();
    });
  });
}

void Pool::flush_volume(uint64_t id, std::function<void(int)> done) {
  Volume* volume = find_volume(id);
  PANDO_ASSERT(volume != nullptr);
  committer_.commit(volume->last_ordinal(), std::move(done));
}

void Pool::freeze(std::vector<uint64_t> ids, std::function<void(int)> done) {
  auto left = std::make_shared<size_t>(ids.size());
  auto drained = [this, left, done = std::move(done)] {
    if (--*left == 0) done(committer_.error());
  };
  // Every gate closes before the first drain can end: the volumes of a group stop at one instant.
  for (uint64_t id : ids) find_volume(id)->close_gate();
  for (uint64_t id : ids) find_volume(id)->when_writes_drained(drained);
}

void Pool::thaw(uint64_t id, uint64_t new_layer) {
  Volume* volume = find_volume(id);
  PANDO_ASSERT(volume != nullptr);
  volume->open_gate(new_layer);
}

void Pool::resize_volume(uint64_t id, uint64_t size_bytes) {
  Volume* volume = find_volume(id);
  PANDO_ASSERT(volume != nullptr);
  volume->resize(size_bytes);
}

void Pool::checkpoint_begin(std::function<void(CheckpointStart)> done) {
  PANDO_ASSERT(!checkpoint_running_);
  checkpoint_running_ = true;
  committer_.commit(journal_.last_ordinal(), [this, done = std::move(done)](int error) {
    if (error != 0) {
      checkpoint_running_ = false;
      done({error, 0, {}, 0});
      return;
    }
    // Everything below next_sequence is durable here: journal writes come one after another, and
    // this runs when one has ended.
    checkpoint_tail_ = journal_.durable_sequence();
    checkpoint_ordinal_ = journal_.durable_ordinal();
    checkpoint_keys_ = index_.dirty_keys();
    checkpoint_next_ = 0;
    done({0, checkpoint_tail_, journal_.changes_up_to(checkpoint_ordinal_),
          checkpoint_keys_.size()});
  });
}

void Pool::checkpoint_take(size_t limit, TakeCopies done) {
  PANDO_ASSERT(checkpoint_running_);
  std::vector<DirtyCopy> copies;
  uint64_t ordinal = 0;
  while (copies.size() < limit && checkpoint_next_ < checkpoint_keys_.size()) {
    const auto& [layer, span] = checkpoint_keys_[checkpoint_next_++];
    IndexEntry* entry = index_.find_dirty(layer, span);
    PANDO_ASSERT(entry != nullptr);  // only the end of a checkpoint cleans
    PANDO_ASSERT(!holds_.held(layer, span));
    ordinal = std::max(ordinal, entry->last_ordinal);
    copies.push_back(index_.take(entry));
  }
  hand_over(std::move(copies), ordinal, std::move(done));
}

void Pool::hand_over(std::vector<DirtyCopy> copies, uint64_t ordinal, TakeCopies done) {
  if (ordinal <= journal_.durable_ordinal()) {
    done(0, std::move(copies));
    return;
  }
  // Nothing goes to LMDB before its records are durable.
  committer_.commit(ordinal, [copies = std::move(copies), done = std::move(done)](
                                 int error) mutable { done(error, std::move(copies)); });
}

void Pool::checkpoint_end(bool success) {
  PANDO_ASSERT(checkpoint_running_);
  checkpoint_running_ = false;
  checkpoint_asked_ = false;
  checkpoint_keys_.clear();
  index_.checkpoint_ended(success);
  if (!success) return;
  journal_.release(checkpoint_tail_, checkpoint_ordinal_);
  releases_.checkpointed(checkpoint_ordinal_);
  publish_released();
  wake_room_waiters();
}

void Pool::fold_hold(uint64_t layer, const std::vector<uint32_t>& spans, TakeCopies done) {
  std::vector<IndexEntry*> dirty;
  for (uint32_t span : spans) {
    holds_.hold(layer, span);
    index_.expect_fold(layer, span);
    IndexEntry* entry = index_.find_dirty(layer, span);
    if (entry != nullptr) dirty.push_back(entry);
  }
  FoldCopies held = copies_of(dirty);
  hand_over(std::move(held.copies), held.last_ordinal, std::move(done));
}

void Pool::fold_apply(uint64_t parent, uint64_t child, const std::vector<uint32_t>& spans,
                      const std::vector<SlotMask>& adopted) {
  PANDO_ASSERT(spans.size() == adopted.size());
  for (size_t i = 0; i < spans.size(); ++i) {
    PANDO_ASSERT(holds_.held(child, spans[i]));
    index_.adopt(parent, child, spans[i], adopted[i]);
  }
}

void Pool::fold_let_go(uint64_t layer, const std::vector<uint32_t>& spans) {
  for (uint32_t span : spans) {
    for (const SpanHolds::Retry& retry : holds_.release(layer, span)) retry();
  }
}

void Pool::fold_hold_all(uint64_t layer, size_t limit, TakeAll done) {
  const LayerState* state = index_.find_layer(layer);
  if (state != nullptr && state->dirty_count > limit) {
    done(0, false, {});
    return;
  }
  holds_.hold_all(layer);
  FoldCopies held = copies_of(index_.expect_absorb(layer));
  hand_over(std::move(held.copies), held.last_ordinal,
            [done = std::move(done)](int error, std::vector<DirtyCopy> taken) {
              done(error, true, std::move(taken));
            });
}

void Pool::fold_absorb(uint64_t parent, uint64_t child, const std::vector<uint32_t>& spans,
                       const std::vector<SlotMask>& adopted) {
  for (uint32_t span : spans) PANDO_ASSERT(holds_.held(child, span));
  index_.absorb(parent, child, spans, adopted);
}

void Pool::fold_let_go_all(uint64_t layer) {
  for (const SpanHolds::Retry& retry : holds_.release_all(layer)) retry();
}

void Pool::release_blocks(const std::vector<BlockRun>& runs) {
  for (const BlockRun& run : runs) releases_.add_durable(run);
  publish_released();
}

void Pool::punch_blocks(std::vector<BlockRun> runs, std::function<void(int)> done) {
  for (const BlockRun& run : runs) PANDO_ASSERT(run.first != 0 && run.count != 0);
  if (failed_ || runs.empty()) {
    done(failed_ ? EIO : 0);
    return;
  }
  punches_.punch(std::move(runs), std::move(done));
}

void Pool::publish_released() {
  std::vector<BlockRun> runs = releases_.take_released();
  if (!runs.empty()) host_.blocks_freed(std::move(runs));
}

void Pool::lend(const std::vector<BlockRun>& runs, bool exhausted) {
  extents_asked_ = false;
  extents_.lend(runs);
  exhausted_ = exhausted && runs.empty();
  wake_extent_waiters(exhausted_);
}

void Pool::want_extents() {
  if (extents_asked_) return;
  extents_asked_ = true;
  host_.extents_wanted(!extent_waiters_.empty());
}

void Pool::wake_extent_waiters(bool no_space) {
  for (auto& wake : std::exchange(extent_waiters_, {})) wake(no_space);
}

void Pool::wake_room_waiters() {
  for (auto& wake : std::exchange(room_waiters_, {})) wake();
}

void Pool::consider_checkpoint(bool urgent) {
  if (checkpoint_asked_ || checkpoint_running_) return;
  const bool journal_full = urgent || journal_.used_blocks() * 2 > journal_.block_count() ||
                            journal_.records_since_tail() > kCheckpointRecords;
  if (!journal_full && index_.dirty_count() <= options_.dirty_limit) return;
  checkpoint_asked_ = true;
  host_.checkpoint_wanted(journal_full ? "journal" : "dirty index blocks");
}

void Pool::want_room(uint32_t bytes) {
  if (journal_.is_full_for(bytes)) {
    consider_checkpoint(true);
  } else {
    consider_commit(true);
  }
}

void Pool::room_released() {
  if (room_waiters_.empty() || waking_) return;
  waking_ = true;
  host_.defer([this] {
    waking_ = false;
    wake_room_waiters();
  });
}

void Pool::consider_commit(bool urgent) {
  if (relieving_ || failed_) return;
  if (!urgent && unflushed_.used_bytes() * 2 <= unflushed_.capacity()) return;
  if (journal_.last_ordinal() == journal_.durable_ordinal()) return;  // only what is under way
  relieving_ = true;
  committer_.commit(journal_.last_ordinal(), [this](int) {
    relieving_ = false;
    room_released();
  });
}

void Pool::index_answer(uint64_t token, uint64_t owner, const std::byte* bytes, bool failed) {
  std::shared_ptr<IndexBlock> block;
  if (bytes != nullptr) block = IndexBlock::from_bytes(owner, bytes);
  index_.answer(token, owner, std::move(block), failed);
}

void Pool::poison(int error, const std::string& what) {
  if (failed_) return;
  failed_ = true;
  host_.pool_failed(error, what);
  // Whoever waits for room or blocks would wait for ever.
  wake_extent_waiters(false);
  wake_room_waiters();
}

}  // namespace pando
