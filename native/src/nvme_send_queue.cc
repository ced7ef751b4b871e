#include "nvme_send_queue.h"

#include "assert.h"

namespace pando::nvme {

SendQueue::SendQueue(Ring& ring, int fd, Listener& listener)
    : ring_(ring), fd_(fd), listener_(listener) {
  message_.msg_iov = vectors_.data();
  op_.context = this;
  op_.done = [](RingOp* op, int32_t result) {
    auto* self = static_cast<SendQueue*>(op->context);
    self->sending_ = false;
    if (result > 0) self->consume(static_cast<uint64_t>(result));
    self->listener_.on_send_done(result);
  };
}

void SendQueue::push(const void* data, uint32_t size, Command* finishes) {
  PANDO_ASSERT(size > 0);
  ranges_.push_back({static_cast<const std::byte*>(data), size, finishes});
  if (sending_) extend_message();
}

void SendQueue::extend_message() {
  while (message_.msg_iovlen < kMaxRanges && head_ + message_.msg_iovlen < ranges_.size()) {
    const Range& range = ranges_[head_ + message_.msg_iovlen];
    vectors_[message_.msg_iovlen++] = {const_cast<std::byte*>(range.data), range.size};
  }
}

void SendQueue::flush() {
  if (sending_ || consuming_ || empty()) return;
  message_.msg_iovlen = 0;
  extend_message();
  sending_ = true;
  ring_.sendmsg(&op_, fd_, &message_, 0);
}

void SendQueue::consume(uint64_t bytes) {
  sent_bytes_ += bytes;
  consuming_ = true;  // what on_sent() starts must not send from under this loop
  while (bytes > 0 && head_ < ranges_.size()) {
    Range& range = ranges_[head_];
    if (bytes < range.size) {
      range.data += bytes;
      range.size -= static_cast<uint32_t>(bytes);
      break;
    }
    bytes -= range.size;
    Command* finished = range.finishes;
    ++head_;
    if (finished != nullptr) listener_.on_sent(*finished);
  }
  consuming_ = false;
  if (empty()) {
    ranges_.clear();
    head_ = 0;
  } else if (head_ >= kMaxRanges && head_ > ranges_.size() / 2) {
    ranges_.erase(ranges_.begin(), ranges_.begin() + static_cast<ptrdiff_t>(head_));
    head_ = 0;
  }
}

void SendQueue::clear() {
  ranges_.clear();
  head_ = 0;
}

void SendQueue::cancel() {
  if (sending_) ring_.cancel(&op_);
}

}  // namespace pando::nvme
