// The data path of one pool: its disk, journal, index cache and lent extents, shared by its
// volumes. Lives on one reactor thread.
//
// What it needs of the control plane it asks through PoolHost; what it may be told is the public
// interface here. The table of these messages, with who owns what and in which order they come, is
// in ARCHITECTURE.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "block_io.h"
#include "buffer.h"
#include "committer.h"
#include "disk.h"
#include "extents.h"
#include "index_cache.h"
#include "journal.h"
#include "punches.h"
#include "release_queue.h"
#include "span_holds.h"

namespace pando {

class Volume;

/// Messages to the control plane. None may call back into the pool before returning.
class PoolHost {
 public:
  virtual ~PoolHost() = default;
  virtual void index_wanted(uint64_t token, uint64_t layer, uint32_t span) = 0;
  /// Lent blocks run low. Answered by lend(), once for each of these. `waiting`: writes are
  /// standing still for it.
  virtual void extents_wanted(bool waiting) = 0;
  /// The journal or the dirty index blocks have passed their limit; said once until the next
  /// checkpoint ends.
  virtual void checkpoint_wanted(const char* reason) = 0;
  virtual void blocks_freed(std::vector<BlockRun> runs) = 0;
  /// The pool is poisoned: it takes no more writes until it is opened again.
  virtual void pool_failed(int error, const std::string& what) = 0;
  /// Runs `function` on the reactor later, never inside this call.
  virtual void defer(std::function<void()> function) = 0;
  /// Runs `function` on the reactor once, after `delay_ms`.
  virtual void later(uint64_t delay_ms, std::function<void()> function) = 0;
  /// Of a clock that never goes back.
  virtual uint64_t now_ns() = 0;
};

struct PoolOptions {
  uint32_t block_size;
  uint64_t data_offset_bytes;
  size_t index_cache_bytes;
  size_t dirty_limit;           // dirty index blocks that call for a checkpoint
  uint64_t extents_low_blocks;  // fewer lent blocks than this call for more
  JournalOptions journal;
  std::string boot_id;
};

struct VolumeOptions {
  uint64_t id;
  std::string name;
  std::array<uint8_t, 16> uuid;
  uint64_t size_bytes;
  bool read_only;
  std::vector<uint64_t> lineage;  // layer ids from the live layer to the root
  bool born_here;                 // the live layer was made in this process and never opened before
  uint64_t requests_per_second = 0;  // 0: no limit
  uint64_t bytes_per_second = 0;     // 0: no limit
};

struct PoolCounters {
  uint64_t reads = 0;
  uint64_t writes = 0;
  uint64_t discards = 0;
  uint64_t flushes = 0;
  uint64_t read_bytes = 0;
  uint64_t written_bytes = 0;
  uint64_t in_place_writes = 0;  // pieces that needed no new block
  uint64_t allocating_writes = 0;
  uint64_t index_waits = 0;    // pieces that waited for an index block
  uint64_t extent_waits = 0;   // … for free blocks
  uint64_t journal_waits = 0;  // … for room in the journal
  uint64_t overlap_waits = 0;  // … for another write to the same blocks
  uint64_t gate_waits = 0;     // requests held by a snapshot
  uint64_t fold_waits = 0;     // pieces held by a fold of their span
  uint64_t limit_waits = 0;    // … by the volume's own limits
  uint64_t no_space = 0;
  uint64_t io_errors = 0;
  uint64_t freed_owned_discards = 0;   // slots discarded that the layer owned
  uint64_t freed_shared_discards = 0;  // slots discarded that an ancestor owns
};

class Pool {
 public:
  /// `shared`: memory that outlives the process, for what is acknowledged and not yet durable.
  Pool(Disk& disk, BufferPool& buffers, PoolHost& host, const PoolOptions& options,
       std::span<std::byte> shared);
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool();

  Volume* open_volume(const VolumeOptions& options);
  Volume* find_volume(uint64_t id);
  /// Waits for the volume's requests, then forgets it; requests that come meanwhile end with
  /// kClosed.
  void close_volume(uint64_t id, std::function<void()> done);

  /// Every acknowledged write of the volume becomes durable. 0 or a positive errno.
  void flush_volume(uint64_t id, std::function<void(int)> done);
  /// Holds new writes of the volumes and waits for those under way, which have their records then,
  /// durable or not. Reads go on. A positive errno if the pool takes no more writes.
  void freeze(std::vector<uint64_t> ids, std::function<void(int)> done);
  /// Ends a freeze. A layer other than 0 becomes the volume's live layer, a child of the one it
  /// had.
  void thaw(uint64_t id, uint64_t new_layer);
  void resize_volume(uint64_t id, uint64_t size_bytes);

  using TakeCopies = std::function<void(int error, std::vector<DirtyCopy> copies)>;

