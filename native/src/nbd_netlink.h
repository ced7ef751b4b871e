// The kernel's NBD driver, by generic netlink: attaches a socket of ours to a block device. For
// kernels without ublk.
//
// Source: Linux, include/uapi/linux/nbd-netlink.h and drivers/block/nbd.c. Every call blocks, for
// half a minute at most, so none may run on a reactor. All throw std::system_error.
#pragma once

#include <cstdint>
#include <string>

namespace pando::nbd {

struct NewDevice {
  /// Says whose it is: the kernel shows it as /sys/block/nbdN/backend, and takes another socket for
  /// the device only from who knows it.
  std::string owner;
  uint64_t size_bytes = 0;
  uint32_t block_bytes = 0;
  uint16_t transmission_flags = 0;
};

/// Whether the driver is loaded.
bool driver_is_loaded();
/// Makes a block device of the other end of `socket`, which is past its handshake, and gives its
/// number. The kernel takes a reference: the caller still closes its own.
///
/// A request that is not answered in kRequestSeconds is taken back, and its connection ended. What
/// is taken back waits for the device's next socket, for kDeadSeconds; then it fails.
uint32_t connect_device(const NewDevice& device, int socket);
/// A socket in place of one that has ended, and the size that the device has from now on. Waits
/// until the kernel has noticed the end.
void reconnect_device(uint32_t device, const std::string& owner, uint64_t size_bytes, int socket);
/// Whoever has the device open sees its new size; requests go on.
void resize_device(uint32_t device, const std::string& owner, uint64_t size_bytes);
/// What waits for the device fails. It is gone when the last who has it open has closed it.
void disconnect_device(uint32_t device);

inline constexpr uint64_t kRequestSeconds = 15;
inline constexpr uint64_t kDeadSeconds = 24 * 60 * 60;

}  // namespace pando::nbd
