// The receiving half of a connection: from bytes to commands. Nothing here is believed before it
// has been compared with what the connection expects.
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "assert.h"
#include "crc32c.h"
#include "nvme_connection.h"
#include "nvme_controller.h"
#include "nvme_target.h"

namespace pando::nvme {
namespace {

// From this much on, data is received straight into the command's buffer.
constexpr uint32_t kDirectReceiveBytes = 32 * 1024;
constexpr uint64_t kTerminateLingerMs = 1'000;

template <typename T>
T read_header(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

}  // namespace

void Connection::arm_receive() {
  if (receiving_ || paused_ || draining_ || state_ == State::kClosed) return;
  if (tls_ != nullptr && awaiting_tls_key_) return;
  receiving_ = true;
  if (tls_ != nullptr) {
    return target_.reactor().ring().recv(&receive_op_, fd_, ciphertext_.data(),
                                         static_cast<uint32_t>(ciphertext_.capacity()), 0);
  }
  receiving_direct_ =
      phase_ == Phase::kData && data_left_ >= kDirectReceiveBytes && available() == 0;
  if (receiving_direct_) {
    target_.reactor().ring().recv(&receive_op_, fd_, data_command_->buffer.data() + data_offset_,
                                  data_left_, 0);
    return;
  }
  if (receive_begin_ > 0) {  // what is left is a part of a header
    std::memmove(receive_buffer_.data(), receive_buffer_.data() + receive_begin_, available());
    receive_end_ -= receive_begin_;
    receive_begin_ = 0;
  }
  target_.reactor().ring().recv(&receive_op_, fd_, receive_buffer_.data() + receive_end_,
                                static_cast<uint32_t>(receive_buffer_.capacity() - receive_end_),
                                0);
}

void Connection::on_received(int32_t result) {
  receiving_ = false;
  if (state_ == State::kClosed) return check_finished();
  if (result == -EINTR || result == -EAGAIN) return arm_receive();
  if (result <= 0) return close();
  if (state_ == State::kTerminating) {
    receive_begin_ = receive_end_ = 0;
    return arm_receive();
  }
  received_bytes_ += static_cast<uint64_t>(result);
  if (tls_ != nullptr) {
    tls_->feed(ciphertext_.data(), static_cast<size_t>(result));
    return advance_tls();
  }
  if (receiving_direct_) {
    data_offset_ += static_cast<uint32_t>(result);
    data_left_ -= static_cast<uint32_t>(result);
  } else {
    receive_end_ += static_cast<size_t>(result);
  }
  if (!transport_settled_ && !settle_transport()) return;
  process();
}

void Connection::process() {
  if (processing_) return;  // a reply inside this loop made room; the loop goes on by itself
  processing_ = true;
  do {
    while (takes_more() && step()) {
    }
  } while (tls_ != nullptr && takes_more() && decrypt());
  processing_ = false;
  if (state_ == State::kClosed) return check_finished();
  arm_receive();
  send_queue_.flush();
}

bool Connection::takes_more() const {
  return !paused_ && !draining_ &&
         (state_ == State::kFresh || state_ == State::kNegotiated || state_ == State::kLive);
}

void Connection::resume() {
  if (!paused_) return;
  paused_ = false;
  process();
}

// One step with what has been received; false when it needs more.
bool Connection::step() {
  switch (phase_) {
    case Phase::kHeader:
      return step_header();
    case Phase::kSkip:
      step_skip();
      return phase_ != Phase::kSkip;
    case Phase::kData:
      step_data();
      return phase_ != Phase::kData;
    case Phase::kTrailer:
      return step_trailer();
  }
  return false;
}

bool Connection::step_header() {
  if (available() < sizeof(PduHeader)) return false;
  const std::byte* bytes = receive_buffer_.data() + receive_begin_;
  std::memcpy(header_.data(), bytes, sizeof(PduHeader));
  const auto common = read_header<PduHeader>(header_.data());
  layout_ = {sizeof(PduHeader), 0, 0, 0};
  if (auto fault = check_common_header(common, rules_)) return terminate(*fault);

  const PduLayout layout = pdu_layout(common, rules_);
  PANDO_ASSERT(layout.header_bytes <= header_.size());
  if (available() < layout.header_bytes) return false;
  std::memcpy(header_.data(), bytes, layout.header_bytes);
  layout_ = layout;
  if (auto fault = check_header_digest(*reinterpret_cast<const PduHeader*>(header_.data()), rules_))
    return terminate(*fault);

  switch (static_cast<PduType>(common.type)) {
    case PduType::kIcReq:
      return take_icreq();
    case PduType::kCapsuleCmd:
      return take_capsule(layout);
    case PduType::kH2cData:
      return take_h2c_data(layout);
    default:  // H2CTermReq: the host has given up
      close();
      return false;
  }
}

// TCP 3.6.2.2
bool Connection::take_icreq() {
  const auto request = read_header<IcPdu>(header_.data());
  if (request.format != 0) {
    return terminate({FatalError::kUnsupportedParameter, offsetof(IcPdu, format)});
  }
  if (request.data_alignment > kMaxDataAlignment) {
    return terminate({FatalError::kInvalidHeaderField, offsetof(IcPdu, data_alignment)});
  }
  receive_begin_ += sizeof(IcPdu);
  host_alignment_ = request.data_alignment;
  rules_.initialized = true;
  rules_.header_digest = (request.digests & kDigestHeader) != 0;
  rules_.data_digest = (request.digests & kDigestData) != 0;
  state_ = State::kNegotiated;

  ic_response_.header = {static_cast<uint8_t>(PduType::kIcResp), 0, sizeof(IcPdu), 0,
                         sizeof(IcPdu)};
  ic_response_.digests = request.digests & (kDigestHeader | kDigestData);
  ic_response_.limit = rules_.max_h2c_data_bytes;
  send_queue_.push(&ic_response_, sizeof(ic_response_));
  return true;
}

bool Connection::take_capsule(const PduLayout& layout) {
  Command* command = take_command();
  if (command == nullptr) {
    if (is_overfull()) return terminate({FatalError::kSequenceError, 0});
    paused_ = true;
    return false;
  }
  command->sqe = read_header<CapsuleCmdPdu>(header_.data()).sqe;
  if (layout.data_bytes > 0 && command->sqe.sgl.type == kSglTransport) {
    release(*command);
    return terminate({FatalError::kInvalidHeaderField, offsetof(PduHeader, length)});
  }
  if (controller_ != nullptr) controller_->touch();

  Status status = plan_transfer(*command, layout.data_bytes);
  if (status == Status::kSuccess) status = admit(*command);
  if (status == Status::kSuccess && layout.data_bytes > 0 && !reserve(*command)) {
    if (!awaits_data()) {  // it stays where it is, and so does what is behind it
      release(*command);
      paused_ = true;
      return false;
    }
    force_reserve(*command);
  }
  receive_begin_ += layout.header_bytes;
  if (queue_.entries > 0) {
    queue_head_ = static_cast<uint16_t>((queue_head_ + 1) % queue_.entries);
  }
  if (status != Status::kSuccess) {
    skip_pdu_data(layout);
    fail(*command, status);
  } else if (layout.data_bytes > 0) {
    command->state = Command::State::kReceiving;
    command->buffer = target_.reactor().buffers().take(layout.data_bytes);
    if (!command->buffer) {
      skip_pdu_data(layout);
      fail(*command, Status::kInternalError);
    } else {
      begin_pdu_data(layout, command, 0);
    }
  } else {
    reserve_and_start(*command);
  }
  return true;
}

// TCP 3.6.2.8
bool Connection::take_h2c_data(const PduLayout& layout) {
  const auto pdu = read_header<DataPdu>(header_.data());
  if (pdu.tag >= commands_.size() || commands_[pdu.tag]->state != Command::State::kAwaitingData) {
    return terminate({FatalError::kInvalidHeaderField, offsetof(DataPdu, tag)});
  }
  Command& command = *commands_[pdu.tag];
  if (pdu.cid != command.sqe.cid) {
    return terminate({FatalError::kInvalidHeaderField, offsetof(DataPdu, cid)});
  }
  if (pdu.length != layout.data_bytes) {
    return terminate({FatalError::kInvalidHeaderField, offsetof(DataPdu, length)});
  }
  if (pdu.offset != command.received_bytes ||
      pdu.length > command.transfer_bytes - command.received_bytes) {
    return terminate({FatalError::kDataOutOfRange, offsetof(DataPdu, offset)});
  }
  const bool last = pdu.offset + pdu.length == command.transfer_bytes;
  if (((pdu.header.flags & kPduLastData) != 0) != last) {
    return terminate({FatalError::kInvalidHeaderField, offsetof(PduHeader, flags)});
  }
  receive_begin_ += layout.header_bytes;
  if (controller_ != nullptr) controller_->touch();
  begin_pdu_data(layout, &command, pdu.offset);
  return true;
}

void Connection::begin_pdu_data(const PduLayout& layout, Command* command, uint32_t offset) {
  PANDO_ASSERT(offset + layout.data_bytes <= command->buffer.capacity());
  data_command_ = command;
  data_offset_ = offset;
  data_left_ = layout.data_bytes;
  skip_bytes_ = layout.pad_bytes;
  phase_ = skip_bytes_ > 0 ? Phase::kSkip : Phase::kData;
  watch_receiving();
}

void Connection::skip_pdu_data(const PduLayout& layout) {
  data_command_ = nullptr;
  data_left_ = 0;
  skip_bytes_ = layout.pad_bytes + layout.data_bytes + layout.trailer_bytes;
  phase_ = skip_bytes_ > 0 ? Phase::kSkip : Phase::kHeader;
}

void Connection::step_skip() {
  const auto size = static_cast<uint32_t>(std::min<size_t>(available(), skip_bytes_));
  receive_begin_ += size;
  skip_bytes_ -= size;
  if (skip_bytes_ == 0) phase_ = data_command_ != nullptr ? Phase::kData : Phase::kHeader;
}

void Connection::step_data() {
  const auto size = static_cast<uint32_t>(std::min<size_t>(available(), data_left_));
  if (size > 0) {
    std::memcpy(data_command_->buffer.data() + data_offset_,
                receive_buffer_.data() + receive_begin_, size);
    receive_begin_ += size;
    data_offset_ += size;
    data_left_ -= size;
  }
  if (data_left_ > 0) return;
  phase_ = Phase::kTrailer;
}

bool Connection::step_trailer() {
  if (available() < layout_.trailer_bytes) return false;
  if (layout_.trailer_bytes > 0) {
    const auto digest = read_header<uint32_t>(receive_buffer_.data() + receive_begin_);
    const std::byte* data = data_command_->buffer.data() + data_offset_ - layout_.data_bytes;
    if (digest != crc32c(data, layout_.data_bytes)) data_command_->digest_failed = true;
    receive_begin_ += layout_.trailer_bytes;
  }
  phase_ = Phase::kHeader;
  after_data();
  return true;
}

void Connection::after_data() {
  Command& command = *data_command_;
  data_command_ = nullptr;
  command.received_bytes += layout_.data_bytes;
  const bool complete = command.state == Command::State::kReceiving ||
                        command.received_bytes == command.transfer_bytes;
  if (!complete) return;
  // TCP 3.3.1.2: a bad data digest costs the command, not the connection.
  if (command.digest_failed) return fail(command, Status::kTransientTransportError);
  // What it was let in for may be over: of two Connects that waited for data, one is answered now.
  const Status status = admit(command);
  if (status != Status::kSuccess) return fail(command, status);
  dispatch(command);
}

// TCP 3.5: tells the host what was wrong with its PDU and ends the connection. Always false.
bool Connection::terminate(const PduFault& fault) {
  PANDO_ASSERT(state_ != State::kClosed && state_ != State::kTerminating);
  const uint32_t echoed = std::min<uint32_t>(layout_.header_bytes, kMaxHeaderBytes);
  TermReqPdu pdu{};
  pdu.header = {static_cast<uint8_t>(PduType::kC2hTermReq), 0, sizeof(TermReqPdu), 0,
                static_cast<uint32_t>(sizeof(TermReqPdu)) + echoed};
  pdu.error = static_cast<uint16_t>(fault.error);
  pdu.information_low = static_cast<uint16_t>(fault.information);
  pdu.information_high = static_cast<uint16_t>(fault.information >> 16);
  std::memcpy(term_request_.data(), &pdu, sizeof(pdu));
  std::memcpy(term_request_.data() + sizeof(pdu), header_.data(), echoed);
  send_queue_.push(term_request_.data(), pdu.header.length);
  send_queue_.flush();

  state_ = State::kTerminating;
  receive_begin_ = receive_end_ = 0;
  phase_ = Phase::kHeader;
  if (controller_ != nullptr) controller_->detach(*this);
  auto& reactor = target_.reactor();
  reactor.cancel_timer(connect_timer_);
  connect_timer_ = reactor.add_timer(kTerminateLingerMs, [this] { close(); });
  return false;
}

}  // namespace pando::nvme
