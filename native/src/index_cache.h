// The index in memory: per layer, the index blocks that are dirty (not in LMDB yet) or cached.
//
// An entry (layer, span) holds the *resolution* of that span for that layer: the nearest index
// block from the layer towards the root, the layer's own or an ancestor's that is shared. Dirty
// entries are the layer's own, and stay; clean ones leave when the cache is full, the longest
// unused first.
//
// Look-up walks from the layer towards the root through memory only. Where memory does not know (a
// layer that was there before this process, and an entry that is not cached) the index service is
// asked for the rest of the way, and what it says is checked again against memory: a nearer index
// block may be dirty, and an answer from before the end of a checkpoint, or from before a fold of
// that span, may be stale.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "index_block.h"

namespace pando {

class LayerState;

struct IndexEntry {
  LayerState* layer = nullptr;
  uint32_t span = 0;
  std::shared_ptr<IndexBlock> block;
  bool dirty = false;
  uint64_t version = 0;  // of the contents, while dirty
  uint64_t taken_version = 0;
  uint64_t last_ordinal = 0;  // of the last record that changed it
  int32_t stored_owned = 0;   // as LMDB counts it
  int32_t stored_mapped = 0;  // mapped - inherited, as LMDB counts it
  int32_t taken_owned = 0;
  int32_t taken_mapped = 0;
  std::list<IndexEntry*>::iterator place;  // in the list of clean, or of dirty entries
};

/// What memory knows of one layer.
class LayerState {
 public:
  LayerState(uint64_t id, LayerState* parent, bool born_here)
      : depth(parent == nullptr ? 0 : parent->depth + 1),
        id_(id),
        parent_(parent),
        born_here_(born_here) {}

  uint64_t id() const { return id_; }
  LayerState* parent() const { return parent_; }
  /// The one before was folded into this layer.
  void set_parent(LayerState* parent) { parent_ = parent; }
  /// LMDB is about to have index blocks of the layer that were not made here.
  void may_have_any() {
    born_here_ = false;
    stored_.clear();
  }
  /// True if LMDB has, or may have, an index block of this layer for `span`.
  bool may_be_stored(uint32_t span) const {
    if (!born_here_) return true;
    return span / 64 < stored_.size() && (stored_[span / 64] >> (span % 64) & 1) != 0;
  }
  void mark_stored(uint32_t span);

  /// Layers above it when it came into memory; a fold since may have taken some away.
  const uint64_t depth;

  // Changes against what LMDB counts, in blocks.
  int64_t owned_delta = 0;
  int64_t mapped_delta = 0;
  uint32_t dirty_count = 0;
  uint32_t users = 0;     // open volumes whose lineage it is part of
  uint32_t children = 0;  // layer states whose parent it is

  std::unordered_map<uint32_t, std::unique_ptr<IndexEntry>> entries;

  // The nearest ancestor with entries, as it was when the cache's lines had this version.
  LayerState* inhabited = nullptr;
  uint64_t inhabited_version = 0;

 private:
  uint64_t id_;
  LayerState* parent_;
  bool born_here_;  // made in this process with nothing in LMDB, so `stored_` is the whole truth
  std::vector<uint64_t> stored_;
};

/// An index block copied for LMDB.
struct DirtyCopy {
  uint64_t layer;
  uint32_t span;
  std::array<std::byte, kIndexBlockBytes> bytes;
};

class IndexCache {
 public:
  /// `ask(token, layer, span)` sends a question to the index service; answer() brings the reply.
  using Ask = std::function<void(uint64_t token, uint64_t layer, uint32_t span)>;
  /// Runs when a look-up that had to wait can be tried again, or has failed.
  using Wake = std::function<void(bool failed)>;
  /// Of a clock that never goes back.
  using NowNs = std::function<uint64_t()>;

  IndexCache(size_t limit_bytes, Ask ask, NowNs now_ns);

  /// The layer's state; made with its whole lineage if need be. `lineage`: ids from the layer to
  /// the root.
  LayerState* open_layer(const std::vector<uint64_t>& lineage, bool born_here);
  /// Balances open_layer. States without users and without dirty entries go.
  void close_layer(LayerState* layer);
  LayerState* find_layer(uint64_t id);
  /// A child of `parent` that was made just now.
  LayerState* add_child(LayerState* parent, uint64_t id);

  /// The resolution of (layer, span), good until the next call of anything here; or null after
  /// having kept `wake` for later.
  const IndexBlock* resolve(LayerState* layer, uint32_t span, const Wake& wake);

  /// The layer's own index block, to be changed in this step; copied from what it inherits if it
  /// has none, and dirty from now on. Only after resolve() has given something in this same step.
  IndexEntry* own(LayerState* layer, uint32_t span);
  /// Says that record `ordinal` changed `entry`, which had these counts before.
  void changed(IndexEntry* entry, uint16_t owned_before, uint16_t mapped_before, uint64_t ordinal);

