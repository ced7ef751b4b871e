// The embedded NVMe/TCP target: its listeners, the connections that came in through them, and the
// controllers that hosts have made with them.
//
// One subsystem per volume, its name the export's; namespace 1 is the volume. A volume is opened
// when a host makes a controller and closed when the last connection of that controller is gone,
// so that an idle volume costs nothing here. Everything runs on the reactor thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "block_io.h"
#include "nvme_budget.h"
#include "nvme_fence.h"
#include "nvme_listener.h"
#include "reactor.h"

namespace pando::nvme {

class Connection;
class Controller;
class TlsContext;
struct ControllerSettings;

/// Plain connections are told from TLS by their first byte.
enum class TlsMode : uint8_t { kOff, kAllowed, kRequired };

struct TargetOptions {
  std::vector<Place> listen = {{"127.0.0.1", 4420}};  // port 0: any that is free
  /// What discovery tells hosts; empty: the address and port that they came to.
  std::vector<Place> advertised;
  TlsMode tls = TlsMode::kAllowed;  // a host with a key has to use it, whatever this says

  uint32_t max_connections = 8192;
  uint32_t max_host_connections = 4096;
  uint32_t max_fresh_connections = 512;      // before their Connect is answered
  uint64_t buffer_bytes = 256ull << 20;      // what all connections' commands may hold
  uint64_t host_buffer_bytes = 64ull << 20;  // and one host's
  uint64_t tls_bytes = 256ull << 20;         // what all TLS streams may hold beside that
  uint64_t tls_host_bytes = 64ull << 20;     // and one host's
  uint16_t max_queue_entries = 128;
  uint16_t max_io_queues = 16;
  uint32_t max_data_bytes = kMaxIoBytes;        // of one command, a power of two >= 4096
  uint32_t max_h2c_data_bytes = kMaxIoBytes;    // of one H2CData PDU
  uint32_t in_capsule_bytes = 16 * 1024;        // of I/O commands; two Postgres pages
  uint32_t connection_buffer_bytes = 4u << 20;  // what one connection's commands may hold
  uint64_t connect_timeout_ms = 10'000;         // from accept to a complete Connect
  uint64_t send_stall_ms = 30'000;              // a peer that reads nothing for so long is gone
  uint64_t data_stall_ms = 30'000;              // or that owes data and sends nothing
  uint64_t discovery_idle_ms = 120'000;         // discovery without keep alive
  uint32_t keep_alive_granularity_ms = 1'000;   // reported as KAS
  uint64_t drain_timeout_ms = 2'000;            // a stop waits so long for what is under way
  uint64_t fence_timeout_ms = 30'000;           // how long a fence waits for the last request
};

/// A host's controller, for the control plane to list.
struct Session {
  std::string subsystem_nqn;
  std::string host_nqn;
  std::string peer;
  uint16_t controller_id = 0;
  uint16_t io_queues = 0;
  uint64_t connected_ms = 0;  // for how long
  bool authenticated = false;
  bool secure = false;  // over TLS
};

class Target {
 public:
  /// `reactor` and `exports` must outlive it. Throws std::invalid_argument for limits that do not
  /// fit together.
  Target(Reactor& reactor, Exports& exports, TargetOptions options);
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  /// Only after stop() has reported, or without a start().
  ~Target();

  /// Listens. Throws std::system_error that names the address; then it listens nowhere.
  void start();
  /// Of each place, in the order of the options.
  std::vector<uint16_t> ports() const;
  /// Takes nothing more, answers what has been taken, ends every connection; `done` runs when the
  /// last volume is closed, never inside stop().
  void stop(std::function<void()> done);

  /// Fencing: ends what `host_nqn` has on `subsystem_nqn`, connections that are being made too, at
  /// once. An empty host means every host. Commands that have reached the volume still run there;
  /// `done` runs when the last of them has ended, or after the time limit.
  void disconnect(const std::string& subsystem_nqn, const std::string& host_nqn, Fences::Done done);
  /// The volume has another size now, or another read-only state: hosts are told to look again.
  void volume_changed(const BlockVolume* volume);
  /// What discovery lists to these hosts has changed: those that asked to be told are.
  void exports_changed(const std::vector<std::string>& host_nqns);
  /// Of one host, or of all. What belongs to others is not copied.
  std::vector<Session> sessions(std::string_view host_nqn = {}) const;

  // For connections and controllers.
  Reactor& reactor() { return reactor_; }
  Budget& budget() { return budget_; }
  /// Apart, so that connections cannot take the room that their commands need.
  Budget& tls_budget() { return tls_budget_; }
  /// Whether the host may have one more queue.
  bool has_room_for(const std::string& host_nqn) const;
  /// It has one more, or one less.
  void queue_joined(const std::string& host_nqn) { ++queues_by_host_[host_nqn]; }
  void queue_left(const std::string& host_nqn);
  /// A connection is no stranger any more: its Connect has been answered, or it is gone.
  void settled() { --fresh_connections_; }
  Exports& exports() { return exports_; }
  TlsContext& tls() { return *tls_; }
  const TargetOptions& options() const { return options_; }
  /// The ids of the controllers of a subsystem, in order.
  std::vector<uint16_t> controllers_of(const std::string& subsystem_nqn) const;
  /// Null when every id is taken.
  Controller* make_controller(ControllerSettings settings);
  Controller* find_controller(uint16_t id);
  /// From here on the object is out of every list; it dies in a later turn.
  void retire(Connection& connection);
  void retire(Controller& controller);

 private:
  void take(int fd);
  void close_connections();
  void schedule_burial();
  void bury();

  Reactor& reactor_;
  Exports& exports_;
  TargetOptions options_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  size_t listening_ = 0;
  TimerId burial_timer_ = 0;
  TimerId drain_timer_ = 0;
  bool stopping_ = false;
  std::function<void()> stopped_;

  uint64_t next_connection_ = 1;
  uint16_t next_controller_ = 1;
  std::map<uint64_t, std::unique_ptr<Connection>> connections_;
  std::map<uint16_t, std::unique_ptr<Controller>> controllers_;
  // Counted, since who connects does not wait for a look at all who are connected.
  uint32_t fresh_connections_ = 0;
  std::unordered_map<std::string, uint32_t> queues_by_host_;
  std::vector<std::unique_ptr<Connection>> dead_connections_;
  std::vector<std::unique_ptr<Controller>> dead_controllers_;
  Fences fences_;
  Budget budget_;
  Budget tls_budget_;
  std::unique_ptr<TlsContext> tls_;  // null where TLS is off
};

}  // namespace pando::nvme
