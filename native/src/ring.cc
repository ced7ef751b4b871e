#include "ring.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>

#include "assert.h"

namespace pando {
namespace {

uint64_t clock_ns() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Ring::Ring(unsigned entries) {
  io_uring_params params{};
  params.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
  params.cq_entries = entries * 4;
  const int result = io_uring_queue_init_params(entries, &ring_, &params);
  if (result < 0) throw std::system_error(-result, std::generic_category(), "io_uring_setup");
}

Ring::~Ring() {
  io_uring_queue_exit(&ring_);
}

void Ring::submit() {
  const int result = io_uring_submit(&ring_);
  PANDO_ASSERT(result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY);
}

io_uring_sqe* Ring::prepare(RingOp* op) {
  if (unsubmitted() >= kSubmitBatch) submit();
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  while (sqe == nullptr) {  // the queue is full: hand it to the kernel, which empties it
    submit();
    sqe = io_uring_get_sqe(&ring_);
  }
  if (op != nullptr && !op->endless) ++in_flight_;
  if (op != nullptr && op->quick) ++quick_in_flight_;
  return sqe;
}

void Ring::read(RingOp* op, int fd, void* data, uint32_t size, uint64_t offset) {
  io_uring_sqe* sqe = prepare(op);
  io_uring_prep_read(sqe, fd, data, size, offset);
  io_uring_sqe_set_data(sqe, op);
}

void Ring::write(RingOp* op, int fd, const void* data, uint32_t size, uint64_t offset,
                 int rw_flags) {
  io_uring_sqe* sqe = prepare(op);
  io_uring_prep_write(sqe, fd, data, size, offset);
  sqe->rw_flags = rw_flags;
  io_uring_sqe_set_data(sqe, op);
}

void Ring::fdatasync(RingOp* op, int fd) {
  io_uring_sqe* sqe = prepare(op);
  io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
  io_uring_sqe_set_data(sqe, op);
}

void Ring::fallocate(RingOp* op, int fd, int mode, uint64_t offset, uint64_t size) {
  io_uring_sqe* sqe = prepare(op);
  io_uring_prep_fallocate(sqe, fd, mode, static_cast<off_t>(offset), static_cast<off_t>(size));
  io_uring_sqe_set_data(sqe, op);
}

void Ring::accept(RingOp* op, int fd) {
  io_uring_sqe* sqe = prepare(op);
  io_uring_prep_accept(sqe, fd, nullptr, nullptr, SOCK_CLOEXEC);
  io_uring_sqe_set_data(sqe, op);
}

void Ring::recv(RingOp* op, int fd, void* data, uint32_t size, int flags) {
  io_uring_sqe* sqe = prepare(op);
  io_uring_prep_recv(sqe, fd, data, size, flags);
  io_uring_sqe_set_data(sqe, op);
}

void Ring::send(RingOp* op, int fd, const void* data, uint32_t size, int flags) {
  io_uring_sqe* sqe = prepare(op);
  io_uring_prep_send(sqe, fd, data, size, flags | MSG_NOSIGNAL);
  io_uring_sqe_set_data(sqe, op);
}

void Ring::sendmsg(RingOp* op, int fd, const msghdr* message, int flags) {
  io_uring_sqe* sqe = prepare(op);
  io_uring_prep_sendmsg(sqe, fd, message, flags | MSG_NOSIGNAL);
  io_uring_sqe_set_data(sqe, op);
}

void Ring::poll(RingOp* op, int fd, uint32_t events) {
  io_uring_sqe* sqe = prepare(op);
  io_uring_prep_poll_add(sqe, fd, events);
  io_uring_sqe_set_data(sqe, op);
}

void Ring::command(RingOp* op, int fd, uint32_t operation, const void* payload) {
  constexpr size_t kPayloadBytes = 16;
  io_uring_sqe* sqe = prepare(op);
  io_uring_prep_rw(IORING_OP_URING_CMD, sqe, fd, nullptr, 0, 0);
  sqe->cmd_op = operation;
  std::memcpy(sqe->cmd, payload, kPayloadBytes);
  io_uring_sqe_set_data(sqe, op);
}

void Ring::cancel(RingOp* target) {
  io_uring_sqe* sqe = prepare(nullptr);
  io_uring_prep_cancel(sqe, target, 0);
  io_uring_sqe_set_data(sqe, nullptr);
}

void Ring::finish(RingOp* op, int32_t result) {
  PANDO_ASSERT(!op->quick && !op->endless);
  ++in_flight_;
  finished_.push_back({op, result});
}

unsigned Ring::run_once(uint64_t timeout_us) {
  submit_and_wait(timeout_us);
  return run_completions();
}

void Ring::submit_and_wait(uint64_t timeout_us) {
  if (!finished_.empty()) {
    if (unsubmitted() > 0) submit();
    return;
  }
  const bool worth_polling = quick_in_flight_ > 0 && quick_in_flight_ <= kMostPolled &&
                             timeout_us > PollWindow::kLongestNs / 1000;
  if (!worth_polling) {
    wait(timeout_us);
    return;
  }
  const uint64_t begin_ns = clock_ns();
  if (poll_window_.ns() > 0 && completes_before(begin_ns + poll_window_.ns())) return;
  wait(timeout_us);
  poll_window_.slept(clock_ns() - begin_ns);
}

bool Ring::completes_before(uint64_t deadline_ns) {
  submit();
  do {
    if (io_uring_cq_ready(&ring_) > 0) return true;
    relax();
  } while (clock_ns() < deadline_ns);
  return false;
}

void Ring::wait(uint64_t timeout_us) {
  io_uring_cqe* cqe = nullptr;
  int result = 0;
  if (timeout_us == 0) {
    result = io_uring_submit_and_get_events(&ring_);
  } else if (timeout_us == UINT64_MAX) {
    result = io_uring_submit_and_wait(&ring_, 1);
  } else {
    __kernel_timespec timeout{static_cast<int64_t>(timeout_us / 1000000),
                              static_cast<long long>(timeout_us % 1000000 * 1000)};
    result = io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &timeout, nullptr);
  }
  PANDO_ASSERT(result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY ||
               result == -ETIME);
}

unsigned Ring::run_completions() {
  io_uring_cqe* cqe = nullptr;
  unsigned completed = 0;
  // Each completion is consumed before its callback runs: the callback may prepare operations and
  // so submit.
  while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
    auto* op = static_cast<RingOp*>(io_uring_cqe_get_data(cqe));
    const int32_t op_result = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    if (op == nullptr) continue;  // the answer to a cancel itself
    ++completed;
    complete(op, op_result);
  }
  completing_.swap(finished_);
  for (const Finished& finished : completing_) complete(finished.op, finished.result);
  completed += static_cast<unsigned>(completing_.size());
  completing_.clear();
  return completed;
}

void Ring::complete(RingOp* op, int32_t result) {
  if (!op->endless) --in_flight_;
  if (op->quick) --quick_in_flight_;
  op->done(op, result);
}

}  // namespace pando
