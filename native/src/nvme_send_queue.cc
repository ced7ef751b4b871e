#include "nvme_send_queue.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "assert.h"
#include "nvme_tls.h"

namespace pando::nvme {
namespace {

/// So much is encrypted before any of it is sent.
constexpr uint64_t kBatchBytes = 4 * kTlsRecordBytes;

}  // namespace

struct SendQueue::Secure {
  TlsStream& tls;
  std::vector<std::byte> ciphertext;  // on its way
  size_t sent = 0;                    // of it
  uint64_t plain = 0;                 // how much of the ranges it stands for
};

SendQueue::SendQueue(Ring& ring, int fd, Listener& listener)
    : ring_(ring), fd_(fd), listener_(listener) {
  message_.msg_iov = vectors_.data();
  op_.context = this;
  op_.done = [](RingOp* op, int32_t result) {
    auto* self = static_cast<SendQueue*>(op->context);
    self->sending_ = false;
    if (result > 0 && self->secure_ != nullptr) {
      self->consume_secure(static_cast<uint64_t>(result));
    } else if (result > 0) {
      self->consume(static_cast<uint64_t>(result));
    }
    self->listener_.on_send_done(result);
  };
}

SendQueue::~SendQueue() = default;

void SendQueue::secure(TlsStream& tls) {
  PANDO_ASSERT(secure_ == nullptr && !sending_ && empty());
  secure_ = std::make_unique<Secure>(tls);
}

void SendQueue::push(const void* data, uint32_t size, Command* finishes) {
  PANDO_ASSERT(size > 0);
  ranges_.push_back({static_cast<const std::byte*>(data), size, finishes});
  if (sending_ && secure_ == nullptr) extend_message();
}

void SendQueue::extend_message() {
  while (message_.msg_iovlen < kMaxRanges && head_ + message_.msg_iovlen < ranges_.size()) {
    const Range& range = ranges_[head_ + message_.msg_iovlen];
    vectors_[message_.msg_iovlen++] = {const_cast<std::byte*>(range.data), range.size};
  }
}

void SendQueue::flush() {
  if (sending_ || consuming_ || empty()) return;
  if (secure_ != nullptr) return flush_secure();
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

bool SendQueue::owes_ciphertext() const {
  return secure_ != nullptr &&
         (secure_->sent < secure_->ciphertext.size() || !secure_->tls.output().empty());
}

void SendQueue::flush_secure() {
  Secure& secure = *secure_;
  if (secure.sent == secure.ciphertext.size()) {
    secure.sent = 0;
    secure.ciphertext.clear();
    // The stream is broken: the socket says so to whoever receives from it.
    if (!encrypt()) (void)::shutdown(fd_, SHUT_RDWR);
    std::swap(secure.ciphertext, secure.tls.output());
    if (secure.ciphertext.empty()) return;
  }
  vectors_[0] = {secure.ciphertext.data() + secure.sent, secure.ciphertext.size() - secure.sent};
  message_.msg_iovlen = 1;
  sending_ = true;
  ring_.sendmsg(&op_, fd_, &message_, 0);
}

// Small ranges share a record, each of which costs bytes and time.
bool SendQueue::encrypt() {
  TlsStream& tls = secure_->tls;
  auto& staging = tls.context().staging();
  secure_->plain = 0;
  size_t index = head_;
  uint32_t begin = 0;  // of what is left of the range at index
  while (index < ranges_.size() && secure_->plain < kBatchBytes) {
    size_t staged = 0;
    while (index < ranges_.size() && staged < staging.size()) {
      const Range& range = ranges_[index];
      const auto size =
          static_cast<uint32_t>(std::min<size_t>(range.size - begin, staging.size() - staged));
      std::memcpy(staging.data() + staged, range.data + begin, size);
      staged += size;
      begin += size;
      if (begin < range.size) break;
      ++index;
      begin = 0;
    }
    if (!tls.write(staging.data(), staged)) return false;
    secure_->plain += staged;
  }
  return true;
}

void SendQueue::consume_secure(uint64_t bytes) {
  Secure& secure = *secure_;
  secure.sent += bytes;
  sent_bytes_ += bytes;
  if (secure.sent < secure.ciphertext.size()) return;
  consume(std::exchange(secure.plain, 0));
  secure.sent = 0;
  secure.ciphertext.clear();
  if (!empty()) return;
  // An idle connection keeps no room for ciphertext.
  secure.ciphertext = {};
  secure.tls.output() = {};
}

void SendQueue::clear() {
  ranges_.clear();
  head_ = 0;
}

void SendQueue::cancel() {
  if (sending_) ring_.cancel(&op_);
}

}  // namespace pando::nvme
