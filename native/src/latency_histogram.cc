#include "latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "assert.h"

namespace pando {

size_t LatencyHistogram::bucket_of(uint64_t duration_ns) {
  const uint64_t value = std::min(duration_ns, (uint64_t{1} << kLongestShift) - 1);
  if (value < kLinear) return value;
  // The bits below the highest one, as many as make kLinear buckets.
  const auto shift = static_cast<unsigned>(std::bit_width(value)) - 1 - kLinearShift;
  return shift * kLinear + (value >> shift);
}

uint64_t LatencyHistogram::upper_end_ns(size_t bucket) {
  PANDO_ASSERT(bucket < kBuckets);
  if (bucket < 2 * kLinear) return bucket;
  const size_t shift = bucket / kLinear - 1;
  const uint64_t first = (bucket - shift * kLinear) << shift;
  return first + (uint64_t{1} << shift) - 1;
}

void LatencyHistogram::record(uint64_t duration_ns) {
  ++buckets_[bucket_of(duration_ns)];
  ++count_;
  sum_ns_ += duration_ns;
  max_ns_ = std::max(max_ns_, duration_ns);
}

void LatencyHistogram::add(const LatencyHistogram& other) {
  for (size_t i = 0; i < kBuckets; ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  sum_ns_ += other.sum_ns_;
  max_ns_ = std::max(max_ns_, other.max_ns_);
}

double LatencyHistogram::mean_ns() const {
  return count_ == 0 ? 0 : static_cast<double>(sum_ns_) / static_cast<double>(count_);
}

uint64_t LatencyHistogram::percentile_ns(double percent) const {
  PANDO_ASSERT(percent >= 0 && percent <= 100);
  if (count_ == 0) return 0;
  const double rank = std::ceil(static_cast<double>(count_) * percent / 100);
  const uint64_t wanted = std::clamp<uint64_t>(static_cast<uint64_t>(rank), 1, count_);
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    seen += buckets_[i];
    if (seen >= wanted) return std::min(upper_end_ns(i), max_ns_);
  }
  return max_ns_;
}

}  // namespace pando
