// The control device of ublk: makes, starts, recovers and removes block devices.
//
// Every call blocks, some of them until the device's server has done its part, so none may run on a
// reactor. Each has a time limit. All throw std::system_error.
#pragma once

#include <cstdint>

#include "ublk_spec.h"

namespace pando::ublk {

struct NewDevice {
  /// Says whose it is; found again in DeviceInfo::server_flags.
  uint64_t owner = 0;
  uint64_t size_bytes = 0;
  uint32_t block_bytes = 0;   // the unit of allocation: what to align to and discard in
  uint32_t atomic_bytes = 0;  // what the device writes whole or not at all
  bool read_only = false;
};

/// Requests that a device may have at a time, and what each may carry.
inline constexpr uint16_t kQueueDepth = 128;
inline constexpr uint32_t kMaxRequestBytes = 512 << 10;

/// Of the kernel; see kNeeded.
uint64_t features();
/// The number that the kernel gives to it. It appears as a block device when it is started.
uint32_t add_device(const NewDevice& device);
DeviceInfo device_info(uint32_t id);
uint64_t device_size_bytes(uint32_t id);
/// After its server has fetched: blocks until all of its queue is there.
void start_device(uint32_t id);
/// Whose server is gone, and whose requests wait. EBUSY: the kernel has not noticed yet.
void start_recovery(uint32_t id);
/// As start_device(), for one that is being recovered; what was under way comes again.
void end_recovery(uint32_t id);
/// The block device is gone afterwards, and its server gets no more requests.
void stop_device(uint32_t id);
/// Does not wait for those who still have it open.
void delete_device(uint32_t id);

}  // namespace pando::ublk
