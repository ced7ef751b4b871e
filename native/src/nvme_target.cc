#include "nvme_target.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <set>
#include <stdexcept>
#include <utility>

#include "assert.h"
#include "nvme_connection.h"
#include "nvme_controller.h"
#include "nvme_tls.h"

namespace pando::nvme {
namespace {

constexpr uint16_t kLastController = 0xFFEF;  // Base 3.1.2: the ids above are reserved
constexpr size_t kMaxPlaces = 16;
constexpr uint32_t kMaxInCapsuleBytes = 32 * 1024;

void check_options(const TargetOptions& options) {
  const auto require = [](bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(std::string("NVMe/TCP target: ") + what);
  };
  require(options.max_data_bytes >= kSectorSize && options.max_data_bytes <= kMaxIoBytes &&
              std::has_single_bit(options.max_data_bytes),
          "max_data_bytes is not a power of two from 4096 to 1 MiB");
  // TCP 3.6.2.3: MAXH2CDATA is at least 4096 and a multiple of 4.
  require(options.max_h2c_data_bytes >= 4096 && options.max_h2c_data_bytes % 4 == 0,
          "max_h2c_data_bytes is less than 4096 or not a multiple of 4");
  require(options.in_capsule_bytes % 16 == 0 && options.in_capsule_bytes <= kMaxInCapsuleBytes &&
              options.in_capsule_bytes <= options.max_data_bytes,
          "in_capsule_bytes is not a multiple of 16, or too large");
  require(!options.listen.empty() && options.listen.size() <= kMaxPlaces,
          "it listens in no place, or in more than 16");
  require(options.host_buffer_bytes >= 2 * kMaxIoBytes &&
              options.buffer_bytes >= options.host_buffer_bytes,
          "host_buffer_bytes is less than 2 MiB, or more than buffer_bytes");
  require(options.tls_bytes >= options.tls_host_bytes, "tls_host_bytes is more than tls_bytes");
  require(options.max_queue_entries >= 32, "max_queue_entries is less than 32");
  require(options.max_io_queues >= 1, "max_io_queues is 0");
  require(options.max_host_connections >= 2, "max_host_connections is less than 2");
  require(options.keep_alive_granularity_ms >= 100, "keep_alive_granularity_ms is less than 100");
}

}  // namespace

Target::Target(Reactor& reactor, Exports& exports, TargetOptions options)
    : reactor_(reactor),
      exports_(exports),
      options_(std::move(options)),
      fences_(reactor),
      budget_(reactor, {options_.buffer_bytes, options_.host_buffer_bytes}),
      tls_budget_(reactor, {options_.tls_bytes, options_.tls_host_bytes}) {
  check_options(options_);
  if (options_.tls != TlsMode::kOff) tls_ = std::make_unique<TlsContext>();
}

Target::~Target() {
  PANDO_ASSERT(listening_ == 0 && connections_.empty() && controllers_.empty());
  reactor_.cancel_timer(burial_timer_);
}

void Target::start() {
  PANDO_ASSERT(listeners_.empty() && !stopping_);
  // All of them or none: an accept that is under way cannot be taken back at once.
  for (const Place& place : options_.listen) {
    listeners_.push_back(std::make_unique<Listener>(reactor_, place, [this](int fd) { take(fd); }));
    try {
      listeners_.back()->bind();
    } catch (...) {
      listeners_.clear();
      throw;
    }
  }
  for (const auto& listener : listeners_) listener->start();
  listening_ = listeners_.size();
}

std::vector<uint16_t> Target::ports() const {
  std::vector<uint16_t> ports;
  for (const auto& listener : listeners_) ports.push_back(listener->port());
  return ports;
}

void Target::take(int fd) {
  // Those that have not said who they are cannot take all the places of those that have.
  if (stopping_ || connections_.size() >= options_.max_connections ||
      fresh_connections_ >= options_.max_fresh_connections) {
    ::close(fd);
    return;
  }
  const uint64_t id = next_connection_++;
  auto connection = std::make_unique<Connection>(*this, id, fd, peer_of(fd));
  Connection& reference = *connection;
  connections_.emplace(id, std::move(connection));
  ++fresh_connections_;
  reference.start();
}

void Target::stop(std::function<void()> done) {
  PANDO_ASSERT(!stopping_);
  stopping_ = true;
  stopped_ = std::move(done);
  for (const auto& listener : listeners_) {
    listener->stop([this] {
      --listening_;
      schedule_burial();
    });
  }
  std::vector<Connection*> open;
  for (const auto& [id, connection] : connections_) open.push_back(connection.get());
  for (Connection* connection : open) connection->drain();
  drain_timer_ = reactor_.add_timer(options_.drain_timeout_ms, [this] {
    drain_timer_ = 0;
    close_connections();
  });
  schedule_burial();
}

void Target::close_connections() {
  std::vector<Connection*> open;
  for (const auto& [id, connection] : connections_) open.push_back(connection.get());
  for (Connection* connection : open) connection->close();
}

void Target::disconnect(const std::string& subsystem_nqn, const std::string& host_nqn,
                        Fences::Done done) {
  std::vector<Controller*> controllers;
  for (const auto& [id, controller] : controllers_) {
    const ControllerSettings& settings = controller->settings();
    if (settings.subsystem_nqn == subsystem_nqn &&
        (host_nqn.empty() || settings.host_nqn == host_nqn)) {
      controllers.push_back(controller.get());
    }
  }
  std::vector<Connection*> applicants;
  for (const auto& [id, connection] : connections_) {
    if (connection->controller() == nullptr && connection->applies_for(subsystem_nqn, host_nqn)) {
      applicants.push_back(connection.get());
    }
  }
  std::set<uint64_t> connection_ids;
  std::set<uint16_t> controller_ids;
  for (const Connection* connection : applicants) connection_ids.insert(connection->id());
  for (const Controller* controller : controllers) controller_ids.insert(controller->id());
  fences_.add(std::move(connection_ids), std::move(controller_ids), options_.fence_timeout_ms,
              std::move(done));
  for (Controller* controller : controllers) controller->end();
  for (Connection* connection : applicants) connection->close();
}

void Target::volume_changed(const BlockVolume* volume) {
  for (const auto& [id, controller] : controllers_) {
    if (!controller->discovery() && &controller->volume() == volume) {
      controller->notify(kNotifyNamespace);
    }
  }
}

void Target::exports_changed(const std::vector<std::string>& host_nqns) {
  for (const auto& [id, controller] : controllers_) {
    const auto& host = controller->settings().host_nqn;
    if (controller->discovery() && std::ranges::find(host_nqns, host) != host_nqns.end()) {
      controller->notify(kNotifyDiscovery);
    }
  }
}

std::vector<Session> Target::sessions(std::string_view host_nqn) const {
  std::vector<Session> sessions;
  for (const auto& [id, controller] : controllers_) {
    const ControllerSettings& settings = controller->settings();
    if (controller->discovery()) continue;
    if (!host_nqn.empty() && settings.host_nqn != host_nqn) continue;
    sessions.push_back({settings.subsystem_nqn, settings.host_nqn, settings.peer, id,
                        controller->io_queues(), reactor_.now_ms() - controller->made_ms(),
                        settings.authenticate && controller->trusted(), settings.secure});
  }
  return sessions;
}

// Ids go round, so that a host does not meet one again soon after it was another controller's.
Controller* Target::make_controller(ControllerSettings settings) {
  if (stopping_ || controllers_.size() >= kLastController) return nullptr;
  while (controllers_.contains(next_controller_)) {
    next_controller_ = next_controller_ == kLastController ? 1 : next_controller_ + 1;
  }
  const uint16_t id = next_controller_;
  next_controller_ = id == kLastController ? 1 : id + 1;
  auto controller = std::make_unique<Controller>(*this, id, std::move(settings));
  return controllers_.emplace(id, std::move(controller)).first->second.get();
}

bool Target::has_room_for(const std::string& host_nqn) const {
  const auto found = queues_by_host_.find(host_nqn);
  return found == queues_by_host_.end() || found->second < options_.max_host_connections;
}

void Target::queue_left(const std::string& host_nqn) {
  const auto found = queues_by_host_.find(host_nqn);
  PANDO_ASSERT(found != queues_by_host_.end());
  if (--found->second == 0) queues_by_host_.erase(found);
}

std::vector<uint16_t> Target::controllers_of(const std::string& subsystem_nqn) const {
  std::vector<uint16_t> ids;
  for (const auto& [id, controller] : controllers_) {
    if (controller->settings().subsystem_nqn == subsystem_nqn) ids.push_back(id);
  }
  return ids;
}

Controller* Target::find_controller(uint16_t id) {
  const auto found = controllers_.find(id);
  return found == controllers_.end() ? nullptr : found->second.get();
}

void Target::retire(Connection& connection) {
  const auto found = connections_.find(connection.id());
  PANDO_ASSERT(found != connections_.end());
  fences_.connection_gone(connection.id());
  dead_connections_.push_back(std::move(found->second));
  connections_.erase(found);
  schedule_burial();
}

void Target::retire(Controller& controller) {
  const auto found = controllers_.find(controller.id());
  PANDO_ASSERT(found != controllers_.end());
  fences_.controller_gone(controller.id());
  dead_controllers_.push_back(std::move(found->second));
  controllers_.erase(found);
  schedule_burial();
}

// Whoever retired may still be on the stack.
void Target::schedule_burial() {
  if (burial_timer_ == 0) burial_timer_ = reactor_.add_timer(0, [this] { bury(); });
}

void Target::bury() {
  burial_timer_ = 0;
  dead_connections_.clear();
  dead_controllers_.clear();
  if (stopped_ && listening_ == 0 && connections_.empty() && controllers_.empty()) {
    reactor_.cancel_timer(drain_timer_);
    auto stopped = std::exchange(stopped_, nullptr);
    stopped();
  }
}

}  // namespace pando::nvme