  /// The index service's reply. `owner` 0: there is no index block from `layer` to the root.
  void answer(uint64_t token, uint64_t owner, std::shared_ptr<IndexBlock> block, bool failed);

  // Fold of a layer into its only child; see the table in ARCHITECTURE.md.
  /// The store is about to have an index block of `child` for the span, in place of its parent's:
  /// from now on a look-up asks for the child's first. Whatever the answer is read from, before or
  /// after, is right then; of the parent it would be an ancestor's once the fold is committed.
  void expect_fold(uint64_t child, uint32_t span);
  /// The store has the two layers' index blocks of `span` as one, the child's: `adopted` are the
  /// slots that have become its own.
  void adopt(uint64_t parent, uint64_t child, uint32_t span, const SlotMask& adopted);
  /// The same of every span at once, for a child that takes over its parent's storage key. Gives
  /// the child's dirty entries.
  std::vector<IndexEntry*> expect_absorb(uint64_t child);
  /// The store has the parent's index blocks as the child's, and those that the child had as one
  /// with them: `adopted` are the slots of `spans` that have become its own. The parent is no more.
  void absorb(uint64_t parent, uint64_t child, const std::vector<uint32_t>& spans,
              const std::vector<SlotMask>& adopted);
  /// The parent has no index block any more: the child goes on above the parent's own parent.
  void unlink(uint64_t parent, uint64_t child);

  // Checkpoint: dirty entries are copied batch by batch; each batch is put in LMDB before the next
  // is taken.
  /// The entries that are dirty now, as (layer, span) in order.
  std::vector<std::pair<uint64_t, uint32_t>> dirty_keys() const;
  /// The entry, or null if it is not dirty (any more).
  IndexEntry* find_dirty(uint64_t layer, uint32_t span);
  DirtyCopy take(IndexEntry* entry);
  /// For a fold: as it is now, and dirty as before.
  static DirtyCopy copy_of(const IndexEntry& entry);
  /// What was taken since the last call is in LMDB.
  void batch_stored();
  /// The checkpoint is durable: entries that were not changed since their copy are clean. `success`
  /// false: all stay dirty.
  void checkpoint_ended(bool success);

  struct LayerDelta {
    uint64_t layer;
    int64_t owned;
    int64_t mapped;
  };
  /// Of every layer of which more, or less, is owned or mapped than LMDB counts.
  std::vector<LayerDelta> layer_deltas() const;

  size_t dirty_count() const { return dirty_.size(); }
  size_t entry_count() const { return clean_.size() + dirty_.size(); }
  uint64_t hits() const { return hits_; }
  uint64_t misses() const { return misses_; }
  /// Questions that were answered for good: a miss of what is asked for already makes none.
  uint64_t answers() const { return answers_; }
  /// How long all of them took together, from the question to whoever waited.
  uint64_t answer_ns() const { return answer_ns_; }
  uint64_t evictions() const { return evictions_; }
  uint64_t stale_answers() const { return stale_answers_; }
  uint64_t inherited_depth_max() const { return inherited_depth_max_; }

 private:
  struct Question {
    uint64_t layer;
    uint32_t span;
    uint64_t checkpoint;  // of the time it was asked
    uint64_t asked_ns;
    std::vector<Wake> waiting;
    bool stale = false;  // the span was folded since
  };

  IndexEntry* insert(LayerState* layer, uint32_t span, std::shared_ptr<IndexBlock> block);
  void touch(IndexEntry* entry);
  void forget_clean(LayerState* layer, uint32_t span);
  void evict();
  /// The nearest ancestor that may have entries. A line of a thousand layers has them in a few, and
  /// is not walked for every answer.
  LayerState* inhabited_above(LayerState* layer);
  /// The entry's block gets these own bits, as the store has it now.
  static void adopt_into(IndexEntry* entry, const SlotMask& adopted);
  void maybe_drop(LayerState* layer);
  void ask(Question question);
  void answered(const Question& question);

  size_t limit_entries_;
  Ask ask_;
  NowNs now_ns_;
  std::unordered_map<uint64_t, std::unique_ptr<LayerState>> layers_;
  std::list<IndexEntry*> clean_;  // the longest unused first
  std::list<IndexEntry*> dirty_;
  std::unordered_map<uint64_t, Question> questions_;  // by token
  std::unordered_map<uint64_t, std::unordered_map<uint32_t, uint64_t>>
      asked_;  // layer, span -> token
  std::shared_ptr<IndexBlock> holes_;
  uint64_t next_token_ = 1;
  uint64_t checkpoints_ = 0;
  uint64_t lines_version_ = 1;  // a layer with children has entries now, or one has gone
  std::vector<IndexEntry*> batch_;
  std::vector<IndexEntry*> taken_;
  uint64_t hits_ = 0;
  uint64_t misses_ = 0;
  uint64_t answers_ = 0;
  uint64_t answer_ns_ = 0;
  uint64_t evictions_ = 0;
  uint64_t stale_answers_ = 0;
  uint64_t inherited_depth_max_ = 0;
};

}  // namespace pando
