#include "nvme_auth.h"

#include <cstring>
#include <utility>
#include <vector>

#include "nvme_connection.h"
#include "nvme_controller.h"
#include "nvme_target.h"

namespace pando::nvme {
namespace {

// Base 6.1: CDW10, SECP (31:24), SPSP1 (23:16), SPSP0 (15:8).
constexpr uint32_t kProtocolMask = 0xFFFFFF00;
constexpr uint32_t kNvmeAuthentication = 0xE9u << 24 | 1 << 16 | 1 << 8;
/// The longest message is a Reply: 16 bytes, two hashes, a value of the largest group.
constexpr uint32_t kMaxMessageBytes = 4096;

void refuse(Command& command, Status status) {
  command.connection->reply(command, {status});
}

void finish(Command& command, uint32_t room, const AuthAnswer& answer) {
  Connection& connection = *command.connection;
  connection.end_authentication_step(answer.verdict == AuthVerdict::kAuthenticated);
  const auto bytes = static_cast<uint32_t>(answer.message.size());
  if (bytes > room) {
    refuse(command, Status::kDataSglLengthInvalid);
    return connection.drain_alone();
  }
  if (bytes > 0) std::memcpy(command.buffer.data(), answer.message.data(), bytes);
  // The host reads as much as it has room for; what is behind the message is zero.
  if (room > bytes) std::memset(command.buffer.data() + bytes, 0, room - bytes);
  connection.reply(command, {Status::kSuccess, 0, room});
  if (answer.verdict == AuthVerdict::kFailed) connection.drain_alone();
}

}  // namespace

bool is_authentication(const Sqe& sqe) {
  if (sqe.opcode != kFabricsOpcode) return false;
  const FabricsType type = fabrics_type(sqe);
  return type == FabricsType::kAuthenticationSend || type == FabricsType::kAuthenticationReceive;
}

void execute_authentication(Command& command) {
  Connection& connection = *command.connection;
  const ControllerSettings& settings = connection.controller()->settings();
  const Sqe& sqe = command.sqe;
  const uint32_t length = sqe.cdw11;  // TL, AL
  if (!settings.authenticate) return refuse(command, Status::kInvalidOpcode);
  if ((sqe.cdw10 & kProtocolMask) != kNvmeAuthentication || length == 0 ||
      length > kMaxMessageBytes) {
    return refuse(command, Status::kInvalidField);
  }
  if (length > command.transfer_bytes) return refuse(command, Status::kDataSglLengthInvalid);
  if (!connection.begin_authentication_step()) {
    return refuse(command, Status::kCommandSequenceError);
  }
  AuthStep step{connection.id(), settings.subsystem_nqn, settings.host_nqn, connection.peer(), {}};
  const bool send = fabrics_type(sqe) == FabricsType::kAuthenticationSend;
  if (send) step.message.assign(command.buffer.data(), command.buffer.data() + length);
  // The command keeps its connection until it is answered.
  connection.target().exports().authenticate(
      std::move(step), [&command, room = send ? 0 : length](const AuthAnswer& answer) {
        finish(command, room, answer);
      });
}

}  // namespace pando::nvme
