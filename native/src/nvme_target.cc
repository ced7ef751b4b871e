#include "nvme_target.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "assert.h"
#include "nvme_connection.h"
#include "nvme_controller.h"

namespace pando::nvme {
namespace {

constexpr int kBacklog = 256;
constexpr uint64_t kAcceptRetryMs = 100;      // out of file descriptors, or memory
constexpr uint16_t kLastController = 0xFFEF;  // Base 3.1.2: the ids above are reserved
constexpr uint32_t kMaxInCapsuleBytes = 32 * 1024;

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

Address parse_address(const std::string& text, uint16_t port) {
  Address address;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    address.size = sizeof(*v4);
  } else if (inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    address.size = sizeof(*v6);
  }
  return address;
}

std::string format_peer(int fd) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) return "unknown";
  char text[INET6_ADDRSTRLEN] = "";
  if (name.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(name);
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
    return "[" + std::string(text) + "]:" + std::to_string(ntohs(v6.sin6_port));
  }
  const auto& v4 = reinterpret_cast<const sockaddr_in&>(name);
  inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
  return std::string(text) + ":" + std::to_string(ntohs(v4.sin_port));
}

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
  require(options.max_queue_entries >= 32, "max_queue_entries is less than 32");
  require(options.max_io_queues >= 1, "max_io_queues is 0");
  require(options.keep_alive_granularity_ms >= 100, "keep_alive_granularity_ms is less than 100");
}

}  // namespace

Target::Target(Reactor& reactor, Exports& exports, TargetOptions options)
    : reactor_(reactor), exports_(exports), options_(std::move(options)), fences_(reactor) {
  check_options(options_);
  accept_op_.context = this;
  accept_op_.done = [](RingOp* op, int32_t result) {
    static_cast<Target*>(op->context)->on_accepted(result);
  };
}

Target::~Target() {
  PANDO_ASSERT(listener_ < 0 && !accepting_ && connections_.empty() && controllers_.empty());
  reactor_.cancel_timer(burial_timer_);
}

void Target::start() {
  PANDO_ASSERT(listener_ < 0 && !stopping_);
  listen();
  accept_next();
}

void Target::listen() {
  const std::string where = options_.address + " port " + std::to_string(options_.port);
  const Address address = parse_address(options_.address, options_.port);
  if (address.size == 0) {
    throw std::system_error(EINVAL, std::generic_category(),
                            "NVMe/TCP target: not a numeric address: " + options_.address);
  }
  const int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) != 0 ||
      bind(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0 ||
      ::listen(fd, kBacklog) != 0) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    throw std::system_error(error, std::generic_category(),
                            "NVMe/TCP target: cannot listen on " + where);
  }
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) == 0) {
    port_ = ntohs(name.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(name).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(name).sin_port);
  }
  listener_ = fd;
}

void Target::accept_next() {
  accepting_ = true;
  reactor_.ring().accept(&accept_op_, listener_);
}

void Target::on_accepted(int32_t result) {
  accepting_ = false;
  if (stopping_) {
    if (result >= 0) ::close(result);
    ::close(listener_);
    listener_ = -1;
    return schedule_burial();
  }
  if (result < 0) {
    accept_timer_ = reactor_.add_timer(kAcceptRetryMs, [this] {
      accept_timer_ = 0;
      accept_next();
    });
    return;
  }
  accept_next();
  if (connections_.size() >= options_.max_connections) {
    ::close(result);
    return;
  }
  const uint64_t id = next_connection_++;
  auto connection = std::make_unique<Connection>(*this, id, result, format_peer(result));
  Connection& reference = *connection;
  connections_.emplace(id, std::move(connection));
  reference.start();
}

void Target::stop(std::function<void()> done) {
  PANDO_ASSERT(!stopping_);
  stopping_ = true;
  stopped_ = std::move(done);
  if (accepting_) {
    ::shutdown(listener_, SHUT_RDWR);
    reactor_.ring().cancel(&accept_op_);
  } else if (listener_ >= 0) {
    reactor_.cancel_timer(accept_timer_);
    ::close(listener_);
    listener_ = -1;
  }
  std::vector<Connection*> open;
  for (const auto& [id, connection] : connections_) open.push_back(connection.get());
  for (Connection* connection : open) connection->close();
  schedule_burial();
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

std::vector<Session> Target::sessions() const {
  std::vector<Session> sessions;
  for (const auto& [id, controller] : controllers_) {
    const ControllerSettings& settings = controller->settings();
    if (controller->discovery()) continue;
    sessions.push_back({settings.subsystem_nqn, settings.host_nqn, settings.peer, id,
                        controller->io_queues(), reactor_.now_ms() - controller->made_ms()});
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
  if (stopped_ && listener_ < 0 && connections_.empty() && controllers_.empty()) {
    auto stopped = std::exchange(stopped_, nullptr);
    stopped();
  }
}

}  // namespace pando::nvme
