// Spans of a layer, or all that it may have, whose changes wait for a fold.
//
// A fold reads the child's index block, puts it together with the parent's in one transaction, and
// tells memory when that is durable. Between the first and the last of these no write or discard
// of that span may decide anything by the index block, nor change it: it waits here, and is tried
// again in the order in which it came. Device I/O that began before goes on.
#pragma once

#include <cstdint>
#include <functional>
#include <unordered_map>
#include <vector>

namespace pando {

class SpanHolds {
 public:
  using Retry = std::function<void()>;

  /// Not twice at a time.
  void hold(uint64_t layer, uint32_t span);
  bool held(uint64_t layer, uint32_t span) const {
    return !(layers_.empty() && whole_.empty()) && find(layer, span) != nullptr;
  }
  /// Every span of the layer. Not while some are held, nor the other way round.
  void hold_all(uint64_t layer);
  /// The span is held; `retry` runs when it is released.
  void wait(uint64_t layer, uint32_t span, Retry retry);
  /// Gives what waited, in its order; the caller runs it.
  std::vector<Retry> release(uint64_t layer, uint32_t span);
  std::vector<Retry> release_all(uint64_t layer);

 private:
  const std::vector<Retry>* find(uint64_t layer, uint32_t span) const;

  std::unordered_map<uint64_t, std::unordered_map<uint32_t, std::vector<Retry>>> layers_;
  std::unordered_map<uint64_t, std::vector<Retry>> whole_;
};

}  // namespace pando
