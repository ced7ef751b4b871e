#include "nvme_io.h"

#include <cstring>

#include "assert.h"
#include "nvme_connection.h"
#include "nvme_controller.h"
#include "nvme_target.h"

namespace pando::nvme {
namespace {

constexpr uint32_t kNamespaceId = 1;
constexpr uint32_t kAllNamespaces = 0xFFFFFFFF;

IoOpcode opcode_of(const Sqe& sqe) {
  return static_cast<IoOpcode>(sqe.opcode);
}

uint64_t first_block(const Sqe& sqe) {
  return sqe.cdw10 | static_cast<uint64_t>(sqe.cdw11) << 32;
}

uint64_t length_bytes(const Sqe& sqe) {
  return ((sqe.cdw12 & 0xFFFFull) + 1) * kSectorSize;  // NLB, 0's based
}

uint32_t range_count(const Sqe& sqe) {
  return (sqe.cdw10 & 0xFF) + 1;  // NR, 0's based
}

bool in_range(const BlockVolume& volume, uint64_t block, uint64_t blocks) {
  const uint64_t size = volume.size_bytes() / kSectorSize;
  return block <= size && blocks <= size - block;
}

Status to_status(const BlockIo& io) {
  switch (io.status) {
    case IoStatus::kOk:
      return Status::kSuccess;
    case IoStatus::kIoError:
      if (io.op == IoOp::kRead) return Status::kUnrecoveredReadError;
      return io.op == IoOp::kFlush ? Status::kInternalError : Status::kWriteFault;
    case IoStatus::kNoSpace:
      return Status::kCapacityExceeded;
    case IoStatus::kOutOfRange:
      return Status::kLbaOutOfRange;
    case IoStatus::kInvalid:
      return Status::kInvalidField;
    case IoStatus::kReadOnly:
      return Status::kNamespaceWriteProtected;
    case IoStatus::kClosed:
      return Status::kNamespaceNotReady;
  }
  return Status::kInternalError;
}

void count(Controller& controller, const BlockIo& io) {
  IoCounters& counters = controller.counters();
  if (io.op == IoOp::kRead) {
    ++counters.reads;
    counters.bytes_read += io.length_bytes;
  } else if (io.op == IoOp::kWrite) {
    ++counters.writes;
    counters.bytes_written += io.length_bytes;
  }
}

void finish(Command& command) {
  const BlockIo& io = command.io;
  Reply reply{to_status(io)};
  if (reply.status == Status::kSuccess) {
    count(*command.connection->controller(), io);
    if (opcode_of(command.sqe) == IoOpcode::kRead) {
      reply.data_bytes = static_cast<uint32_t>(io.length_bytes);
    } else if (opcode_of(command.sqe) == IoOpcode::kCompare &&
               std::memcmp(command.buffer.data(), command.scratch.data(), io.length_bytes) != 0) {
      reply.status = Status::kCompareFailure;
    }
  }
  command.connection->reply(command, reply);
}

void submit_one(Controller& controller, Command& command, IoOp op, std::byte* data) {
  BlockIo& io = command.io;
  io.op = op;
  io.fua = (command.sqe.cdw12 & kForceUnitAccess) != 0 || !controller.features().write_cache;
  io.offset_bytes = first_block(command.sqe) * kSectorSize;
  io.length_bytes = length_bytes(command.sqe);
  io.data = data;
  io.done = [](BlockIo* done) { finish(*static_cast<Command*>(done->context)); };
  controller.volume().submit(&io);
}

DsmRange read_range(const Command& command, uint32_t index) {
  DsmRange range;
  std::memcpy(&range, command.buffer.data() + index * sizeof(range), sizeof(range));
  return range;
}

// Discards one range after the other. A completion inside submit() continues this loop rather than
// starting another one on top of it.
void discard_ranges(Controller& controller, Command& command) {
  const uint32_t ranges = range_count(command.sqe);
  while (command.next_range < ranges) {
    const DsmRange range = read_range(command, command.next_range++);
    if (range.blocks == 0) continue;
    BlockIo& io = command.io;
    io.op = IoOp::kDiscard;
    io.fua = !controller.features().write_cache;
    io.offset_bytes = range.first_block * kSectorSize;
    io.length_bytes = static_cast<uint64_t>(range.blocks) * kSectorSize;
    io.data = nullptr;
    io.done = [](BlockIo* done) {
      auto& owner = *static_cast<Command*>(done->context);
      if (owner.submitting) {
        owner.finished_inside = true;
      } else if (done->status != IoStatus::kOk) {
        finish(owner);
      } else {
        discard_ranges(*owner.connection->controller(), owner);
      }
    };
    command.finished_inside = false;
    command.submitting = true;
    controller.volume().submit(&io);
    command.submitting = false;
    if (!command.finished_inside) return;
    if (io.status != IoStatus::kOk) return finish(command);
  }
  command.connection->reply(command, {});
}

void manage_dataset(Controller& controller, Command& command) {
  // Without the deallocate attribute the ranges are hints, and there is nothing to hint at.
  if ((command.sqe.cdw11 & kDsmDeallocate) == 0) return command.connection->reply(command, {});
  for (uint32_t i = 0; i < range_count(command.sqe); ++i) {
    const DsmRange range = read_range(command, i);
    if (!in_range(controller.volume(), range.first_block, range.blocks)) {
      return command.connection->reply(command, {Status::kLbaOutOfRange});
    }
  }
  command.next_range = 0;
  discard_ranges(controller, command);
}

Status check_transfer(const Controller& controller, const Command& command) {
  const Sqe& sqe = command.sqe;
  const uint64_t length = length_bytes(sqe);
  if (length > controller.target().options().max_data_bytes) return Status::kInvalidField;
  if (!in_range(controller.volume(), first_block(sqe), length / kSectorSize)) {
    return Status::kLbaOutOfRange;
  }
  const bool moves_data = opcode_of(sqe) != IoOpcode::kVerify;
  if (moves_data && command.transfer_bytes != length) return Status::kDataSglLengthInvalid;
  return Status::kSuccess;
}

}  // namespace

Status check_io(const Controller& controller, const Command& command) {
  const Sqe& sqe = command.sqe;
  const BlockVolume& volume = controller.volume();
  const bool all = opcode_of(sqe) == IoOpcode::kFlush && sqe.nsid == kAllNamespaces;
  if (sqe.nsid != kNamespaceId && !all) return Status::kInvalidNamespace;
  switch (opcode_of(sqe)) {
    case IoOpcode::kFlush:
      return Status::kSuccess;
    case IoOpcode::kWrite:
      if (volume.read_only()) return Status::kNamespaceWriteProtected;
      return check_transfer(controller, command);
    case IoOpcode::kRead:
    case IoOpcode::kCompare:
    case IoOpcode::kVerify:
      return check_transfer(controller, command);
    case IoOpcode::kWriteZeroes:
      if (volume.read_only()) return Status::kNamespaceWriteProtected;
      return in_range(volume, first_block(sqe), length_bytes(sqe) / kSectorSize)
                 ? Status::kSuccess
                 : Status::kLbaOutOfRange;
    case IoOpcode::kDatasetManagement:
      if (volume.read_only()) return Status::kNamespaceWriteProtected;
      return command.transfer_bytes >= range_count(sqe) * sizeof(DsmRange)
                 ? Status::kSuccess
                 : Status::kDataSglLengthInvalid;
  }
  return Status::kInvalidOpcode;
}

uint32_t scratch_bytes(const Sqe& sqe) {
  const bool needed = opcode_of(sqe) == IoOpcode::kCompare || opcode_of(sqe) == IoOpcode::kVerify;
  return needed ? static_cast<uint32_t>(length_bytes(sqe)) : 0;
}

void execute_io(Controller& controller, Command& command) {
  switch (opcode_of(command.sqe)) {
    case IoOpcode::kRead:
      return submit_one(controller, command, IoOp::kRead, command.buffer.data());
    case IoOpcode::kWrite:
      return submit_one(controller, command, IoOp::kWrite, command.buffer.data());
    case IoOpcode::kFlush:
      command.io.length_bytes = 0;
      return submit_one(controller, command, IoOp::kFlush, nullptr);
    case IoOpcode::kWriteZeroes:
      return submit_one(controller, command, IoOp::kWriteZeroes, nullptr);
    case IoOpcode::kDatasetManagement:
      return manage_dataset(controller, command);
    case IoOpcode::kCompare:
    case IoOpcode::kVerify:
      command.scratch = controller.target().reactor().buffers().take(scratch_bytes(command.sqe));
      if (!command.scratch) return command.connection->reply(command, {Status::kInternalError});
      return submit_one(controller, command, IoOp::kRead, command.scratch.data());
  }
  PANDO_ASSERT(false);  // check_io() let it through
}

}  // namespace pando::nvme
