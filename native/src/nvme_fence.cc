#include "nvme_fence.h"

#include <utility>

namespace pando::nvme {

Fences::~Fences() {
  for (Fence& fence : fences_) reactor_.cancel_timer(fence.timer);
}

void Fences::add(std::set<uint64_t> connections, std::set<uint16_t> controllers,
                 uint64_t timeout_ms, Done done) {
  const FenceReport report{static_cast<uint32_t>(controllers.size()), false};
  Fence& fence = fences_.emplace_back(
      Fence{std::move(connections), std::move(controllers), report, std::move(done)});
  answer_in(fence, fence.open() ? timeout_ms : 0);
}

// In a turn of its own: whoever says that something is gone may be in the middle of its end.
void Fences::answer_in(Fence& fence, uint64_t delay_ms) {
  reactor_.cancel_timer(fence.timer);
  fence.timer = reactor_.add_timer(delay_ms, [this, &fence] {
    const Done done = std::move(fence.done);
    FenceReport report = fence.report;
    report.ended = !fence.open();
    fences_.remove_if([&fence](const Fence& each) { return &each == &fence; });
    done(report);
  });
}

void Fences::connection_gone(uint64_t id) {
  for (Fence& fence : fences_) {
    if (fence.connections.erase(id) > 0 && !fence.open()) answer_in(fence, 0);
  }
}

void Fences::controller_gone(uint16_t id) {
  for (Fence& fence : fences_) {
    if (fence.controllers.erase(id) > 0 && !fence.open()) answer_in(fence, 0);
  }
}

}  // namespace pando::nvme
