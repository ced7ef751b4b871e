// The NBD front end: serves volumes on a Unix socket, for tools (fio, qemu-img, nbdcopy) and for
// kernels without ublk. An export's name is its volume's.
//
// Everything runs on the reactor's thread. What a client may take is bounded: connections, time for
// the handshake, requests and memory (see NbdTransmission). Access is the socket file's mode: 0600.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "block_io.h"
#include "nbd_connection.h"
#include "reactor.h"

namespace pando {

struct NbdLimits {
  /// One more is accepted and closed at once.
  size_t connections = 64;
  uint64_t negotiation_timeout_ms = 30000;
};

class NbdServer {
 public:
  NbdServer(Reactor& reactor, Exports& exports, std::string path, NbdLimits limits = {});
  NbdServer(const NbdServer&) = delete;
  NbdServer& operator=(const NbdServer&) = delete;
  /// Only before start(), or after stop() has called back.
  ~NbdServer();

  /// Listens. A socket that nobody listens on is replaced. Throws std::system_error: EADDRINUSE if
  /// another server listens there, EEXIST if the path is no socket.
  void start();

  /// Ends every connection that serves the volume. Each calls Exports::close() when its requests
  /// have finished.
  void disconnect(const std::string& volume_name);

  /// Stops listening, removes the socket, ends every connection; `stopped` is called, from the
  /// reactor, when the last is gone. Call it once, after start().
  void stop(std::function<void()> stopped);

  /// Those that end but have requests in flight included.
  size_t connections() const { return connections_.size(); }

 private:
  void accept();
  void on_accepted(int32_t result);
  void remove(NbdConnection* connection);
  void check_stopped();

  Reactor& reactor_;
  Exports& exports_;
  const std::string path_;
  const NbdLimits limits_;
  int fd_ = -1;
  RingOp accept_op_;
  bool accepting_ = false;
  TimerId retry_timer_ = 0;
  bool stopping_ = false;
  std::function<void()> stopped_;
  std::vector<std::unique_ptr<NbdConnection>> connections_;
};

}  // namespace pando
