#include "discard_thread.h"

#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "assert.h"

namespace pando {
namespace {

int make_eventfd() {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  return fd;
}

}  // namespace

DiscardThread::DiscardThread(Ring& ring, int fd)
    : ring_(ring), fd_(fd), wake_(make_eventfd()), thread_([this](const std::stop_token& stop) {
        pthread_setname_np(pthread_self(), "pando-discard");
        run(stop);
      }) {}

DiscardThread::~DiscardThread() {
  PANDO_ASSERT(under_way_ == 0);
  thread_.request_stop();
  thread_.join();
  close(wake_);
}

void DiscardThread::submit(DiskOp* op) {
  {
    const std::lock_guard lock(mutex_);
    wanted_.push_back(op);
  }
  changed_.notify_one();
  // Only while there is something to wait for: an idle ring can be left.
  if (under_way_++ == 0) wait_for_wake();
}

void DiscardThread::run(const std::stop_token& stop) {
  for (;;) {
    DiskOp* op = nullptr;
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [this] { return !wanted_.empty(); })) return;
      op = wanted_.front();
      wanted_.pop_front();
    }
    std::array<uint64_t, 2> range{op->offset, op->length};
    op->error = ioctl(fd_, BLKDISCARD, range.data()) == 0 ? 0 : errno;
    {
      const std::lock_guard lock(mutex_);
      ended_.push_back(op);
    }
    const uint64_t one = 1;
    PANDO_ASSERT(write(wake_, &one, sizeof one) == sizeof one);
  }
}

void DiscardThread::wait_for_wake() {
  poll_.context = this;
  poll_.done = [](RingOp* op, int32_t result) {
    static_cast<DiscardThread*>(op->context)->woken(result);
  };
  ring_.poll(&poll_, wake_, POLLIN);
}

void DiscardThread::woken(int32_t result) {
  uint64_t count = 0;
  if (result >= 0) (void)!read(wake_, &count, sizeof count);
  std::deque<DiskOp*> ended;
  {
    const std::lock_guard lock(mutex_);
    ended = std::exchange(ended_, {});
  }
  under_way_ -= ended.size();
  if (under_way_ > 0) wait_for_wake();
  for (DiskOp* op : ended) op->done(op);
}

}  // namespace pando
