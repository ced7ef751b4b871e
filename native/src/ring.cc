#include "ring.h"

#include <cerrno>
#include <system_error>

#include "assert.h"

namespace pando {

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

io_uring_sqe* Ring::prepare(RingOp* op) {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  while (sqe == nullptr) {  // the queue is full: hand it to the kernel, which empties it
    ++enters_;
    const int result = io_uring_submit(&ring_);
    PANDO_ASSERT(result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY);
    sqe = io_uring_get_sqe(&ring_);
  }
  if (op != nullptr) ++in_flight_;
  return sqe;
}

bool Ring::prepare_fixed(std::byte* base, size_t slab_bytes, unsigned slabs) {
  if (io_uring_register_buffers_sparse(&ring_, slabs) != 0) return false;
  fixed_base_ = base;
  slab_bytes_ = slab_bytes;
  return true;
}

bool Ring::fix_next_slab() {
  iovec slab{const_cast<std::byte*>(fixed_base_) + fixed_bytes_, slab_bytes_};
  const auto index = static_cast<unsigned>(fixed_bytes_ / slab_bytes_);
  __u64 tag = 0;
  if (io_uring_register_buffers_update_tag(&ring_, index, &slab, &tag, 1) != 1) return false;
  fixed_bytes_ += slab_bytes_;
  return true;
}

/// The registration that has all of it; -1 if none has.
int Ring::fixed_slab(const void* data, uint32_t size) {
  const auto offset = static_cast<size_t>(static_cast<const std::byte*>(data) - fixed_base_);
  if (offset >= fixed_bytes_) return -1;
  const size_t slab = offset / slab_bytes_;
  if (offset + size > (slab + 1) * slab_bytes_) return -1;
  ++fixed_ops_;
  return static_cast<int>(slab);
}

void Ring::read(RingOp* op, int fd, void* data, uint32_t size, uint64_t offset) {
  io_uring_sqe* sqe = prepare(op);
  const int slab = fixed_slab(data, size);
  if (slab >= 0) {
    io_uring_prep_read_fixed(sqe, fd, data, size, offset, slab);
  } else {
    io_uring_prep_read(sqe, fd, data, size, offset);
  }
  io_uring_sqe_set_data(sqe, op);
}

void Ring::write(RingOp* op, int fd, const void* data, uint32_t size, uint64_t offset,
                 int rw_flags) {
  io_uring_sqe* sqe = prepare(op);
  const int slab = fixed_slab(data, size);
  if (slab >= 0) {
    io_uring_prep_write_fixed(sqe, fd, data, size, offset, slab);
  } else {
    io_uring_prep_write(sqe, fd, data, size, offset);
  }
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

void Ring::cancel(RingOp* target) {
  io_uring_sqe* sqe = prepare(nullptr);
  io_uring_prep_cancel(sqe, target, 0);
  io_uring_sqe_set_data(sqe, nullptr);
}

unsigned Ring::run_once(uint64_t timeout_us) {
  submit_and_wait(timeout_us);
  return run_completions();
}

void Ring::submit_and_wait(uint64_t timeout_us) {
  io_uring_cqe* cqe = nullptr;
  int result = 0;
  ++enters_;
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
    --in_flight_;
    ++completed;
    op->done(op, op_result);
  }
  return completed;
}

}  // namespace pando
