#include "nvme_budget.h"

#include <algorithm>
#include <utility>

#include "assert.h"
#include "nvme_connection.h"

namespace pando::nvme {

Budget::~Budget() {
  PANDO_ASSERT(used_bytes_ == 0 && waiting_.empty());
  reactor_.cancel_timer(wake_timer_);
}

bool Budget::take(const std::string& host_nqn, uint32_t bytes) {
  const auto host = by_host_.find(host_nqn);
  const uint64_t host_bytes = host == by_host_.end() ? 0 : host->second;
  if (bytes > limits_.bytes - used_bytes_ || host_bytes + bytes > limits_.host_bytes) return false;
  used_bytes_ += bytes;
  by_host_[host_nqn] += bytes;
  return true;
}

void Budget::give(const std::string& host_nqn, uint32_t bytes) {
  if (bytes == 0) return;
  const auto host = by_host_.find(host_nqn);
  PANDO_ASSERT(host != by_host_.end() && host->second >= bytes && used_bytes_ >= bytes);
  used_bytes_ -= bytes;
  host->second -= bytes;
  if (!waiting_.empty() && wake_timer_ == 0) {
    wake_timer_ = reactor_.add_timer(0, [this] { wake(); });
  }
}

void Budget::ended(const std::string& host_nqn) {
  const auto host = by_host_.find(host_nqn);
  if (host != by_host_.end() && host->second == 0) by_host_.erase(host);
}

void Budget::wait(Connection& connection) {
  if (std::ranges::find(waiting_, &connection) == waiting_.end()) waiting_.push_back(&connection);
}

void Budget::forget(Connection& connection) {
  std::erase(waiting_, &connection);
}

// Each gets its turn once; who still does not fit goes to the back.
void Budget::wake() {
  wake_timer_ = 0;
  for (size_t left = waiting_.size(); left > 0 && !waiting_.empty(); --left) {
    Connection* connection = waiting_.front();
    waiting_.pop_front();
    connection->memory_available();
  }
}

}  // namespace pando::nvme
