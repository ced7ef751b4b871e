// The host's side of one NVMe/TCP queue until its I/O begins: connects, negotiates, and runs one
// command after another, waiting for each. For tools; a compute node uses its kernel's.
//
// What a target says is believed as far as it fits: a length or a tag that was not asked for ends
// the connection with an error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "nvme_listener.h"
#include "nvme_pdu.h"
#include "nvme_spec.h"

namespace pando::nvme {

struct HostIdentity {
  std::string subsystem_nqn;
  std::string host_nqn;
};

/// Every function throws std::runtime_error: a sentence that says what the target did.
class Initiator {
 public:
  explicit Initiator(const Place& place);
  Initiator(const Initiator&) = delete;
  Initiator& operator=(const Initiator&) = delete;
  ~Initiator();

  struct Answer {
    Status status;
    uint64_t result;
  };
  /// `out` goes in the capsule; `in` is filled.
  Answer run(Sqe sqe, std::span<const std::byte> out, std::span<std::byte> in);

  /// Makes it queue `queue_id` of a controller; gives the controller's id.
  uint16_t connect(const HostIdentity& identity, uint16_t queue_id, uint16_t controller_id,
                   uint16_t entries);
  uint64_t property(Property property, bool eight_bytes);
  void set_property(Property property, uint32_t value);
  /// Admin queue only, after connect(): until the controller takes admin commands.
  void enable();

  int fd() const { return fd_; }
  /// The most data of one H2CData PDU.
  uint32_t max_h2c_bytes() const { return max_h2c_bytes_; }

 private:
  void send(std::span<const std::byte> bytes);
  void receive(void* data, size_t size);

  std::string name_;  // of the target, for errors
  int fd_ = -1;
  uint32_t max_h2c_bytes_ = 0;
  uint16_t next_cid_ = 0;
};

/// "0x182", and what it means where we know.
std::string status_text(Status status);

}  // namespace pando::nvme
