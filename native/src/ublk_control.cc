#include "ublk_control.h"

#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>

#include "assert.h"

namespace pando::ublk {
namespace {

constexpr long kTimeoutSeconds = 30;
constexpr uint32_t kAnyDevice = 0xFFFFFFFF;
constexpr uint16_t kNoQueue = 0xFFFF;
constexpr size_t kBufferBytes = 256;

/// Memory that the kernel reads or fills in.
using CommandBuffer = std::array<std::byte, kBufferBytes>;

class ControlDevice {
 public:
  ControlDevice() : fd_(open(kControlPath, O_RDWR | O_CLOEXEC)) {
    if (fd_ < 0) throw std::system_error(errno, std::generic_category(), kControlPath);
    // The commands are longer than a plain submission entry has room for.
    const int result = io_uring_queue_init(kEntries, &ring_, IORING_SETUP_SQE128);
    if (result == 0) return;
    close(fd_);
    throw std::system_error(-result, std::generic_category(), "io_uring_setup");
  }
  ControlDevice(const ControlDevice&) = delete;
  ControlDevice& operator=(const ControlDevice&) = delete;
  ~ControlDevice() {
    io_uring_queue_exit(&ring_);
    close(fd_);
  }

  /// The command's result, or -errno.
  int run(uint32_t operation, const ControlCommand& command) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    PANDO_ASSERT(sqe != nullptr);
    std::memset(sqe, 0, 2 * sizeof(*sqe));
    io_uring_prep_rw(IORING_OP_URING_CMD, sqe, fd_, nullptr, 0, 0);
    sqe->cmd_op = operation;
    std::memcpy(sqe->cmd, &command, sizeof(command));
    io_uring_cqe* cqe = nullptr;
    __kernel_timespec timeout{kTimeoutSeconds, 0};
    int result = io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &timeout, nullptr);
    while (result == -EINTR) result = io_uring_wait_cqe_timeout(&ring_, &cqe, &timeout);
    if (result < 0 || cqe == nullptr) return result >= 0 || result == -ETIME ? -ETIMEDOUT : result;
    const int answer = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    return answer;
  }

 private:
  static constexpr unsigned kEntries = 4;
  int fd_;
  io_uring ring_{};
};

int try_command(uint32_t operation, uint32_t id, void* buffer, size_t size, uint64_t data) {
  PANDO_ASSERT(size <= kBufferBytes);
  auto memory = std::make_unique<CommandBuffer>();
  if (size > 0) std::memcpy(memory->data(), buffer, size);
  ControlCommand command{};
  command.device_id = id;
  command.queue_id = kNoQueue;
  command.length = static_cast<uint16_t>(size);
  command.address = size > 0 ? reinterpret_cast<uint64_t>(memory->data()) : 0;
  command.data = data;
  const int result = ControlDevice().run(operation, command);
  if (size > 0 && result >= 0) std::memcpy(buffer, memory->data(), size);
  // One that was not waited for any longer may still be at work, and use its buffer.
  if (result == -ETIMEDOUT) static_cast<void>(memory.release());
  return result;
}

void run_command(uint32_t operation, uint32_t id, const char* what, void* buffer = nullptr,
                 size_t size = 0, uint64_t data = 0) {
  const int result = try_command(operation, id, buffer, size, data);
  if (result < 0) throw std::system_error(-result, std::generic_category(), what);
}

uint8_t shift_of(uint32_t bytes) {
  PANDO_ASSERT(std::has_single_bit(bytes));
  return static_cast<uint8_t>(std::countr_zero(bytes));
}

Parameters parameters_of(const NewDevice& device) {
  // Discards are 32-bit numbers of sectors; as many as fit, whole blocks of every size.
  constexpr uint32_t kMaxSectors = 1u << 22;
  Parameters parameters{};
  parameters.length = sizeof(parameters);
  parameters.types = kParametersBasic | kParametersDiscard;
  BasicParameters& basic = parameters.basic;
  basic.attributes = kAttributeVolatileCache | kAttributeFua;
  if (device.read_only) basic.attributes |= kAttributeReadOnly;
  basic.logical_block_shift = 12;
  basic.physical_block_shift = shift_of(device.atomic_bytes < 4096 ? 4096 : device.atomic_bytes);
  basic.optimal_io_shift = basic.minimum_io_shift = shift_of(device.block_bytes);
  basic.max_sectors = kMaxRequestBytes / kSectorBytes;
  basic.device_sectors = device.size_bytes / kSectorBytes;
  DiscardParameters& discard = parameters.discard;
  discard.granularity = device.block_bytes;
  discard.max_discard_sectors = kMaxSectors;
  discard.max_write_zeroes_sectors = kMaxSectors;
  discard.max_discard_segments = 1;
  return parameters;
}

}  // namespace

uint64_t features() {
  uint64_t flags = 0;
  run_command(kGetFeatures, kAnyDevice, "ublk: get features", &flags, sizeof(flags));
  return flags;
}

uint32_t add_device(const NewDevice& device) {
  DeviceInfo info{};
  info.queues = 1;  // one thread serves it
  info.queue_depth = kQueueDepth;
  info.max_io_bytes = kMaxRequestBytes;
  info.device_id = kAnyDevice;
  info.flags = kNeeded;
  info.server_flags = device.owner;
  run_command(kAddDevice, kAnyDevice, "ublk: add a device", &info, sizeof(info));
  try {
    Parameters parameters = parameters_of(device);
    run_command(kSetParameters, info.device_id, "ublk: set parameters", &parameters,
                sizeof(parameters));
  } catch (...) {
    try_command(kDeleteDeviceAsync, info.device_id, nullptr, 0, 0);
    throw;
  }
  return info.device_id;
}

DeviceInfo device_info(uint32_t id) {
  DeviceInfo info{};
  run_command(kGetDeviceInfo, id, "ublk: get a device's state", &info, sizeof(info));
  return info;
}

uint64_t device_size_bytes(uint32_t id) {
  Parameters parameters{};
  parameters.length = sizeof(parameters);
  run_command(kGetParameters, id, "ublk: get parameters", &parameters, sizeof(parameters));
  return parameters.basic.device_sectors * kSectorBytes;
}

void start_device(uint32_t id) {
  run_command(kStartDevice, id, "ublk: start a device", nullptr, 0,
              static_cast<uint64_t>(getpid()));
}

void start_recovery(uint32_t id) {
  run_command(kStartRecovery, id, "ublk: start a recovery");
}

void end_recovery(uint32_t id) {
  run_command(kEndRecovery, id, "ublk: end a recovery", nullptr, 0,
              static_cast<uint64_t>(getpid()));
}

void stop_device(uint32_t id) {
  run_command(kStopDevice, id, "ublk: stop a device");
}

void delete_device(uint32_t id) {
  int result = try_command(kDeleteDeviceAsync, id, nullptr, 0, 0);
  // Before Linux 6.9 there is only the one that waits.
  if (result == -EOPNOTSUPP) result = try_command(kDeleteDevice, id, nullptr, 0, 0);
  if (result < 0 && result != -ENODEV) {
    throw std::system_error(-result, std::generic_category(), "ublk: delete a device");
  }
}

}  // namespace pando::ublk
