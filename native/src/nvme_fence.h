// Who waits for a fenced host's last request: connections and controllers that were told to end,
// and what is called when all of them have.
//
// A host is fenced when nothing of it runs in the volume any more. Its sockets are gone at once;
// requests that had reached the volume end when they end. What the host makes anew after the fence
// is not the fence's.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <set>

#include "reactor.h"

namespace pando::nvme {

struct FenceReport {
  uint32_t controllers = 0;  // that were ended
  bool ended = false;        // false: the time was over before the last request was
};

class Fences {
 public:
  using Done = std::function<void(FenceReport)>;

  explicit Fences(Reactor& reactor) : reactor_(reactor) {}
  Fences(const Fences&) = delete;
  Fences& operator=(const Fences&) = delete;
  ~Fences();

  /// `done` runs once, never inside add().
  void add(std::set<uint64_t> connections, std::set<uint16_t> controllers, uint64_t timeout_ms,
           Done done);
  void connection_gone(uint64_t id);
  void controller_gone(uint16_t id);

 private:
  struct Fence {
    std::set<uint64_t> connections;
    std::set<uint16_t> controllers;
    FenceReport report;
    Done done;
    TimerId timer = 0;
    bool open() const { return !connections.empty() || !controllers.empty(); }
  };

  void answer_in(Fence& fence, uint64_t delay_ms);

  Reactor& reactor_;
  std::list<Fence> fences_;
};

}  // namespace pando::nvme