  struct CheckpointStart {
    int error;
    uint64_t tail;
    std::vector<FreeMapChange> changes;
    size_t dirty;
  };
  /// Makes all records durable; they are what this checkpoint covers.
  void checkpoint_begin(std::function<void(CheckpointStart)> done);
  /// Copies up to `limit` more dirty index blocks, once their records are durable. None: that was
  /// all.
  void checkpoint_take(size_t limit, TakeCopies done);
  /// What was taken last is in LMDB.
  void checkpoint_stored() { index_.batch_stored(); }
  /// `success`: the transaction with the new tail is durable.
  void checkpoint_end(bool success);

  /// Holds changes of these spans of `layer`, makes the records of their dirty index blocks
  /// durable, and gives copies of those that are dirty. However it ends, all are to be let go.
  void fold_hold(uint64_t layer, const std::vector<uint32_t>& spans, TakeCopies done);
  /// The spans of `parent` are the child's in the store, durably: takes that over, span by span.
  void fold_apply(uint64_t parent, uint64_t child, const std::vector<uint32_t>& spans,
                  const std::vector<SlotMask>& adopted);
  /// What was held goes on.
  void fold_let_go(uint64_t layer, const std::vector<uint32_t>& spans);
  /// As fold_hold, of all spans of the layer. False to `held`, and nothing is held, if more than
  /// `limit` of its index blocks are dirty.
  using TakeAll = std::function<void(int error, bool held, std::vector<DirtyCopy> copies)>;
  void fold_hold_all(uint64_t layer, size_t limit, TakeAll done);
  /// In the store, durably, the parent's storage key is the child's, with what the child had put
  /// together with it under that key.
  void fold_absorb(uint64_t parent, uint64_t child, const std::vector<uint32_t>& spans,
                   const std::vector<SlotMask>& adopted);
  void fold_let_go_all(uint64_t layer);
  /// The parent has no index block any more; nobody looks for one there from now on.
  void fold_unlink(uint64_t parent, uint64_t child) { index_.unlink(parent, child); }
  /// The release of these blocks is durable already: they are told as freed when all device I/O
  /// that may know them has ended.
  void release_blocks(const std::vector<BlockRun>& runs);

  /// Gives these blocks back to the device. They are the caller's until it is answered: nothing
  /// maps them, durably, and they are lent to nobody. 0 or a positive errno.
  void punch_blocks(std::vector<BlockRun> runs, std::function<void(int)> done);

  /// `exhausted`: there are no more; writes that need one fail until some are lent.
  void lend(const std::vector<BlockRun>& runs, bool exhausted);
  void index_answer(uint64_t token, uint64_t owner, const std::byte* bytes, bool failed);

  const PoolOptions& options() const { return options_; }
  const PoolCounters& counters() const { return counters_; }
  const IndexCache& index() const { return index_; }
  const Journal& journal() const { return journal_; }
  const Committer& committer() const { return committer_; }
  const Extents& extents() const { return extents_; }
  const ReleaseQueue& releases() const { return releases_; }
  bool failed() const { return failed_; }
  /// Takes no more writes until it is opened again; whatever waits ends with an error.
  void poison(int error, const std::string& what);
  /// The process is said to have died (simulation): what is under way is dropped with the pool.
  void abandon() { abandoned_ = true; }

 private:
  friend class Volume;

  /// The copies, whose last record is `ordinal`, when their records are durable.
  void hand_over(std::vector<DirtyCopy> copies, uint64_t ordinal, TakeCopies done);
  void wake_room_waiters();
  void wake_extent_waiters(bool no_space);
  void want_extents();
  /// `urgent`: a write is waiting for room.
  void consider_checkpoint(bool urgent);
  /// A change that takes `bytes` in the journal waits for room: what makes it is set going.
  void want_room(uint32_t bytes);
  /// Somebody has given back room that was reserved.
  void room_released();
  /// Commits before the list of unflushed records is full.
  void consider_commit(bool urgent);
  void publish_released();
  uint64_t device_offset(uint32_t block) const {
    return options_.data_offset_bytes + (uint64_t{block} - 1) * options_.block_size;
  }

  Disk& disk_;
  BufferPool& buffers_;
  PoolHost& host_;
  PoolOptions options_;
  UnflushedLog unflushed_;
  Journal journal_;
  Committer committer_;
  IndexCache index_;
  Extents extents_;
  ReleaseQueue releases_;
  SpanHolds holds_;
  Punches punches_;
  PoolCounters counters_;
  std::unordered_map<uint64_t, std::unique_ptr<Volume>> volumes_;
  std::vector<std::function<void()>> room_waiters_;
  std::vector<std::function<void(bool no_space)>> extent_waiters_;
  bool extents_asked_ = false;
  bool exhausted_ = false;
  bool failed_ = false;
  bool abandoned_ = false;

  bool relieving_ = false;  // consider_commit() has a commit under way
  bool waking_ = false;     // the waiters for room are about to try again
  bool checkpoint_running_ = false;
  bool checkpoint_asked_ = false;
  uint64_t checkpoint_tail_ = 0;
  uint64_t checkpoint_ordinal_ = 0;
  std::vector<std::pair<uint64_t, uint32_t>> checkpoint_keys_;
  size_t checkpoint_next_ = 0;
};

}  // namespace pando
