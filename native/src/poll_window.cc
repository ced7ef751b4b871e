#include "poll_window.h"

#include <algorithm>

namespace pando {

void PollWindow::slept(uint64_t waited_ns) {
  if (waited_ns <= kLongestNs) {
    ns_ = std::min(std::max(ns_ * 2, kShortestNs), kLongestNs);
  } else {
    ns_ = ns_ / 2 < kShortestNs ? 0 : ns_ / 2;
  }
}

}  // namespace pando
