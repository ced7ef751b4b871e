// The block devices that a pool serves through ublk. Making and starting them is the control
// plane's (ublk_control.h); here their requests are fetched and answered, on the reactor thread.
//
// It outlives the reactor's ring: the kernel keeps a command per tag there, which ends with the
// thread that issued it. Then, and no earlier, the kernel takes the device for one whose server is
// gone, and keeps its requests for the next.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "block_io.h"
#include "reactor.h"

namespace pando {

class UblkServer {
 public:
  /// `error` is an errno, or 0.
  using Done = std::function<void(int error)>;

  UblkServer(Reactor& reactor, Exports& exports);
  UblkServer(const UblkServer&) = delete;
  UblkServer& operator=(const UblkServer&) = delete;
  ~UblkServer();

  /// Opens the volume and fetches all of the device's requests; the device can be started, or its
  /// recovery ended, when `done` says 0.
  void serve(uint32_t device, std::string volume, Done done);
  /// Lets go of a device that the kernel stops: `done` when it has given back every tag, or
  /// ETIMEDOUT. Harmless for one that is not served.
  void release(uint32_t device, Done done);
  /// Answers what is begun, takes nothing more, and lets the volumes go; the devices stay.
  void leave(std::function<void()> done);
  bool left() const { return left_; }

 private:
  class Served;

  void on_opened(uint32_t device, OpenResult result, const Done& done);
  void let_go(Served& served);
  void check_left();

  Reactor& reactor_;
  Exports& exports_;
  std::map<uint32_t, std::unique_ptr<Served>> served_;
  size_t opening_ = 0;
  size_t busy_ = 0;  // devices that still answer while this leaves
  bool leaving_ = false;
  bool left_ = false;
  std::function<void()> on_left_;
};

}  // namespace pando
