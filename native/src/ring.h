// One io_uring: submission in batches, completions handed to the operation that asked for them.
//
// An operation is an intrusive RingOp that the caller owns until `done` runs. `done` runs on the
// thread that calls run_once(), never inside the function that prepared the operation, so a caller
// may finish its own bookkeeping first.
#pragma once

#include <liburing.h>
#include <sys/socket.h>

#include <cstdint>
#include <vector>

#include "poll_window.h"

namespace pando {

struct RingOp {
  /// `result` is what the system call would return: >= 0, or -errno.
  void (*done)(RingOp* op, int32_t result) = nullptr;
  void* context = nullptr;
  /// A device answers it, in microseconds: a wait for it is worth polling.
  bool quick = false;
  /// It may never complete, and nobody waits for it: in_flight() does not count it.
  bool endless = false;
};

class Ring {
 public:
  /// So many prepared operations are handed to the kernel without waiting for the turn's end: the
  /// device works on the first while the others are prepared.
  static constexpr unsigned kSubmitBatch = 8;
  /// More than these keep the device busy while the thread sleeps and wakes.
  static constexpr uint64_t kMostPolled = 4;

  /// `entries`: the submission queue's depth; more operations than that may be in flight. Throws
  /// std::system_error.
  explicit Ring(unsigned entries);
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring();

  void read(RingOp* op, int fd, void* data, uint32_t size, uint64_t offset);
  /// `rw_flags`: RWF_DSYNC for a durable write, else 0.
  void write(RingOp* op, int fd, const void* data, uint32_t size, uint64_t offset, int rw_flags);
  void fdatasync(RingOp* op, int fd);
  void fallocate(RingOp* op, int fd, int mode, uint64_t offset, uint64_t size);
  void accept(RingOp* op, int fd);  // result: the new socket, close-on-exec
  void recv(RingOp* op, int fd, void* data, uint32_t size, int flags);
  void send(RingOp* op, int fd, const void* data, uint32_t size, int flags);
  /// `message` and what it points to must live until done.
  void sendmsg(RingOp* op, int fd, const msghdr* message, int flags);
  void poll(RingOp* op, int fd, uint32_t events);
  /// What the caller has done itself: `done` runs with the next completions.
  void finish(RingOp* op, int32_t result);
  /// A driver's own command. `payload`: the 16 bytes that a submission entry has room for.
  void command(RingOp* op, int fd, uint32_t operation, const void* payload);
  /// Cancels whatever `target` waits for; `target->done` still runs (with -ECANCELED, or its real
  /// result).
  void cancel(RingOp* target);

  /// Submits what is pending and runs completions. Blocks for the first one for at most
  /// `timeout_us` (0: not at all, UINT64_MAX: for ever). Returns the number of completions that
  /// ran.
  unsigned run_once(uint64_t timeout_us);

  /// The two halves of run_once(): submits and waits, then runs what has completed.
  void submit_and_wait(uint64_t timeout_us);
  unsigned run_completions();

  /// Operations whose `done` has not run yet, but for endless ones.
  uint64_t in_flight() const { return in_flight_; }
  /// Operations that the kernel has not seen yet.
  unsigned unsubmitted() const { return io_uring_sq_ready(&ring_); }

 private:
  struct Finished {
    RingOp* op;
    int32_t result;
  };

  io_uring_sqe* prepare(RingOp* op);
  void complete(RingOp* op, int32_t result);
  void submit();
  void wait(uint64_t timeout_us);
  bool completes_before(uint64_t deadline_ns);

  io_uring ring_{};
  uint64_t in_flight_ = 0;
  uint64_t quick_in_flight_ = 0;
  std::vector<Finished> finished_;
  std::vector<Finished> completing_;  // of finished_, in this turn
  PollWindow poll_window_;
};

}  // namespace pando
