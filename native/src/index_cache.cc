#include "index_cache.h"

#include <algorithm>
#include <utility>

#include "assert.h"

namespace pando {
namespace {

/// What an entry costs in memory, its index block included.
constexpr size_t kEntryBytes = 2400;

}  // namespace

void LayerState::mark_stored(uint32_t span) {
  if (!born_here_) return;
  if (span / 64 >= stored_.size()) stored_.resize(span / 64 + 1);
  stored_[span / 64] |= uint64_t{1} << (span % 64);
}

IndexCache::IndexCache(size_t limit_bytes, Ask ask, NowNs now_ns)
    : limit_entries_(std::max<size_t>(limit_bytes / kEntryBytes, 1)),
      ask_(std::move(ask)),
      now_ns_(std::move(now_ns)),
      holes_(std::make_shared<IndexBlock>(0)) {}

LayerState* IndexCache::find_layer(uint64_t id) {
  const auto found = layers_.find(id);
  return found == layers_.end() ? nullptr : found->second.get();
}

LayerState* IndexCache::open_layer(const std::vector<uint64_t>& lineage, bool born_here) {
  PANDO_ASSERT(!lineage.empty());
  // The nearest layer that memory has knows its own ancestors: a fold may have taken one of them
  // out of memory's line and not yet out of the store's.
  size_t missing = 0;
  while (missing < lineage.size() && find_layer(lineage[missing]) == nullptr) ++missing;
  LayerState* state = missing < lineage.size() ? find_layer(lineage[missing]) : nullptr;
  while (missing-- > 0) {
    const uint64_t id = lineage[missing];
    auto made = std::make_unique<LayerState>(id, state, born_here && missing == 0);
    if (state != nullptr) ++state->children;
    state = made.get();
    layers_.emplace(id, std::move(made));
  }
  ++state->users;
  return state;
}

LayerState* IndexCache::add_child(LayerState* parent, uint64_t id) {
  PANDO_ASSERT(find_layer(id) == nullptr);
  auto made = std::make_unique<LayerState>(id, parent, true);
  LayerState* state = made.get();
  layers_.emplace(id, std::move(made));
  ++parent->children;
  ++state->users;
  return state;
}

void IndexCache::close_layer(LayerState* layer) {
  PANDO_ASSERT(layer->users > 0);
  --layer->users;
  maybe_drop(layer);
}

void IndexCache::maybe_drop(LayerState* layer) {
  while (layer != nullptr && layer->users == 0 && layer->children == 0 && layer->dirty_count == 0) {
    for (auto& [span, entry] : layer->entries) clean_.erase(entry->place);
    LayerState* parent = layer->parent();
    ++lines_version_;
    layers_.erase(layer->id());
    if (parent != nullptr) --parent->children;
    layer = parent;
  }
}

IndexEntry* IndexCache::insert(LayerState* layer, uint32_t span,
                               std::shared_ptr<IndexBlock> block) {
  auto made = std::make_unique<IndexEntry>();
  IndexEntry* entry = made.get();
  if (layer->entries.empty() && layer->children > 0) ++lines_version_;
  entry->layer = layer;
  entry->span = span;
  entry->block = std::move(block);
  const bool fresh = layer->entries.emplace(span, std::move(made)).second;
  PANDO_ASSERT(fresh);
  entry->place = clean_.insert(clean_.end(), entry);
  evict();
  return entry;
}

void IndexCache::touch(IndexEntry* entry) {
  if (!entry->dirty) clean_.splice(clean_.end(), clean_, entry->place);
}

void IndexCache::forget_clean(LayerState* layer, uint32_t span) {
  const auto found = layer->entries.find(span);
  if (found == layer->entries.end()) return;
  PANDO_ASSERT(!found->second->dirty);
  clean_.erase(found->second->place);
  layer->entries.erase(found);
}

LayerState* IndexCache::inhabited_above(LayerState* layer) {
  if (layer->inhabited_version != lines_version_) {
    LayerState* at = layer->parent();
    while (at != nullptr && at->entries.empty()) at = at->parent();
    layer->inhabited = at;
    layer->inhabited_version = lines_version_;
  }
  return layer->inhabited;
}

void IndexCache::evict() {
  // The newest clean entry stays: whoever inserted it is about to use it.
  while (entry_count() > limit_entries_ && clean_.size() > 1) {
    IndexEntry* entry = clean_.front();
    clean_.pop_front();
    ++evictions_;
    entry->layer->entries.erase(entry->span);
  }
}

const IndexBlock* IndexCache::resolve(LayerState* layer, uint32_t span, const Wake& wake) {
  uint64_t depth = 0;
  for (LayerState* at = layer; at != nullptr; at = at->parent(), ++depth) {
    const auto found = at->entries.find(span);
    if (found != at->entries.end()) {
      IndexEntry* entry = found->second.get();
      touch(entry);
      ++hits_;
      if (at == layer) return entry->block.get();
      inherited_depth_max_ = std::max(inherited_depth_max_, depth);
      return insert(layer, span, entry->block)->block.get();
    }
    if (!at->may_be_stored(span)) continue;
    ++misses_;
    auto& tokens = asked_[at->id()];
    const auto asked = tokens.find(span);
    if (asked != tokens.end()) {
      questions_.at(asked->second).waiting.push_back(wake);
    } else {
      ask({at->id(), span, checkpoints_, now_ns_(), {wake}, false});
    }
    return nullptr;
  }
  ++hits_;
  return holes_.get();
}

void IndexCache::ask(Question question) {
  const uint64_t token = next_token_++;
  const uint64_t layer = question.layer;
  const uint32_t span = question.span;
  asked_[layer][span] = token;
  questions_.emplace(token, std::move(question));
  ask_(token, layer, span);
}

void IndexCache::answer(uint64_t token, uint64_t owner, std::shared_ptr<IndexBlock> block,
                        bool failed) {
  const auto found = questions_.find(token);
  PANDO_ASSERT(found != questions_.end());
  Question question = std::move(found->second);
  questions_.erase(found);
  auto tokens = asked_.find(question.layer);
  tokens->second.erase(question.span);
  if (tokens->second.empty()) asked_.erase(tokens);

  LayerState* layer = find_layer(question.layer);
  if (question.stale) {
    // A nearer layer may have it by now: the look-up begins again, at the live layer.
    ++stale_answers_;
    answered(question);
    for (Wake& wake : question.waiting) wake(false);
    return;
  }
  if (!failed && layer != nullptr) {
    if (question.checkpoint != checkpoints_) {
      // What was dirty in memory when the answer was read may have gone to LMDB, and out of memory,
      // since.
      ++stale_answers_;
      question.checkpoint = checkpoints_;
      ask(std::move(question));
      return;
    }
    // The nearest layer counts, be its index block in memory or in LMDB.
    std::shared_ptr<IndexBlock> nearest = block != nullptr ? std::move(block) : holes_;
    // A parent's id is below its children's.
    const LayerState* from = find_layer(owner);
    for (LayerState* at = layer; at != nullptr && at->id() >= owner; at = inhabited_above(at)) {
      const auto known = at->entries.find(question.span);
      if (known == at->entries.end()) continue;
      nearest = known->second->block;
      from = at;
      break;
    }
    const uint64_t depth = layer->depth - (from == nullptr ? 0 : from->depth);
    inherited_depth_max_ = std::max(inherited_depth_max_, depth);
    if (layer->entries.count(question.span) == 0) {
      insert(layer, question.span, std::move(nearest));
    }
  }
  answered(question);
  // A layer that has gone was folded away: the look-up begins again, and does not come to it.
  for (Wake& wake : question.waiting) wake(failed && layer != nullptr);
}

void IndexCache::answered(const Question& question) {
  ++answers_;
  answer_ns_ += now_ns_() - question.asked_ns;
}

IndexEntry* IndexCache::own(LayerState* layer, uint32_t span) {
  const auto found = layer->entries.find(span);
  IndexEntry* entry =
      found != layer->entries.end() ? found->second.get() : insert(layer, span, holes_);
  if (!entry->dirty) {
    const bool own = entry->block->layer() == layer->id();
    entry->stored_owned = own ? entry->block->owned() : 0;
    entry->stored_mapped = own ? entry->block->mapped() - entry->block->inherited() : 0;
    if (!own) entry->block = IndexBlock::inherit(layer->id(), *entry->block);
    entry->dirty = true;
    ++layer->dirty_count;
    dirty_.splice(dirty_.end(), clean_, entry->place);
  }
  PANDO_ASSERT(entry->block->layer() == layer->id());
  return entry;
}

void IndexCache::changed(IndexEntry* entry, uint16_t owned_before, uint16_t mapped_before,
                         uint64_t ordinal) {
  PANDO_ASSERT(entry->dirty && ordinal >= entry->last_ordinal);
  ++entry->version;
  entry->last_ordinal = ordinal;
  entry->layer->owned_delta += entry->block->owned() - owned_before;
  entry->layer->mapped_delta += entry->block->mapped() - mapped_before;
}

std::vector<std::pair<uint64_t, uint32_t>> IndexCache::dirty_keys() const {
  std::vector<std::pair<uint64_t, uint32_t>> keys;
  keys.reserve(dirty_.size());
  for (const IndexEntry* entry : dirty_) keys.emplace_back(entry->layer->id(), entry->span);
  std::sort(keys.begin(), keys.end());
  return keys;
}

IndexEntry* IndexCache::find_dirty(uint64_t layer, uint32_t span) {
  LayerState* state = find_layer(layer);
  if (state == nullptr) return nullptr;
  const auto found = state->entries.find(span);
  if (found == state->entries.end() || !found->second->dirty) return nullptr;
  return found->second.get();
}

std::vector<IndexCache::LayerDelta> IndexCache::layer_deltas() const {
  std::vector<LayerDelta> deltas;
  for (const auto& [id, layer] : layers_) {
    if (layer->owned_delta == 0 && layer->mapped_delta == 0) continue;
    deltas.push_back({id, layer->owned_delta, layer->mapped_delta});
  }
  return deltas;
}

void IndexCache::expect_fold(uint64_t child_id, uint32_t span) {
  // Answers under way may be read from after the fold, and be of the parent.
  for (auto& [token, question] : questions_) {
    if (question.span == span) question.stale = true;
  }
  if (LayerState* child = find_layer(child_id)) child->mark_stored(span);
}

void IndexCache::adopt(uint64_t parent_id, uint64_t child_id, uint32_t span,
                       const SlotMask& adopted) {
  // An answer from before would be the parent's index block, without what is the child's own now.
  expect_fold(child_id, span);
  if (LayerState* parent = find_layer(parent_id)) forget_clean(parent, span);
  LayerState* child = find_layer(child_id);
  if (child == nullptr) return;
  const auto found = child->entries.find(span);
  if (found == child->entries.end()) return;
  IndexEntry* entry = found->second.get();
  if (entry->block->layer() != child_id) {
    PANDO_ASSERT(!entry->dirty);
    entry->block = IndexBlock::adopt(child_id, *entry->block, adopted);
    return;
  }
  adopt_into(entry, adopted);
}

void IndexCache::adopt_into(IndexEntry* entry, const SlotMask& adopted) {
  LayerState* layer = entry->layer;
  const uint16_t owned_before = entry->block->owned();
  entry->block->own_also(adopted);
  if (!entry->dirty) return;
  // The store has, and counts, exactly this block now.
  const int32_t owned = entry->block->owned();
  const int32_t mapped = entry->block->mapped() - entry->block->inherited();
  layer->owned_delta -= owned_before - entry->stored_owned;
  layer->mapped_delta -= mapped - entry->stored_mapped;
  entry->stored_owned = owned;
  entry->stored_mapped = mapped;
}

std::vector<IndexEntry*> IndexCache::expect_absorb(uint64_t child_id) {
  // Answers under way may be of the parent, and questions under way may come when it is no more.
  for (auto& [token, question] : questions_) question.stale = true;
  std::vector<IndexEntry*> dirty;
  LayerState* child = find_layer(child_id);
  if (child == nullptr) return dirty;
  child->may_have_any();
  for (const auto& [span, entry] : child->entries) {
    if (entry->dirty) dirty.push_back(entry.get());
  }
  return dirty;
}

void IndexCache::absorb(uint64_t parent_id, uint64_t child_id, const std::vector<uint32_t>& spans,
                        const std::vector<SlotMask>& adopted) {
  PANDO_ASSERT(spans.size() == adopted.size());
  expect_absorb(child_id);
  LayerState* child = find_layer(child_id);
  if (child == nullptr) return;
  // Which blocks of a clean entry are the child's own now, only the store can say.
  for (auto at = child->entries.begin(); at != child->entries.end();) {
    if (at->second->dirty) {
      ++at;
    } else {
      clean_.erase(at->second->place);
      at = child->entries.erase(at);
    }
  }
  size_t told = 0;
  for (size_t i = 0; i < spans.size(); ++i) {
    const auto found = child->entries.find(spans[i]);
    if (found == child->entries.end()) continue;
    adopt_into(found->second.get(), adopted[i]);
    ++told;
  }
  PANDO_ASSERT(told == child->entries.size());  // what is dirty has all been put
  unlink(parent_id, child_id);
}

void IndexCache::unlink(uint64_t parent_id, uint64_t child_id) {
  LayerState* parent = find_layer(parent_id);
  if (parent == nullptr) return;
  PANDO_ASSERT(parent->users == 0 && parent->dirty_count == 0);
  LayerState* child = find_layer(child_id);
  PANDO_ASSERT(child != nullptr && child->parent() == parent && parent->children == 1);
  child->set_parent(parent->parent());
  if (parent->parent() != nullptr) ++parent->parent()->children;
  --parent->children;
  maybe_drop(parent);
}

DirtyCopy IndexCache::copy_of(const IndexEntry& entry) {
  DirtyCopy copy;
  copy.layer = entry.layer->id();
  copy.span = entry.span;
  entry.block->to_bytes(copy.bytes.data());
  return copy;
}

DirtyCopy IndexCache::take(IndexEntry* entry) {
  PANDO_ASSERT(entry->dirty);
  const DirtyCopy copy = copy_of(*entry);
  entry->taken_version = entry->version;
  entry->taken_owned = entry->block->owned();
  entry->taken_mapped = entry->block->mapped() - entry->block->inherited();
  batch_.push_back(entry);
  return copy;
}

void IndexCache::batch_stored() {
  for (IndexEntry* entry : batch_) {
    LayerState* layer = entry->layer;
    layer->owned_delta -= entry->taken_owned - entry->stored_owned;
    layer->mapped_delta -= entry->taken_mapped - entry->stored_mapped;
    entry->stored_owned = entry->taken_owned;
    entry->stored_mapped = entry->taken_mapped;
    layer->mark_stored(entry->span);
    taken_.push_back(entry);
  }
  batch_.clear();
}

void IndexCache::checkpoint_ended(bool success) {
  std::vector<IndexEntry*> taken = std::exchange(taken_, {});
  batch_.clear();
  if (!success) return;
  ++checkpoints_;
  std::vector<uint64_t> touched;
  for (IndexEntry* entry : taken) {
    if (entry->version != entry->taken_version) continue;
    entry->dirty = false;
    --entry->layer->dirty_count;
    clean_.splice(clean_.end(), dirty_, entry->place);
    if (entry->layer->users == 0) touched.push_back(entry->layer->id());
  }
  for (uint64_t id : touched) {
    if (LayerState* layer = find_layer(id)) maybe_drop(layer);
  }
  evict();
}

}  // namespace pando
