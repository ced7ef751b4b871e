// Who may change which slots now: two changes of one slot go one after the other, in the order in
// which they came.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pando {

struct Piece;

class SpanLocks {
 public:
  /// True: the piece's slots are its own until unlock(). False: it waits, behind everybody who came
  /// before.
  bool lock(Piece* piece);
  /// Returns the pieces that have the lock now because of this, in the order in which they came.
  std::vector<Piece*> unlock(Piece* piece);

 private:
  struct Bucket {
    std::vector<Piece*> holders;
    std::vector<Piece*> waiting;  // in the order of arrival
  };

  static constexpr size_t kBuckets = 64;
  static bool overlap(const Piece& a, const Piece& b);
  Bucket& bucket_of(const Piece& piece);

  std::array<Bucket, kBuckets> buckets_;
};

}  // namespace pando
