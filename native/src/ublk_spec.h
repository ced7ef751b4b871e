// The interface of Linux's user-space block driver (ublk_drv), as far as it is used here. Defined
// by ourselves, because the headers of older distributions lack the newer half.
//
// Linux 6.12, include/uapi/linux/ublk_cmd.h; semantics in Documentation/block/ublk.rst.
#pragma once

#include <linux/ioctl.h>

#include <cstddef>
#include <cstdint>

namespace pando::ublk {

inline constexpr char kControlPath[] = "/dev/ublk-control";
inline constexpr char kDevicePath[] = "/dev/ublkc";

/// What a control command carries in its SQE.
struct ControlCommand {
  uint32_t device_id;
  uint16_t queue_id;  // 0xFFFF: not about a queue
  uint16_t length;    // of the buffer at `address`
  uint64_t address;
  uint64_t data;
  uint16_t device_path_length;
  uint16_t pad;
  uint32_t reserved;
};
static_assert(sizeof(ControlCommand) == 32);

struct DeviceInfo {
  uint16_t queues;
  uint16_t queue_depth;
  uint16_t state;
  uint16_t pad0;
  uint32_t max_io_bytes;
  uint32_t device_id;
  int32_t server_pid;
  uint32_t pad1;
  uint64_t flags;
  uint64_t server_flags;  // ours: the driver keeps it and does not look at it
  uint32_t owner_uid;
  uint32_t owner_gid;
  uint64_t reserved1;
  uint64_t reserved2;
};
static_assert(sizeof(DeviceInfo) == 64);

struct BasicParameters {
  uint32_t attributes;
  uint8_t logical_block_shift;
  uint8_t physical_block_shift;
  uint8_t optimal_io_shift;
  uint8_t minimum_io_shift;
  uint32_t max_sectors;
  uint32_t chunk_sectors;
  uint64_t device_sectors;
  uint64_t virtual_boundary_mask;
};
static_assert(sizeof(BasicParameters) == 32);

struct DiscardParameters {
  uint32_t alignment;
  uint32_t granularity;
  uint32_t max_discard_sectors;
  uint32_t max_write_zeroes_sectors;
  uint16_t max_discard_segments;
  uint16_t reserved0;
};
static_assert(sizeof(DiscardParameters) == 20);

/// The driver reads as much of its own, longer structure as `length` says.
struct Parameters {
  uint32_t length;
  uint32_t types;
  BasicParameters basic;
  DiscardParameters discard;
};
static_assert(offsetof(Parameters, basic) == 8 && offsetof(Parameters, discard) == 40);

inline constexpr uint32_t kParametersBasic = 1 << 0;
inline constexpr uint32_t kParametersDiscard = 1 << 1;
inline constexpr uint32_t kAttributeReadOnly = 1 << 0;
inline constexpr uint32_t kAttributeVolatileCache = 1 << 2;
inline constexpr uint32_t kAttributeFua = 1 << 3;

/// One request; the driver writes them to memory that the server maps.
struct Descriptor {
  uint32_t op_and_flags;
  uint32_t sectors;
  uint64_t first_sector;
  uint64_t address;  // unused with kUserCopy
};
static_assert(sizeof(Descriptor) == 24);

inline constexpr uint32_t kOpMask = 0xFF;
inline constexpr uint32_t kOpRead = 0;
inline constexpr uint32_t kOpWrite = 1;
inline constexpr uint32_t kOpFlush = 2;
inline constexpr uint32_t kOpDiscard = 3;
inline constexpr uint32_t kOpWriteZeroes = 5;
inline constexpr uint32_t kFlagFua = 1 << 13;

/// What a request's command carries in its SQE.
struct IoCommand {
  uint16_t queue_id;
  uint16_t tag;
  int32_t result;
  uint64_t address;
};
static_assert(sizeof(IoCommand) == 16);

inline constexpr int32_t kRequestArrived = 0;
inline constexpr uint32_t kMaxQueueDepth = 4096;
inline constexpr uint64_t kSectorBytes = 512;

/// Where a request's data is in /dev/ublkcN, with kUserCopy (queue 0).
inline constexpr uint64_t data_offset(uint16_t tag) {
  constexpr uint64_t kBase = 0x80000000;
  constexpr int kTagShift = 25;
  return kBase + (uint64_t{tag} << kTagShift);
}

// Features, which are flags of a device too.
inline constexpr uint64_t kUserRecovery = 1 << 3;
inline constexpr uint64_t kUserRecoveryReissue = 1 << 4;
inline constexpr uint64_t kIoctlEncoding = 1 << 6;
inline constexpr uint64_t kUserCopy = 1 << 7;
/// What serving a volume takes: the device outlives a killed server, its requests come again, and
/// data is copied on demand, so that an idle device holds no memory.
inline constexpr uint64_t kNeeded =
    kUserRecovery | kUserRecoveryReissue | kIoctlEncoding | kUserCopy;

enum class State : uint16_t { kDead = 0, kLive = 1, kQuiesced = 2 };

inline constexpr uint32_t kGetFeatures = _IOR('u', 0x13, ControlCommand);
inline constexpr uint32_t kGetDeviceInfo = _IOR('u', 0x02, ControlCommand);
inline constexpr uint32_t kAddDevice = _IOWR('u', 0x04, ControlCommand);
inline constexpr uint32_t kDeleteDevice = _IOWR('u', 0x05, ControlCommand);
inline constexpr uint32_t kStartDevice = _IOWR('u', 0x06, ControlCommand);
inline constexpr uint32_t kStopDevice = _IOWR('u', 0x07, ControlCommand);
inline constexpr uint32_t kSetParameters = _IOWR('u', 0x08, ControlCommand);
inline constexpr uint32_t kGetParameters = _IOR('u', 0x09, ControlCommand);
inline constexpr uint32_t kStartRecovery = _IOWR('u', 0x10, ControlCommand);
inline constexpr uint32_t kEndRecovery = _IOWR('u', 0x11, ControlCommand);
inline constexpr uint32_t kDeleteDeviceAsync = _IOR('u', 0x14, ControlCommand);

inline constexpr uint32_t kFetch = _IOWR('u', 0x20, IoCommand);
inline constexpr uint32_t kCommitAndFetch = _IOWR('u', 0x21, IoCommand);

}  // namespace pando::ublk
