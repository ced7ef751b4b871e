// One command of one queue, from its capsule to the last byte of its reply. Connections keep them
// for reuse, so that steady I/O allocates nothing.
#pragma once

#include <array>
#include <cstdint>

#include "block_io.h"
#include "buffer.h"
#include "nvme_pdu.h"
#include "nvme_spec.h"

namespace pando::nvme {

class Connection;

/// What a command ends with. Its data, if any, is at the start of Command::buffer.
struct Reply {
  Status status = Status::kSuccess;
  uint64_t result = 0;
  uint32_t data_bytes = 0;
};

struct Command {
  enum class State : uint8_t {
    kFree,
    kReceiving,         // its in-capsule data is arriving
    kWaitingForBuffer,  // the connection's buffers are all in use
    kAwaitingData,      // R2T sent, H2CData is arriving
    kExecuting,         // somebody owes it a reply
    kHeld,              // an async event request without an event
    kReplying,          // its reply is queued or being sent
  };

  Connection* connection = nullptr;
  uint16_t tag = 0;  // its index in the connection, and its transfer tag
  State state = State::kFree;
  bool digest_failed = false;
  uint32_t transfer_bytes = 0;  // what the SGL describes
  uint32_t received_bytes = 0;
  uint32_t reserved_bytes = 0;  // counted against the connection's buffers
  bool budgeted = false;        // and against everybody's
  Sqe sqe{};

  Buffer buffer;
  Buffer scratch;  // Compare: what the volume holds
  BlockIo io;
  uint32_t next_range = 0;  // Dataset Management
  bool submitting = false;  // inside BlockVolume::submit()
  bool finished_inside = false;

  // What is sent on its behalf, and so must stay until it has been.
  alignas(8) std::array<std::byte, kMaxPadBytes> data_header;  // R2T or C2HData, digest, padding
  alignas(8) std::array<std::byte, sizeof(CapsuleRespPdu) + kDigestBytes> response;
  uint32_t data_digest = 0;
};

}  // namespace pando::nvme
