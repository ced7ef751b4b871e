#include "ublk_device.h"

#include <cerrno>
#include <utility>

#include "assert.h"

namespace pando {
namespace {

bool carries_data(uint32_t op) {
  return op == ublk::kOpRead || op == ublk::kOpWrite;
}

/// False: not an operation that the device was made with.
bool set_operation(BlockIo& io, uint32_t op) {
  switch (op) {
    case ublk::kOpRead:
      io.op = IoOp::kRead;
      return true;
    case ublk::kOpWrite:
      io.op = IoOp::kWrite;
      return true;
    case ublk::kOpFlush:
      io.op = IoOp::kFlush;
      return true;
    case ublk::kOpDiscard:
      io.op = IoOp::kDiscard;
      return true;
    case ublk::kOpWriteZeroes:
      io.op = IoOp::kWriteZeroes;
      return true;
    default:
      return false;
  }
}

int32_t error_of(IoStatus status) {
  switch (status) {
    case IoStatus::kOk:
      return 0;
    case IoStatus::kNoSpace:
      return -ENOSPC;
    case IoStatus::kOutOfRange:
    case IoStatus::kInvalid:
      return -EINVAL;
    case IoStatus::kReadOnly:
      return -EPERM;
    case IoStatus::kIoError:
    case IoStatus::kClosed:
      return -EIO;
  }
  return -EIO;
}

}  // namespace

UblkDevice::UblkDevice(UblkChannel& channel, BufferPool& buffers, BlockVolume& volume,
                       uint16_t depth)
    : channel_(channel), buffers_(buffers), volume_(volume), requests_(depth) {
  for (uint16_t tag = 0; tag < depth; ++tag) {
    Request& request = requests_[tag];
    request.device = this;
    request.tag = tag;
    request.op.endless = true;
    request.op.context = &request;
    request.op.done = [](RingOp* op, int32_t result) {
      auto* self = static_cast<Request*>(op->context);
      self->device->on_fetched(self, result);
    };
    request.io.context = &request;
    request.io.done = [](BlockIo* io) {
      auto* self = static_cast<Request*>(io->context);
      self->device->on_done(self);
    };
  }
}

void UblkDevice::start() {
  for (Request& request : requests_) channel_.fetch(&request.op, request.tag);
}

void UblkDevice::when_stopped(std::function<void()> done) {
  PANDO_ASSERT(!stopped_ && !leaving_);
  stopped_ = std::move(done);
  check_end();
}

void UblkDevice::leave(std::function<void()> done) {
  PANDO_ASSERT(!left_);
  leaving_ = true;
  left_ = std::move(done);
  first_waiting_ = last_waiting_ = nullptr;
  check_end();
}

void UblkDevice::on_fetched(Request* request, int32_t result) {
  if (result != ublk::kRequestArrived) {
    ++ended_;
    return check_end();
  }
  // Left to the next server.
  if (leaving_) return;
  if (first_waiting_ != nullptr) {
    request->next = nullptr;
    last_waiting_->next = request;
    last_waiting_ = request;
    return;
  }
  start_request(request);
}

void UblkDevice::start_request(Request* request) {
  const ublk::Descriptor& descriptor = channel_.descriptor(request->tag);
  const uint32_t op = descriptor.op_and_flags & ublk::kOpMask;
  BlockIo& io = request->io;
  if (!set_operation(io, op)) return commit(request, -EOPNOTSUPP);
  io.offset_bytes = descriptor.first_sector * ublk::kSectorBytes;
  io.length_bytes = descriptor.sectors * ublk::kSectorBytes;
  io.fua = (descriptor.op_and_flags & ublk::kFlagFua) != 0 && op != ublk::kOpRead;
  if (op == ublk::kOpFlush) {
    io.offset_bytes = io.length_bytes = 0;
    io.fua = false;
  }
  io.data = nullptr;
  if (carries_data(op)) {
    if (io.length_bytes == 0 || io.length_bytes > kMaxIoBytes) return commit(request, -EINVAL);
    if (!take_buffer(request, io.length_bytes)) {
      // Nothing is under way that could give memory back: there is none.
      if (data_bytes_ == 0) return commit(request, -ENOMEM);
      if (first_waiting_ == nullptr) last_waiting_ = request;
      request->next = first_waiting_;
      first_waiting_ = request;
      return;
    }
    io.data = request->buffer.data();
    if (op == ublk::kOpWrite &&
        !channel_.copy_in(request->tag, io.data, static_cast<size_t>(io.length_bytes))) {
      return commit(request, -EIO);
    }
  }
  io.status = IoStatus::kOk;
  ++in_volume_;
  volume_.submit(&io);
}

/// One request gets its memory whatever there is, so that a device always moves.
bool UblkDevice::take_buffer(Request* request, size_t size) {
  if (data_bytes_ > 0 && data_bytes_ + size > kMaxDataBytes) return false;
  request->buffer = buffers_.take(size);
  if (!request->buffer) return false;
  data_bytes_ += request->buffer.capacity();
  return true;
}

void UblkDevice::on_done(Request* request) {
  PANDO_ASSERT(in_volume_ > 0);
  --in_volume_;
  const BlockIo& io = request->io;
  int32_t result = error_of(io.status);
  if (result == 0 && io.data != nullptr) {
    const auto size = static_cast<size_t>(io.length_bytes);
    const bool copied =
        io.op != IoOp::kRead || channel_.copy_out(request->tag, request->buffer.data(), size);
    result = copied ? static_cast<int32_t>(size) : -EIO;
  }
  commit(request, result);
  start_waiting();
  check_end();
}

void UblkDevice::commit(Request* request, int32_t result) {
  data_bytes_ -= request->buffer.capacity();
  request->buffer.reset();
  channel_.commit_and_fetch(&request->op, request->tag, result);
}

void UblkDevice::start_waiting() {
  while (first_waiting_ != nullptr) {
    Request* request = first_waiting_;
    first_waiting_ = std::exchange(request->next, nullptr);
    if (first_waiting_ == nullptr) last_waiting_ = nullptr;
    start_request(request);
    if (first_waiting_ == request) return;  // there is no memory for it yet
  }
}

void UblkDevice::check_end() {
  if (in_volume_ > 0) return;
  if (left_) std::exchange(left_, nullptr)();
  if (stopped_ && ended_ == requests_.size()) std::exchange(stopped_, nullptr)();
}

}  // namespace pando
