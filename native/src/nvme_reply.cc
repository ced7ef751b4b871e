// The sending half of a connection: requests for data, data, and responses.
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "assert.h"
#include "crc32c.h"
#include "nvme_connection.h"
#include "nvme_controller.h"
#include "nvme_target.h"

namespace pando::nvme {
namespace {

// Base 3.3.3.2.1: a retry of these may go better.
bool may_retry(Status status) {
  switch (status) {
    case Status::kInternalError:
    case Status::kAbortRequested:
    case Status::kTransientTransportError:
    case Status::kNamespaceNotReady:
    case Status::kConnectControllerBusy:
    case Status::kWriteFault:
    case Status::kUnrecoveredReadError:
      return true;
    default:
      return false;
  }
}

}  // namespace

void Connection::reply(Command& command, const Reply& reply) {
  if (command.state == Command::State::kHeld) {
    command.state = Command::State::kExecuting;
    ++executing_;
  }
  PANDO_ASSERT(command.state == Command::State::kExecuting && executing_ > 0);
  PANDO_ASSERT(reply.data_bytes <= command.transfer_bytes);
  --executing_;
  command.state = Command::State::kReplying;
  if (state_ == State::kClosed || state_ == State::kTerminating) {
    release(command);
    return check_finished();
  }
  if (reply.status != Status::kSuccess && queue_.queue_id > 0) {
    controller_->record_error(queue_.queue_id, command.sqe, reply.status);
  }
  if (reply.status == Status::kSuccess && reply.data_bytes > 0) {
    const bool last_word = may_skip_response(reply);
    send_data(command, reply.data_bytes, last_word);
    if (!last_word) send_response(command, reply);
  } else {
    send_response(command, reply);
  }
  send_queue_.flush();
  watch_sending();
}

// TCP 3.6.2.9: the SUCCESS flag stands for a response capsule without news. A host that watches
// SQHD still gets enough capsules to see its queue move.
bool Connection::may_skip_response(const Reply& reply) {
  if (reply.result != 0) return false;
  if (!queue_.flow_control) return true;
  return ++silent_completions_ < queue_.entries / 4;
}

void Connection::send_data(Command& command, uint32_t bytes, bool last_word) {
  const uint32_t header_bytes = sizeof(DataPdu) + (rules_.header_digest ? kDigestBytes : 0);
  const uint32_t alignment = (host_alignment_ + 1u) * 4;
  const uint32_t offset = (header_bytes + alignment - 1) / alignment * alignment;
  PANDO_ASSERT(offset <= command.data_header.size());

  DataPdu pdu{};
  pdu.header.type = static_cast<uint8_t>(PduType::kC2hData);
  pdu.header.flags = kPduLastData | (last_word ? kPduSuccess : 0) |
                     (rules_.header_digest ? kPduHeaderDigest : 0) |
                     (rules_.data_digest ? kPduDataDigest : 0);
  pdu.header.header_length = sizeof(DataPdu);
  pdu.header.data_offset = static_cast<uint8_t>(offset);
  pdu.header.length = offset + bytes + (rules_.data_digest ? kDigestBytes : 0);
  pdu.cid = command.sqe.cid;
  pdu.length = bytes;
  std::memset(command.data_header.data(), 0, offset);
  std::memcpy(command.data_header.data(), &pdu, sizeof(pdu));
  if (rules_.header_digest) put_header_digest(command.data_header.data(), sizeof(pdu));

  Command* finishes = last_word ? &command : nullptr;
  send_queue_.push(command.data_header.data(), offset);
  send_queue_.push(command.buffer.data(), bytes, rules_.data_digest ? nullptr : finishes);
  if (rules_.data_digest) {
    command.data_digest = crc32c(command.buffer.data(), bytes);
    send_queue_.push(&command.data_digest, kDigestBytes, finishes);
  }
}

void Connection::send_response(Command& command, const Reply& reply) {
  CapsuleRespPdu pdu{};
  const uint32_t digest = rules_.header_digest ? kDigestBytes : 0;
  pdu.header = {static_cast<uint8_t>(PduType::kCapsuleResp),
                rules_.header_digest ? kPduHeaderDigest : uint8_t{0}, sizeof(pdu), 0,
                static_cast<uint32_t>(sizeof(pdu)) + digest};
  pdu.cqe.result = reply.result;
  pdu.cqe.sq_head = queue_.flow_control ? queue_head_ : 0xFFFF;
  pdu.cqe.sq_id = queue_.queue_id;
  pdu.cqe.cid = command.sqe.cid;
  pdu.cqe.status = static_cast<uint16_t>(static_cast<uint16_t>(reply.status) << 1);
  if (reply.status != Status::kSuccess && !may_retry(reply.status)) {
    pdu.cqe.status |= kStatusDoNotRetry;
  }
  std::memcpy(command.response.data(), &pdu, sizeof(pdu));
  if (rules_.header_digest) put_header_digest(command.response.data(), sizeof(pdu));
  silent_completions_ = 0;
  send_queue_.push(command.response.data(), pdu.header.length, &command);
}

void Connection::on_sent(Command& command) {
  release(command);
}

void Connection::on_send_done(int32_t result) {
  if (state_ == State::kClosed) return check_finished();
  if (result < 0 && result != -EINTR && result != -EAGAIN) return close();
  send_queue_.flush();
  if (state_ == State::kTerminating) {
    if (send_queue_.empty()) ::shutdown(fd_, SHUT_WR);
    return;
  }
  if (draining_) return check_drained();
  start_waiting();
  resume();
}

// A peer that takes nothing for long holds buffers for nobody.
void Connection::watch_sending() {
  if (stall_timer_ != 0 || state_ == State::kClosed) return;
  stall_mark_ = send_queue_.sent_bytes();
  stall_timer_ = target_.reactor().add_timer(target_.options().send_stall_ms, [this] {
    stall_timer_ = 0;
    if (!send_queue_.sending()) return;
    if (send_queue_.sent_bytes() == stall_mark_) return close();
    watch_sending();
  });
}

// TCP 3.6.2.10: one R2T for all of it, so a host that takes only one at a time is served too.
void Connection::request_data(Command& command) {
  R2tPdu pdu{};
  const uint32_t digest = rules_.header_digest ? kDigestBytes : 0;
  pdu.header = {static_cast<uint8_t>(PduType::kR2t),
                rules_.header_digest ? kPduHeaderDigest : uint8_t{0}, sizeof(pdu), 0,
                static_cast<uint32_t>(sizeof(pdu)) + digest};
  pdu.cid = command.sqe.cid;
  pdu.tag = command.tag;
  pdu.length = command.transfer_bytes;
  std::memcpy(command.data_header.data(), &pdu, sizeof(pdu));
  if (rules_.header_digest) put_header_digest(command.data_header.data(), sizeof(pdu));
  command.state = Command::State::kAwaitingData;
  send_queue_.push(command.data_header.data(), pdu.header.length);
  send_queue_.flush();
  watch_sending();
  watch_receiving();
}

}  // namespace pando::nvme
