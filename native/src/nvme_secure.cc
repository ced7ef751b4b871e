// The TLS half of a connection: finds out whether there is one, does the handshake, and puts what
// it decrypts where a plain connection receives. All limits of a plain connection hold: the time in
// which a Connect has to be complete counts the handshake, and what comes faster than it can be
// taken stays in the socket.
#include <sys/socket.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <new>
#include <utility>

#include "assert.h"
#include "nvme_connection.h"
#include "nvme_controller.h"
#include "nvme_target.h"

namespace pando::nvme {
namespace {

constexpr size_t kCiphertextBytes = 32 * 1024;
/// What a stream takes when nothing is sent: what is received, and what OpenSSL keeps. What is sent
/// is as much again as its plain bytes, which are counted.
constexpr uint32_t kTlsConnectionBytes = 64 * 1024;
constexpr uint64_t kAlertLingerMs = 1'000;

}  // namespace

/// With the first bytes. False: there is nothing more to do with them.
bool Connection::settle_transport() {
  transport_settled_ = true;
  const auto first = std::to_integer<uint8_t>(receive_buffer_.data()[receive_begin_]);
  const TlsMode mode = target_.options().tls;
  if (first == kTlsHandshakeRecord) {
    if (mode == TlsMode::kOff) {
      refuse_transport("it begins with TLS, which is off here");
    } else {
      begin_tls();
    }
    return false;
  }
  if (mode != TlsMode::kRequired) return true;
  target_.exports().refused(peer_, "it begins without TLS, which is required here");
  terminate({FatalError::kInvalidHeaderField, offsetof(PduHeader, type)});
  arm_receive();
  return false;
}

void Connection::begin_tls() {
  ciphertext_ = target_.reactor().buffers().take(kCiphertextBytes);
  if (!ciphertext_) return close();
  try {
    tls_ = std::make_unique<TlsStream>(target_.tls());
  } catch (const std::bad_alloc&) {
    return close();
  }
  send_queue_.secure(*tls_);
  PANDO_ASSERT(available() <= ciphertext_.capacity());
  std::memcpy(ciphertext_.data(), receive_buffer_.data() + receive_begin_, available());
  tls_->feed(ciphertext_.data(), available());
  receive_begin_ = receive_end_ = 0;
  advance_tls();
}

void Connection::advance_tls() {
  if (tls_->established()) return process();
  switch (tls_->handshake()) {
    case TlsStream::Progress::kWantsInput:
      send_queue_.flush();
      return arm_receive();
    case TlsStream::Progress::kWantsKey:
      awaiting_tls_key_ = true;
      return target_.exports().tls_key({peer_, tls_->hello()},
                                       [this](TlsKey key) { take_tls_key(std::move(key)); });
    case TlsStream::Progress::kFailed:
      return refuse_transport("TLS: " + tls_->failure());
    case TlsStream::Progress::kDone:
      break;
  }
  if (!target_.tls_budget().take(secure_host_, kTlsConnectionBytes)) {
    return refuse_transport("TLS: the host has too many connections");
  }
  tls_bytes_ = kTlsConnectionBytes;
  process();
}

void Connection::take_tls_key(TlsKey key) {
  PANDO_ASSERT(awaiting_tls_key_);
  awaiting_tls_key_ = false;
  if (state_ == State::kClosed) return check_finished();
  if (state_ != State::kFresh) return arm_receive();
  secure_host_ = key.host_nqn;
  secure_subsystem_ = key.subsystem_nqn;
  tls_->give_key(std::move(key));
  advance_tls();
}

/// Straight to where it belongs. False: there is nothing to be had now.
bool Connection::decrypt() {
  const bool direct = phase_ == Phase::kData && available() == 0 && data_left_ > 0;
  int result = 0;
  if (direct) {
    result = tls_->read(data_command_->buffer.data() + data_offset_, data_left_);
  } else {
    if (receive_begin_ > 0) {
      std::memmove(receive_buffer_.data(), receive_buffer_.data() + receive_begin_, available());
      receive_end_ -= receive_begin_;
      receive_begin_ = 0;
    }
    result = tls_->read(receive_buffer_.data() + receive_end_,
                        receive_buffer_.capacity() - receive_end_);
  }
  if (result < 0) {
    if (tls_->ended()) {
      close();
    } else {
      refuse_transport("TLS: " + tls_->failure());
    }
    return false;
  }
  if (direct) {
    data_offset_ += static_cast<uint32_t>(result);
    data_left_ -= static_cast<uint32_t>(result);
  } else {
    receive_end_ += static_cast<size_t>(result);
  }
  return result > 0;
}

/// Ends the connection, and says why to whoever reads logs; over TLS the peer gets an alert.
void Connection::refuse_transport(const std::string& reason) {
  target_.exports().refused(peer_, reason);
  if (tls_ == nullptr) return close();
  send_queue_.clear();
  waiting_.clear();
  target_.budget().forget(*this);
  state_ = State::kTerminating;
  if (controller_ != nullptr) controller_->detach(*this);
  send_queue_.flush();
  if (send_queue_.empty()) ::shutdown(fd_, SHUT_WR);
  auto& reactor = target_.reactor();
  reactor.cancel_timer(connect_timer_);
  connect_timer_ = reactor.add_timer(kAlertLingerMs, [this] { close(); });
  arm_receive();
}

/// An alert that nothing comes any more, if it can go at once.
void Connection::say_goodbye() {
  if (send_queue_.sending() || !send_queue_.empty()) return;
  tls_->end();
  const auto& output = tls_->output();
  (void)::send(fd_, output.data(), output.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace pando::nvme
