#include "nbd_socket.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "assert.h"

namespace pando {

NbdSocket::NbdSocket(Reactor& reactor, int fd, User& user)
    : reactor_(reactor), fd_(fd), user_(user), buffer_(reactor.buffers().take(kReceiveBytes)) {
  receive_op_.context = this;
  receive_op_.done = [](RingOp* op, int32_t result) {
    static_cast<NbdSocket*>(op->context)->on_receive_done(result);
  };
  send_op_.context = this;
  send_op_.done = [](RingOp* op, int32_t result) {
    static_cast<NbdSocket*>(op->context)->on_send_done(result);
  };
}

NbdSocket::~NbdSocket() {
  PANDO_ASSERT(!receiving_ && !sending_);
  ::close(fd_);
}

void NbdSocket::consume(size_t size) {
  PANDO_ASSERT(size <= end_ - begin_);
  begin_ += size;
}

void NbdSocket::skip(uint64_t size) {
  const uint64_t here = std::min<uint64_t>(size, end_ - begin_);
  consume(here);
  skip_bytes_ += size - here;
}

void NbdSocket::receive() {
  if (receiving_ || closed_) return;
  if (!buffer_) return close();
  std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  PANDO_ASSERT(end_ < kReceiveBytes);
  receiving_ = true;
  reactor_.ring().recv(&receive_op_, fd_, buffer_.data() + end_,
                       static_cast<uint32_t>(kReceiveBytes - end_), 0);
}

void NbdSocket::receive_into(std::byte* data, size_t size) {
  PANDO_ASSERT(!receiving_ && begin_ == end_ && skip_bytes_ == 0 && size > 0);
  if (closed_) return;
  direct_ = data;
  direct_size_ = size;
  receiving_ = true;
  reactor_.ring().recv(&receive_op_, fd_, data, static_cast<uint32_t>(size), MSG_WAITALL);
}

void NbdSocket::on_receive_done(int32_t result) {
  receiving_ = false;
  if (closed_) return settle();
  if (result == -EINTR || result == -EAGAIN)
    result = 0;
  else if (result <= 0)
    return close();

  const auto size = static_cast<size_t>(result);
  if (direct_size_ > 0) {
    direct_ += size;
    direct_size_ -= size;
    if (direct_size_ > 0) return receive_into(direct_, direct_size_);
  } else {
    end_ += size;
    const uint64_t skipped = std::min<uint64_t>(skip_bytes_, end_ - begin_);
    begin_ += skipped;
    skip_bytes_ -= skipped;
    if (skip_bytes_ > 0) return receive();
  }
  user_.on_received();
}

void NbdSocket::send(NbdOutgoing* item) {
  if (closed_) return;
  item->next = nullptr;
  (first_ == nullptr ? first_ : last_->next) = item;
  last_ = item;
  if (!sending_) start_send();
}

void NbdSocket::start_send() {
  size_t count = 0;
  size_t sent = first_sent_;  // of the item at hand
  for (NbdOutgoing* item = first_; item != nullptr && count + 2 <= kMaxVectors; item = item->next) {
    const size_t head_sent = std::min(sent, item->head_size);
    const size_t payload_sent = sent - head_sent;
    if (head_sent < item->head_size) {
      vectors_[count++] = {item->head.data() + head_sent, item->head_size - head_sent};
    }
    if (payload_sent < item->payload_size) {
      // sendmsg() takes a non-const pointer and does not write through it.
      vectors_[count++] = {const_cast<std::byte*>(item->payload) + payload_sent,
                           item->payload_size - payload_sent};
    }
    sent = 0;
  }
  PANDO_ASSERT(count > 0);
  message_.msg_iov = vectors_.data();
  message_.msg_iovlen = count;
  sending_ = true;
  reactor_.ring().sendmsg(&send_op_, fd_, &message_, 0);
}

void NbdSocket::on_send_done(int32_t result) {
  sending_ = false;
  if (closed_) return settle();
  if (result == -EINTR || result == -EAGAIN) result = 0;
  if (result < 0) return close();

  size_t size = static_cast<size_t>(result);
  NbdOutgoing* done =
      nullptr;  // told after the next send has started, so that they cannot delay it
  NbdOutgoing** done_end = &done;
  while (first_ != nullptr) {
    const size_t left = first_->head_size + first_->payload_size - first_sent_;
    if (size < left) {
      first_sent_ += size;
      break;
    }
    size -= left;
    first_sent_ = 0;
    NbdOutgoing* item = first_;
    first_ = item->next;
    item->next = nullptr;
    *done_end = item;
    done_end = &item->next;
  }
  if (first_ != nullptr) start_send();
  while (done != nullptr) {
    NbdOutgoing* item = done;
    done = item->next;  // before the call: the owner may queue it again
    item->sent(item);
  }
}

void NbdSocket::close() {
  if (!closed_) {
    closed_ = true;
    // Completes whatever the ring waits for on this socket.
    ::shutdown(fd_, SHUT_RDWR);
  }
  settle();
}

void NbdSocket::settle() {
  if (!settled() || told_settled_) return;
  told_settled_ = true;
  user_.on_settled();
}

}  // namespace pando
