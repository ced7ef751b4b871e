// What a host has made with an admin Connect: properties, features, events and the queues that
// belong together. Either an I/O controller, which holds a volume open, or a discovery controller,
// which has none.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "block_io.h"
#include "nvme_command.h"
#include "nvme_spec.h"
#include "reactor.h"

namespace pando::nvme {

class Target;

struct ControllerSettings {
  std::string subsystem_nqn;
  std::string host_nqn;
  std::array<uint8_t, 16> host_id{};
  std::string peer;
  BlockVolume* volume = nullptr;  // null: a discovery controller
  uint32_t keep_alive_ms = 0;     // 0: none
  bool authenticate = false;      // each queue, before it gets anything
  bool secure = false;            // over TLS, each queue of it
};

/// Counted by the I/O path, told in the SMART log.
struct IoCounters {
  uint64_t reads = 0;
  uint64_t writes = 0;
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
  uint64_t media_errors = 0;
};

/// What Set Features changes and Get Features tells, one number each.
struct FeatureValues {
  uint32_t arbitration = 0;
  uint32_t temperature_threshold = 0xFFFF;
  uint32_t error_recovery = 0;
  bool write_cache = true;
  uint32_t write_atomicity = 0;
  uint32_t async_events = 0;
};

inline constexpr uint16_t kMaxHeldEvents = 4;     // AERL + 1
inline constexpr uint32_t kErrorLogEntries = 16;  // ELPE + 1
inline constexpr uint64_t kReadyTimeoutHalfSeconds = 15;

class Controller {
 public:
  Controller(Target& target, uint16_t id, ControllerSettings settings);
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;
  ~Controller();

  /// A connection became one of its queues / takes no more commands / is finished with the volume.
  void attach(Connection& connection);
  void detach(Connection& connection);
  void gone(Connection& connection);
  /// Closes all of its connections. Harmless when it has ended.
  void end();

  /// Any command counts as a sign of life (traffic based keep alive).
  void touch() { last_seen_ms_ = reactor_.now_ms(); }
  void set_keep_alive(uint32_t milliseconds);
  uint32_t keep_alive_ms() const { return keep_alive_ms_; }
  void execute_admin(Command& command);

  std::optional<uint64_t> property(Property property) const;
  /// Answers `command`, perhaps later.
  void set_configuration(Command& command, uint32_t value);

  /// An event that hosts may have asked for. `notice`: its bit in the async event configuration.
  void notify(uint32_t notice);
  /// The log page that belongs to an event was read.
  void clear_notice(uint32_t notice);
  /// Since the changed-namespaces log was last read.
  bool namespace_changed() const { return namespace_changed_; }

  void record_error(uint16_t queue_id, const Sqe& sqe, Status status);
  const ErrorLogEntry* error(uint32_t newest_first) const;
  uint64_t error_count() const { return error_count_; }

  bool ready() const { return (status_ & kStatusReady) != 0; }
  bool discovery() const { return settings_.volume == nullptr; }
  bool has_queue(uint16_t queue_id) const;
  /// Its admin queue is open to commands.
  bool trusted() const;
  uint16_t io_queues() const;
  uint16_t id() const { return id_; }
  uint64_t made_ms() const { return made_ms_; }
  const ControllerSettings& settings() const { return settings_; }
  BlockVolume& volume() const { return *settings_.volume; }
  Target& target() const { return target_; }
  FeatureValues& features() { return features_; }
  const FeatureValues& features() const { return features_; }
  IoCounters& counters() { return counters_; }

  /// What the last read of the discovery log listed, so that a log read in pieces is one list; it
  /// counts as its host's memory. False: there is no room for it.
  bool discover(std::vector<ExportEntry> entries);
  const std::vector<ExportEntry>& discovered() const { return discovered_; }

 private:
  void enable(uint32_t value);
  void reset();
  void shut_down(Command& command);
  void flush_for_shutdown();
  void close_io_queues();
  Reply abort(const Command& command);
  std::optional<Reply> request_event(Command& command);
  void deliver_events();
  void check_keep_alive(bool second_look);
  void arm_keep_alive();
  void check_finished();
  void forget_discovered();

  Target& target_;
  Reactor& reactor_;
  const uint16_t id_;
  const ControllerSettings settings_;
  const uint64_t made_ms_;
  std::vector<Connection*> queues_;  // attached
  uint32_t connections_ = 0;         // not gone
  bool ended_ = false;

  uint32_t configuration_ = 0;
  uint32_t status_ = 0;
  BlockIo shutdown_flush_;
  bool flushing_ = false;
  bool flush_again_ = false;

  uint32_t keep_alive_ms_;
  uint64_t last_seen_ms_;
  TimerId keep_alive_timer_ = 0;

  FeatureValues features_;
  IoCounters counters_;
  std::vector<Command*> held_events_;
  uint32_t pending_notices_ = 0;
  uint32_t masked_notices_ = 0;
  bool namespace_changed_ = false;
  std::vector<ExportEntry> discovered_;
  uint32_t discovered_bytes_ = 0;

  uint64_t error_count_ = 0;
  std::array<ErrorLogEntry, kErrorLogEntries> errors_{};
};

}  // namespace pando::nvme
