#include "span_locks.h"

#include <algorithm>

#include "assert.h"
#include "piece.h"

namespace pando {

bool SpanLocks::overlap(const Piece& a, const Piece& b) {
  return a.span == b.span && a.first_slot < b.first_slot + b.slot_count &&
         b.first_slot < a.first_slot + a.slot_count;
}

SpanLocks::Bucket& SpanLocks::bucket_of(const Piece& piece) {
  return buckets_[piece.span % kBuckets];
}

bool SpanLocks::lock(Piece* piece) {
  Bucket& bucket = bucket_of(*piece);
  const auto conflicts = [piece](const Piece* other) { return overlap(*piece, *other); };
  if (std::any_of(bucket.holders.begin(), bucket.holders.end(), conflicts) ||
      std::any_of(bucket.waiting.begin(), bucket.waiting.end(), conflicts)) {
    bucket.waiting.push_back(piece);
    return false;
  }
  bucket.holders.push_back(piece);
  return true;
}

std::vector<Piece*> SpanLocks::unlock(Piece* piece) {
  Bucket& bucket = bucket_of(*piece);
  const auto held = std::find(bucket.holders.begin(), bucket.holders.end(), piece);
  PANDO_ASSERT(held != bucket.holders.end());
  *held = bucket.holders.back();
  bucket.holders.pop_back();

  std::vector<Piece*> ready;
  if (bucket.waiting.empty()) return ready;
  std::vector<Piece*> still_waiting;
  for (Piece* waiter : bucket.waiting) {
    const auto conflicts = [waiter](const Piece* other) { return overlap(*waiter, *other); };
    if (std::any_of(bucket.holders.begin(), bucket.holders.end(), conflicts) ||
        std::any_of(still_waiting.begin(), still_waiting.end(), conflicts)) {
      still_waiting.push_back(waiter);
    } else {
      bucket.holders.push_back(waiter);
      ready.push_back(waiter);
    }
  }
  bucket.waiting.swap(still_waiting);
  return ready;
}

}  // namespace pando
