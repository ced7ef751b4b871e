// One io_uring: submission in batches, completions handed to the operation that asked for them.
//
// An operation is an intrusive RingOp that the caller owns until `done` runs. `done` runs on the
// thread that calls run_once(), never inside the function that prepared the operation, so a caller
// may finish its own bookkeeping first.
#pragma once

#include <liburing.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <deque>

namespace pando {

struct RingOp {
  /// `result` is what the system call would return: >= 0, or -errno.
  void (*done)(RingOp* op, int32_t result) = nullptr;
  void* context = nullptr;
};

class Ring {
 public:
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

  /// Room for the registration of `slabs` slabs from `base` on. False: this kernel does not do it.
  bool prepare_fixed(std::byte* base, size_t slab_bytes, unsigned slabs);
  /// The next one: from now on reads and writes within it go by its registration. False: the limit
  /// of locked memory.
  bool fix_next_slab();

  /// Operations whose `done` has not run yet.
  uint64_t in_flight() const { return in_flight_; }
  /// System calls so far.
  uint64_t enters() const { return enters_; }
  /// Of the reads and writes, those in registered memory.
  uint64_t fixed_ops() const { return fixed_ops_; }

 private:
  io_uring_sqe* prepare(RingOp* op);
  int fixed_slab(const void* data, uint32_t size);

  io_uring ring_{};
  uint64_t in_flight_ = 0;
  uint64_t enters_ = 0;
  uint64_t fixed_ops_ = 0;
  const std::byte* fixed_base_ = nullptr;
  size_t slab_bytes_ = 1;
  size_t fixed_bytes_ = 0;
};

}  // namespace pando
