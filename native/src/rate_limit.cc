#include "rate_limit.h"

#include <algorithm>

namespace pando {
namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;

/// Rounded up: what is rounded down for every request would let more through than was asked for.
uint64_t cost_ns(uint64_t amount, uint64_t per_second) {
  return (amount * kSecondNs + per_second - 1) / per_second;
}

}  // namespace

void RateLimit::set(uint64_t requests_per_second, uint64_t bytes_per_second) {
  *this = RateLimit{};
  requests_per_second_ = requests_per_second;
  bytes_per_second_ = bytes_per_second;
}

bool RateLimit::admit(uint64_t now_ns, uint64_t bytes) {
  if (wait_ns(now_ns) > 0) return false;
  if (requests_per_second_ != 0) {
    requests_paid_ns_ = std::max(requests_paid_ns_, now_ns) + cost_ns(1, requests_per_second_);
  }
  if (bytes_per_second_ != 0) {
    bytes_paid_ns_ = std::max(bytes_paid_ns_, now_ns) + cost_ns(bytes, bytes_per_second_);
  }
  return true;
}

uint64_t RateLimit::wait_ns(uint64_t now_ns) const {
  const uint64_t paid = std::max(requests_paid_ns_, bytes_paid_ns_);
  return paid > now_ns + kBurstNs ? paid - now_ns - kBurstNs : 0;
}

}  // namespace pando
