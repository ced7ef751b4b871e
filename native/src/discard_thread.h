// Discards on a block device: a system call that waits (BLKDISCARD), so a thread of its own makes
// it. It is started with the first discard, and hands each one back through the ring, so that
// `done` runs on the reactor like any other.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "disk.h"
#include "ring.h"

namespace pando {

class DiscardThread {
 public:
  /// The ring must outlive it. Throws std::system_error.
  DiscardThread(Ring& ring, int fd);
  DiscardThread(const DiscardThread&) = delete;
  DiscardThread& operator=(const DiscardThread&) = delete;
  /// Nothing is under way.
  ~DiscardThread();

  /// On the reactor. One after another, in this order.
  void submit(DiskOp* op);

 private:
  void run(const std::stop_token& stop);
  void wait_for_wake();
  void woken(int32_t result);

  Ring& ring_;
  const int fd_;
  const int wake_;  // an eventfd: something has ended
  RingOp poll_;
  size_t under_way_ = 0;  // the reactor's

  std::mutex mutex_;  // guards the next two
  std::deque<DiskOp*> wanted_;
  std::deque<DiskOp*> ended_;
  std::condition_variable_any changed_;
  std::jthread thread_;  // the last one: it uses all of the others
};

}  // namespace pando
