// Open data devices, by handle: real ones and simulated ones. Used from the main JavaScript thread
// only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "sim_disk.h"
#include "uring_disk.h"

namespace pando {

/// One of the two.
struct Device {
  std::unique_ptr<DeviceFile> file;
  std::unique_ptr<SimDisk> sim;
  /// Simulation: the memory that outlives the process, and ends with the power.
  std::vector<std::byte> shared;
};

uint64_t add_device(std::shared_ptr<Device> device);
/// Null if there is no such handle.
std::shared_ptr<Device> find_device(uint64_t handle);
void remove_device(uint64_t handle);

}  // namespace pando
