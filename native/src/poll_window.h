// How long to poll for a device's answer before the thread goes to sleep.
//
// Going to sleep and being woken costs as much as a fast device takes to answer. So a wait begins
// with polling, for a time that follows what polling would have been good for: it grows while
// answers come soon after the thread went to sleep, and shrinks to nothing while they take long.
// The same rule as the kernel's for halted guests (Linux, Documentation/virt/kvm/halt-polling.rst).
#pragma once

#include <cstdint>

namespace pando {

class PollWindow {
 public:
  /// A device that takes longer than this is not worth a core.
  static constexpr uint64_t kLongestNs = 64'000;
  static constexpr uint64_t kShortestNs = 8'000;

  uint64_t ns() const { return ns_; }

  /// A wait that polling did not end took `waited_ns`, with the polling.
  void slept(uint64_t waited_ns);

 private:
  uint64_t ns_ = 0;
};

}  // namespace pando
