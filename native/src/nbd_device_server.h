// Volumes that the kernel has as NBD block devices: one end of a pair of sockets is the kernel's
// (nbd_netlink.h), the requests on the other are answered here, on the reactor's thread.
//
// When a connection ends, whoever ended it, its volume is let go when its last request has. Only
// then may the device get another socket: what the kernel sends anew there must not meet the same
// request still under way.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "block_io.h"
#include "reactor.h"

namespace pando {

class NbdDeviceServer {
 public:
  /// `error` is an errno, or 0 with `socket`, the kernel's end, which is the receiver's to close,
  /// and the flags that the volume is served with.
  using Done = std::function<void(int error, int socket, uint16_t flags)>;
  /// `lost`: neither release() nor leave() has ended it.
  using Ended = std::function<void(bool lost)>;

  NbdDeviceServer(Reactor& reactor, Exports& exports);
  NbdDeviceServer(const NbdDeviceServer&) = delete;
  NbdDeviceServer& operator=(const NbdDeviceServer&) = delete;
  ~NbdDeviceServer();

  void serve(std::string volume, Done done);
  /// `ended` runs when the volume is let go: at once if it is not served.
  void when_ended(const std::string& volume, Ended ended);
  /// Ends the connection; when_ended() says when that is done.
  void release(const std::string& volume);
  /// Ends all, and takes no more; `done` when the last volume is let go. The kernel's devices stay,
  /// and wait for another server.
  void leave(std::function<void()> done);

 private:
  class Served;

  void on_opened(const std::string& name, OpenResult result, const Done& done);
  void remove(const std::string& volume);
  void check_left();

  Reactor& reactor_;
  Exports& exports_;
  std::map<std::string, std::unique_ptr<Served>> served_;
  size_t opening_ = 0;
  bool leaving_ = false;
  std::function<void()> on_left_;
};

}  // namespace pando
