#include "nvme_controller.h"

#include <algorithm>
#include <utility>

#include "assert.h"
#include "nvme_connection.h"
#include "nvme_features.h"
#include "nvme_identify.h"
#include "nvme_log_page.h"
#include "nvme_target.h"

namespace pando::nvme {
namespace {

// After a missed keep alive: what the host sent while this process was not running comes in first.
constexpr uint64_t kSecondLookMs = 100;

// Base 3.1.3.1, CAP: memory queues are contiguous (bit 16), time-out in half seconds (31:24), NVM
// command set (37), 4 KiB pages, ready with media (CRWMS, 59).
constexpr uint64_t kCapContiguous = 1ull << 16;
constexpr uint64_t kCapNvmCommandSet = 1ull << 37;
constexpr uint64_t kCapReadyWithMedia = 1ull << 59;

// Base 3.1.3.5, CC: command set (6:4), page size (10:7), arbitration (13:11), entry sizes.
constexpr uint32_t kConfigZeroMask = 0x3FF0;
constexpr uint32_t kConfigEntrySizesMask = 0xFF << 16;
constexpr uint32_t kConfigEntrySizes = 6u << 16 | 4u << 20;

}  // namespace

Controller::Controller(Target& target, uint16_t id, ControllerSettings settings)
    : target_(target),
      reactor_(target.reactor()),
      id_(id),
      settings_(std::move(settings)),
      made_ms_(reactor_.now_ms()),
      keep_alive_ms_(settings_.keep_alive_ms),
      last_seen_ms_(reactor_.now_ms()) {
  arm_keep_alive();
}

Controller::~Controller() {
  PANDO_ASSERT(connections_ == 0 && !flushing_);
  reactor_.cancel_timer(keep_alive_timer_);
}

void Controller::attach(Connection& connection) {
  PANDO_ASSERT(!ended_);
  queues_.push_back(&connection);
  ++connections_;
  target_.queue_joined(settings_.host_nqn);
}

void Controller::detach(Connection& connection) {
  std::erase(queues_, &connection);
  target_.queue_left(settings_.host_nqn);
  if (connection.queue_id() == 0) return end();
  const std::vector<Connection*> queues = queues_;
  for (Connection* queue : queues) queue->check_drained();
}

void Controller::gone(Connection&) {
  PANDO_ASSERT(connections_ > 0);
  --connections_;
  check_finished();
}

void Controller::end() {
  if (ended_) return;
  ended_ = true;
  status_ &= ~kStatusReady;
  held_events_.clear();  // their connection is closed or closing
  reactor_.cancel_timer(keep_alive_timer_);
  keep_alive_timer_ = 0;
  const std::vector<Connection*> queues = queues_;
  for (Connection* queue : queues) queue->close();
}

void Controller::check_finished() {
  if (!ended_ || connections_ > 0 || flushing_) return;
  forget_discovered();
  if (!discovery()) {
    target_.exports().close(FrontEnd::kNvmeTcp, settings_.volume, settings_.host_nqn);
  }
  target_.retire(*this);
}

bool Controller::has_queue(uint16_t queue_id) const {
  return std::any_of(queues_.begin(), queues_.end(),
                     [queue_id](const Connection* c) { return c->queue_id() == queue_id; });
}

bool Controller::trusted() const {
  return std::ranges::any_of(
      queues_, [](const Connection* each) { return each->queue_id() == 0 && each->trusted(); });
}

uint16_t Controller::io_queues() const {
  return static_cast<uint16_t>(std::count_if(queues_.begin(), queues_.end(),
                                             [](const auto* c) { return c->queue_id() > 0; }));
}

void Controller::close_io_queues() {
  const std::vector<Connection*> queues = queues_;
  for (Connection* queue : queues) {
    if (queue->queue_id() > 0) queue->close();
  }
}

void Controller::set_keep_alive(uint32_t milliseconds) {
  keep_alive_ms_ = milliseconds;
  arm_keep_alive();
}

void Controller::arm_keep_alive() {
  reactor_.cancel_timer(keep_alive_timer_);
  keep_alive_timer_ = 0;
  // A discovery controller without keep alive lives for a fixed time (Base 3.1.2.3).
  const uint64_t delay = keep_alive_ms_ > 0 ? keep_alive_ms_
                         : discovery()      ? target_.options().discovery_idle_ms
                                            : 0;
  if (delay == 0) return;
  const uint64_t due = last_seen_ms_ + delay + target_.options().keep_alive_granularity_ms;
  const uint64_t now = reactor_.now_ms();
  keep_alive_timer_ = reactor_.add_timer(due > now ? due - now : kSecondLookMs,
                                         [this, late = due <= now] { check_keep_alive(late); });
}

void Controller::check_keep_alive(bool second_look) {
  const uint64_t seen = last_seen_ms_;
  keep_alive_timer_ = 0;
  const uint64_t delay = keep_alive_ms_ > 0 ? keep_alive_ms_ : target_.options().discovery_idle_ms;
  const uint64_t due = seen + delay + target_.options().keep_alive_granularity_ms;
  if (second_look && due <= reactor_.now_ms()) return end();
  arm_keep_alive();
}

std::optional<uint64_t> Controller::property(Property property) const {
  switch (property) {
    case Property::kCapabilities:
      return (target_.options().max_queue_entries - 1u) | kCapContiguous |
             kReadyTimeoutHalfSeconds << 24 | kCapNvmCommandSet | kCapReadyWithMedia;
    case Property::kVersion:
      return kVersion2_0;
    case Property::kConfiguration:
      return configuration_;
    case Property::kStatus:
      return status_;
    case Property::kReadyTimeouts:
      return kReadyTimeoutHalfSeconds;
  }
  return std::nullopt;
}

void Controller::set_configuration(Command& command, uint32_t value) {
  const uint32_t before = std::exchange(configuration_, value);
  const bool enabled = (before & kConfigEnable) != 0;
  if (!enabled && (value & kConfigEnable) != 0) enable(value);
  if (enabled && (value & kConfigEnable) == 0) reset();
  if ((value & kConfigShutdownMask) != 0 && (before & kConfigShutdownMask) == 0) {
    return shut_down(command);
  }
  if ((value & kConfigShutdownMask) == 0) status_ &= ~kStatusShutdownMask;
  command.connection->reply(command, {});
}

void Controller::enable(uint32_t value) {
  const bool sizes = discovery() || (value & kConfigEntrySizesMask) == kConfigEntrySizes;
  status_ = (value & kConfigZeroMask) == 0 && sizes ? kStatusReady : kStatusFatal;
}

// Base 3.7.2: the I/O queues are gone, what was outstanding is aborted.
void Controller::reset() {
  status_ &= ~(kStatusReady | kStatusFatal);
  features_ = {};
  pending_notices_ = masked_notices_ = 0;
  close_io_queues();
  for (Command* command : std::exchange(held_events_, {})) {
    command->connection->reply(*command, {Status::kAbortRequested});
  }
}

// Base 3.6.2: shut down means that what was written is durable.
void Controller::shut_down(Command& command) {
  command.connection->reply(command, {});
  if (discovery() || settings_.volume->read_only()) {
    status_ = (status_ & ~kStatusShutdownMask) | kStatusShutdownComplete;
    return;
  }
  status_ = (status_ & ~kStatusShutdownMask) | kStatusShutdownOccurring;
  // A flush that is under way began before what has been written since.
  if (flushing_) {
    flush_again_ = true;
  } else {
    flush_for_shutdown();
  }
}

void Controller::flush_for_shutdown() {
  flushing_ = true;
  shutdown_flush_.op = IoOp::kFlush;
  shutdown_flush_.context = this;
  shutdown_flush_.done = [](BlockIo* io) {
    auto* self = static_cast<Controller*>(io->context);
    self->flushing_ = false;
    if (std::exchange(self->flush_again_, false)) return self->flush_for_shutdown();
    if (io->status != IoStatus::kOk) {
      self->status_ |= kStatusFatal;  // Base 3.6.2: complete would say that nothing is lost
    } else if ((self->status_ & kStatusShutdownMask) == kStatusShutdownOccurring) {
      self->status_ = (self->status_ & ~kStatusShutdownMask) | kStatusShutdownComplete;
    }
    self->check_finished();
  };
  settings_.volume->submit(&shutdown_flush_);
}

void Controller::execute_admin(Command& command) {
  std::optional<Reply> reply;
  switch (static_cast<AdminOpcode>(command.sqe.opcode)) {
    case AdminOpcode::kIdentify:
      reply = identify(*this, command);
      break;
    case AdminOpcode::kGetLogPage:
      reply = get_log_page(*this, command);
      break;
    case AdminOpcode::kSetFeatures:
      reply = set_features(*this, command);
      break;
    case AdminOpcode::kGetFeatures:
      reply = get_features(*this, command);
      break;
    case AdminOpcode::kAsyncEventRequest:
      reply = request_event(command);
      break;
    case AdminOpcode::kKeepAlive:
      reply = Reply{};
      break;
    case AdminOpcode::kAbort:
      reply = abort(command);
      break;
    default:
      reply = Reply{Status::kInvalidOpcode};
  }
  if (reply) command.connection->reply(command, *reply);
}

// Base 5.1: bit 0 of the result set, not aborted: what runs in the volume ends by itself soon
// enough. CDW10: queue id, command id.
Reply Controller::abort(const Command& command) {
  if (discovery()) return {Status::kInvalidOpcode};
  const auto queue_id = static_cast<uint16_t>(command.sqe.cdw10);
  const auto cid = static_cast<uint16_t>(command.sqe.cdw10 >> 16);
  const auto held = std::ranges::find_if(
      held_events_, [cid](const Command* event) { return event->sqe.cid == cid; });
  if (queue_id == 0 && held != held_events_.end()) {
    Command* event = *held;
    held_events_.erase(held);
    event->connection->reply(*event, {Status::kAbortRequested});
    return {Status::kSuccess, 0};
  }
  const auto queue = std::ranges::find_if(
      queues_, [queue_id](const Connection* each) { return each->queue_id() == queue_id; });
  if (queue == queues_.end()) return {Status::kInvalidField};
  return {Status::kSuccess, (*queue)->abort(cid) ? 0u : 1u};
}

std::optional<Reply> Controller::request_event(Command& command) {
  if (held_events_.size() >= kMaxHeldEvents) return Reply{Status::kAsyncEventLimitExceeded};
  command.connection->hold(command);
  held_events_.push_back(&command);
  deliver_events();
  return std::nullopt;
}

void Controller::notify(uint32_t notice) {
  if (notice == kNotifyNamespace) namespace_changed_ = true;
  pending_notices_ |= notice & features_.async_events;
  deliver_events();
}

// Base 5.2: an event is told once, and again only after its log page has been read.
void Controller::deliver_events() {
  for (const auto& [notice, result] : {std::pair{kNotifyNamespace, kEventNamespaceChanged},
                                       std::pair{kNotifyDiscovery, kEventDiscoveryChanged}}) {
    if (held_events_.empty()) return;
    if ((pending_notices_ & ~masked_notices_ & notice) == 0) continue;
    pending_notices_ &= ~notice;
    masked_notices_ |= notice;
    Command* command = held_events_.front();
    held_events_.erase(held_events_.begin());
    command->connection->reply(*command, {Status::kSuccess, result});
  }
}

void Controller::clear_notice(uint32_t notice) {
  if (notice == kNotifyNamespace) namespace_changed_ = false;
  pending_notices_ &= ~notice;
  masked_notices_ &= ~notice;
}

bool Controller::discover(std::vector<ExportEntry> entries) {
  forget_discovered();
  uint64_t bytes = 0;
  for (const ExportEntry& entry : entries) bytes += sizeof(entry) + entry.name.capacity();
  if (bytes > UINT32_MAX) return false;
  const auto charged = static_cast<uint32_t>(bytes);
  if (!target_.budget().take(settings_.host_nqn, charged)) return false;
  discovered_bytes_ = charged;
  discovered_ = std::move(entries);
  return true;
}

void Controller::forget_discovered() {
  std::vector<ExportEntry>().swap(discovered_);
  target_.budget().give(settings_.host_nqn, std::exchange(discovered_bytes_, 0));
  if (connections_ == 0) target_.budget().ended(settings_.host_nqn);
}

void Controller::record_error(uint16_t queue_id, const Sqe& sqe, Status status) {
  ErrorLogEntry& entry = errors_[error_count_ % kErrorLogEntries];
  entry = {};
  entry.error_count = ++error_count_;
  entry.sq_id = queue_id;
  entry.cid = sqe.cid;
  entry.status = static_cast<uint16_t>(static_cast<uint16_t>(status) << 1);
  entry.parameter = 0xFFFF;  // no particular field
  entry.lba = sqe.cdw10 | static_cast<uint64_t>(sqe.cdw11) << 32;
  entry.nsid = sqe.nsid;
  entry.transport = 3;  // TCP
  if (status == Status::kWriteFault || status == Status::kUnrecoveredReadError) {
    ++counters_.media_errors;
  }
}

const ErrorLogEntry* Controller::error(uint32_t newest_first) const {
  if (newest_first >= kErrorLogEntries || newest_first >= error_count_) return nullptr;
  return &errors_[(error_count_ - 1 - newest_first) % kErrorLogEntries];
}

}  // namespace pando::nvme
