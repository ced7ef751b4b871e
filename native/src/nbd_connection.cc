#include "nbd_connection.h"

#include <utility>

#include "assert.h"

namespace pando {

NbdConnection::NbdConnection(Reactor& reactor, Exports& exports, Options options)
    : reactor_(reactor),
      exports_(exports),
      options_(std::move(options)),
      socket_(reactor, options_.fd, *this),
      negotiation_(socket_, exports, *this) {}

NbdConnection::~NbdConnection() {
  PANDO_ASSERT(finished_);
  transmission_.reset();
  let_go();
}

void NbdConnection::let_go() {
  BlockVolume* volume = std::exchange(session_.volume, nullptr);
  if (volume != nullptr) exports_.close(FrontEnd::kNbd, volume, "");
}

void NbdConnection::start() {
  timer_ = reactor_.add_timer(options_.negotiation_timeout_ms, [this] { close(); });
  negotiation_.start();
}

void NbdConnection::close() {
  reactor_.cancel_timer(timer_);
  socket_.close();
}

void NbdConnection::on_disconnected() {
  // In this order: a client that sees the end may delete the volume next.
  let_go();
  socket_.close();
}

void NbdConnection::on_received() {
  if (transmission_) {
    transmission_->on_received();
  } else {
    negotiation_.on_received();
  }
}

void NbdConnection::on_negotiated(const NbdSession& session) {
  session_ = session;
  reactor_.cancel_timer(timer_);
  NbdTransmission::User& user = *this;  // a private base: emplace() could not convert
  transmission_.emplace(socket_, reactor_.buffers(), session_, user);
  transmission_->pump();
}

void NbdConnection::finish_if_over() {
  if (finished_ || !socket_.settled() || !negotiation_.idle() ||
      (transmission_ && !transmission_->idle())) {
    return;
  }
  finished_ = true;
  reactor_.cancel_timer(timer_);
  options_.finished(this);
}

}  // namespace pando
