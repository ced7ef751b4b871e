// Counts of durations, log-linear: 64 equal buckets per power of two, so a percentile is off by
// less than 1.6 %. A fixed array: recording allocates nothing and costs an increment.
//
//   bucket   0..127: 1 ns each | 128..191: 2 ns each | 192..255: 4 ns each | ...
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace pando {

class LatencyHistogram {
 public:
  void record(uint64_t duration_ns);
  void add(const LatencyHistogram& other);

  uint64_t count() const { return count_; }
  uint64_t max_ns() const { return max_ns_; }
  double mean_ns() const;
  /// The duration that `percent` of all that were recorded did not exceed; 0 if there are none.
  uint64_t percentile_ns(double percent) const;

  /// For tests: the bucket of a duration, and the longest duration in a bucket.
  static size_t bucket_of(uint64_t duration_ns);
  static uint64_t upper_end_ns(size_t bucket);

 private:
  static constexpr unsigned kLinearShift = 6;
  static constexpr size_t kLinear = size_t{1} << kLinearShift;
  static constexpr unsigned kLongestShift = 42;  // over an hour; longer ones count as that
  static constexpr size_t kBuckets = (kLongestShift - kLinearShift + 1) * kLinear;

  std::array<uint64_t, kBuckets> buckets_{};
  uint64_t count_ = 0;
  uint64_t sum_ns_ = 0;
  uint64_t max_ns_ = 0;
};

}  // namespace pando
