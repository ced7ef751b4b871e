// One NBD client, from accept to the end: owns the socket, the handshake, then the requests, and
// the volume that it holds open.
//
// It dies when nothing can call it any more: the socket has settled, the volume has finished its
// requests, and the control plane owes no answer. Until then its server keeps it, closed.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "block_io.h"
#include "nbd_negotiation.h"
#include "nbd_socket.h"
#include "nbd_transmission.h"
#include "reactor.h"

namespace pando {

class NbdConnection final : private NbdSocket::User,
                            private NbdNegotiation::User,
                            private NbdTransmission::User {
 public:
  struct Options {
    int fd;  // taken over
    uint64_t negotiation_timeout_ms;
    /// The connection is over and may be destroyed, but not before this function has returned and
    /// what called it too. Called once.
    std::function<void(NbdConnection*)> finished;
  };

  NbdConnection(Reactor& reactor, Exports& exports, Options options);
  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;
  ~NbdConnection();

  void start();
  void close();
  /// The volume that it serves; null during the handshake.
  const BlockVolume* volume() const { return session_.volume; }

 private:
  void on_received() override;
  void on_settled() override { finish_if_over(); }
  void on_negotiated(const NbdSession& session) override;
  void on_negotiation_idle() override { finish_if_over(); }
  void on_transmission_idle() override { finish_if_over(); }
  void on_disconnected() override;
  void let_go();
  void finish_if_over();

  Reactor& reactor_;
  Exports& exports_;
  Options options_;
  NbdSession session_;
  TimerId timer_ = 0;
  bool finished_ = false;
  NbdSocket socket_;
  NbdNegotiation negotiation_;
  std::optional<NbdTransmission> transmission_;
};

}  // namespace pando
