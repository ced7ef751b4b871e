// How much of a volume's traffic may start now: so many requests and so many bytes a second.
//
// Each of the two is a schedule: the moment up to which what has started is paid for. A request may
// start while the schedule is not more than kBurstNs ahead of now, and moves it on by what it
// costs. So a volume that was idle may start that much at once and not more, one request larger
// than the burst still gets its turn, and the mean is kept exactly. Knows no clock: whoever asks
// says what time it is.
#pragma once

#include <cstdint>

namespace pando {

class RateLimit {
 public:
  static constexpr uint64_t kBurstNs = 100'000'000;

  /// 0: no limit. What was started before is forgotten.
  void set(uint64_t requests_per_second, uint64_t bytes_per_second);
  bool active() const { return requests_per_second_ != 0 || bytes_per_second_ != 0; }
  /// False: not yet; nothing is counted.
  bool admit(uint64_t now_ns, uint64_t bytes);
  /// How long until admit() is worth another try.
  uint64_t wait_ns(uint64_t now_ns) const;

 private:
  uint64_t requests_per_second_ = 0;
  uint64_t bytes_per_second_ = 0;
  uint64_t requests_paid_ns_ = 0;
  uint64_t bytes_paid_ns_ = 0;
};

}  // namespace pando
