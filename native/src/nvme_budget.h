// What all connections together may hold in buffers, and what one host may: no peer can use up the
// memory of the process, nor another host's share.
//
// A command that does not fit waits; who waits is woken in the order in which it began to wait. A
// connection without anything may always have one command, as long as the whole is not used up, so
// a host that holds its share does not lock its own other queues out.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>

#include "reactor.h"

namespace pando::nvme {

class Connection;

struct BudgetLimits {
  uint64_t bytes = 0;
  uint64_t host_bytes = 0;
};

class Budget {
 public:
  Budget(Reactor& reactor, BudgetLimits limits) : reactor_(reactor), limits_(limits) {}
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;
  ~Budget();

  /// False: it does not fit now.
  bool take(const std::string& host_nqn, uint32_t bytes);
  void give(const std::string& host_nqn, uint32_t bytes);
  /// A connection of the host has given back all that it had. While it has connections, its count
  /// stays: to make and drop it would cost each request an allocation.
  void ended(const std::string& host_nqn);
  /// `connection` is woken when something has been given back. Harmless if it waits already.
  void wait(Connection& connection);
  void forget(Connection& connection);
  uint64_t used_bytes() const { return used_bytes_; }

 private:
  void wake();

  Reactor& reactor_;
  const BudgetLimits limits_;
  uint64_t used_bytes_ = 0;
  std::map<std::string, uint64_t> by_host_;
  std::deque<Connection*> waiting_;
  TimerId wake_timer_ = 0;
};

}  // namespace pando::nvme
