// One address and port on which the target listens.
//
// Out of descriptors or memory it waits a little and tries again: hosts that are connected live on,
// new ones wait in the kernel's backlog.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "reactor.h"

namespace pando::nvme {

/// `address` is numeric, IPv4 or IPv6.
struct Place {
  std::string address;
  uint16_t port = 0;
};

class Listener {
 public:
  /// `accepted` gets a socket that is the callee's to close.
  Listener(Reactor& reactor, Place place, std::function<void(int fd)> accepted);
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  /// After stop() has reported, or without a start().
  ~Listener();

  /// Takes the address. Throws std::system_error that names it.
  void bind();
  /// Accepts from now on.
  void start();
  uint16_t port() const { return place_.port; }
  /// `stopped` runs when no accept is under way any more, perhaps at once.
  void stop(std::function<void()> stopped);

 private:
  void accept_next();
  void on_accepted(int32_t result);

  Reactor& reactor_;
  Place place_;
  std::function<void(int)> accepted_;
  int fd_ = -1;
  bool accepting_ = false;
  bool stopping_ = false;
  RingOp accept_op_;
  TimerId retry_timer_ = 0;
  std::function<void()> stopped_;
};

/// "10.0.0.9:50000" or "[fd00::9]:50000": who is at the other end.
std::string peer_of(int fd);
/// Our own end of a connection; an IPv4 address that was mapped into IPv6 as IPv4.
Place local_place(int fd);

}  // namespace pando::nvme
