#include "span_holds.h"

#include <utility>

#include "assert.h"

namespace pando {

const std::vector<SpanHolds::Retry>* SpanHolds::find(uint64_t layer, uint32_t span) const {
  const auto whole = whole_.find(layer);
  if (whole != whole_.end()) return &whole->second;
  const auto spans = layers_.find(layer);
  if (spans == layers_.end()) return nullptr;
  const auto found = spans->second.find(span);
  return found == spans->second.end() ? nullptr : &found->second;
}

void SpanHolds::hold(uint64_t layer, uint32_t span) {
  PANDO_ASSERT(whole_.count(layer) == 0);
  const bool fresh = layers_[layer].try_emplace(span).second;
  PANDO_ASSERT(fresh);
}

void SpanHolds::hold_all(uint64_t layer) {
  PANDO_ASSERT(layers_.count(layer) == 0);
  const bool fresh = whole_.try_emplace(layer).second;
  PANDO_ASSERT(fresh);
}

void SpanHolds::wait(uint64_t layer, uint32_t span, Retry retry) {
  PANDO_ASSERT(held(layer, span));
  const auto whole = whole_.find(layer);
  auto& waiting = whole != whole_.end() ? whole->second : layers_[layer][span];
  waiting.push_back(std::move(retry));
}

std::vector<SpanHolds::Retry> SpanHolds::release(uint64_t layer, uint32_t span) {
  const auto spans = layers_.find(layer);
  PANDO_ASSERT(spans != layers_.end());
  auto node = spans->second.extract(span);
  PANDO_ASSERT(!node.empty());
  if (spans->second.empty()) layers_.erase(spans);
  return std::move(node.mapped());
}

std::vector<SpanHolds::Retry> SpanHolds::release_all(uint64_t layer) {
  auto node = whole_.extract(layer);
  PANDO_ASSERT(!node.empty());
  return std::move(node.mapped());
}

}  // namespace pando
