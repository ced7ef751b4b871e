#include "devices.h"

#include <map>
#include <utility>

namespace pando {
namespace {

std::map<uint64_t, std::shared_ptr<Device>> devices;
uint64_t next_handle = 1;

}  // namespace

uint64_t add_device(std::shared_ptr<Device> device) {
  devices.emplace(next_handle, std::move(device));
  return next_handle++;
}

std::shared_ptr<Device> find_device(uint64_t handle) {
  const auto found = devices.find(handle);
  return found == devices.end() ? nullptr : found->second;
}

void remove_device(uint64_t handle) {
  devices.erase(handle);
}

}  // namespace pando
