#include "nvme_connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "assert.h"
#include "nvme_auth.h"
#include "nvme_controller.h"
#include "nvme_fabrics.h"
#include "nvme_io.h"
#include "nvme_target.h"

namespace pando::nvme {
namespace {

// Admin queues have little to say, and an idle host has one too.
constexpr size_t kAdminReceiveBytes = 16 * 1024;
constexpr size_t kIoReceiveBytes = 64 * 1024;
// TCP 3.3.2.1: what Fabrics and admin commands may carry in their capsule.
constexpr uint32_t kAdminInCapsuleBytes = 8192;
// A host without a keep-alive timer that is gone without a word.
constexpr int kTcpIdleSeconds = 15;
constexpr int kTcpProbeSeconds = 5;
constexpr int kTcpProbes = 3;

void set_option(int fd, int level, int name, int value) {
  // A socket that died meanwhile says so at the next receive.
  (void)setsockopt(fd, level, name, &value, sizeof(value));
}

uint8_t data_direction(const Sqe& sqe) {
  return (sqe.opcode == kFabricsOpcode ? sqe.nsid : sqe.opcode) & kDirectionMask;
}

bool is_connect(const Sqe& sqe) {
  return sqe.opcode == kFabricsOpcode && fabrics_type(sqe) == FabricsType::kConnect;
}

}  // namespace

Connection::Connection(Target& target, uint64_t id, int fd, std::string peer)
    : target_(target),
      id_(id),
      fd_(fd),
      peer_(std::move(peer)),
      send_queue_(target.reactor().ring(), fd, *this) {
  rules_.max_in_capsule_bytes = kAdminInCapsuleBytes;
  rules_.max_h2c_data_bytes = target.options().max_h2c_data_bytes;
  receive_op_.context = this;
  receive_op_.done = [](RingOp* op, int32_t result) {
    static_cast<Connection*>(op->context)->on_received(result);
  };
}

Connection::~Connection() {
  PANDO_ASSERT(!receiving_ && !send_queue_.sending() && executing_ == 0);
  if (fd_ >= 0) ::close(fd_);
}

void Connection::start() {
  set_option(fd_, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd_, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd_, IPPROTO_TCP, TCP_KEEPIDLE, kTcpIdleSeconds);
  set_option(fd_, IPPROTO_TCP, TCP_KEEPINTVL, kTcpProbeSeconds);
  set_option(fd_, IPPROTO_TCP, TCP_KEEPCNT, kTcpProbes);
  receive_buffer_ = target_.reactor().buffers().take(kAdminReceiveBytes);
  if (!receive_buffer_) return close();
  set_connect_timer();
  arm_receive();
}

void Connection::set_connect_timer() {
  connect_timer_ = target_.reactor().add_timer(target_.options().connect_timeout_ms, [this] {
    connect_timer_ = 0;
    // A Connect, or a step of an authentication, that is being answered waits for us, not for the
    // host; what an untrusted host may send besides is answered at once.
    if (executing_ > 0) return set_connect_timer();
    close();
  });
}

void Connection::close() {
  if (state_ == State::kClosed) return;
  const bool detach = state_ != State::kTerminating && controller_ != nullptr;
  if (tls_ != nullptr && state_ != State::kTerminating) say_goodbye();
  state_ = State::kClosed;
  ::shutdown(fd_, SHUT_RDWR);
  if (receiving_) target_.reactor().ring().cancel(&receive_op_);
  send_queue_.cancel();
  send_queue_.clear();
  waiting_.clear();
  target_.reactor().cancel_timer(connect_timer_);
  target_.reactor().cancel_timer(stall_timer_);
  target_.reactor().cancel_timer(data_timer_);
  target_.budget().forget(*this);
  if (detach) controller_->detach(*this);
  check_finished();
}

// A command whose data has not come yet is not taken: the host sends it again elsewhere.
void Connection::drain() {
  draining_ = true;
  check_drained();
}

// The admin queue last: with it the controller ends.
void Connection::check_drained() {
  if (!draining_ || executing_ > 0 || !send_queue_.empty() || send_queue_.sending()) return;
  const bool others = controller_ != nullptr && controller_->io_queues() > 0;
  if (queue_.queue_id == 0 && others && !draining_alone_) return;
  close();
}

void Connection::drain_alone() {
  draining_alone_ = true;
  drain();
}

void Connection::check_finished() {
  if (state_ != State::kClosed || retired_ || receiving_ || processing_ || awaiting_tls_key_ ||
      send_queue_.sending() || executing_ > 0) {
    return;
  }
  retired_ = true;
  // What nobody will answer any more gives its memory back.
  for (const auto& command : commands_) {
    if (command->state != Command::State::kFree) release(*command);
  }
  if (tls_bytes_ > 0) {
    target_.tls_budget().give(secure_host_, tls_bytes_);
    target_.tls_budget().ended(secure_host_);
  }
  if (controller_ == nullptr) {
    target_.settled();
  } else {
    target_.budget().ended(controller_->settings().host_nqn);
  }
  if (authentication_known_) target_.exports().authentication_ended(id_);
  if (controller_ != nullptr) controller_->gone(*this);
  target_.retire(*this);
}

void Connection::become_queue(Controller& controller, const QueueSettings& settings) {
  PANDO_ASSERT(may_become_queue());
  target_.settled();
  controller_ = &controller;
  queue_ = settings;
  queue_head_ = 1 % settings.entries;  // the Connect itself
  state_ = State::kLive;
  if (settings.queue_id > 0) {
    rules_.max_in_capsule_bytes = target_.options().in_capsule_bytes;
    grow_receive_buffer();
  }
  if (!controller.settings().authenticate) become_trusted();
  controller.attach(*this);
}

void Connection::become_trusted() {
  trusted_ = true;
  target_.reactor().cancel_timer(connect_timer_);
  connect_timer_ = 0;
}

// Data that the host owes: it was asked for, or its capsule has begun.
bool Connection::awaits_data() const {
  return data_command_ != nullptr || std::ranges::any_of(commands_, [](const auto& command) {
           return command->state == Command::State::kAwaitingData;
         });
}

void Connection::watch_receiving() {
  if (data_timer_ != 0 || state_ == State::kClosed) return;
  data_mark_ = received_bytes_;
  data_timer_ = target_.reactor().add_timer(target_.options().data_stall_ms, [this] {
    data_timer_ = 0;
    if (!awaits_data()) return;
    if (received_bytes_ == data_mark_ && !paused_) return close();
    watch_receiving();
  });
}

bool Connection::begin_authentication_step() {
  if (authenticating_) return false;
  authenticating_ = true;
  authentication_known_ = true;
  return true;
}

void Connection::end_authentication_step(bool authenticated) {
  authenticating_ = false;
  if (authenticated && state_ == State::kLive) become_trusted();
}

// An I/O Connect is answered while the buffer is being parsed, so no receive is under way.
void Connection::grow_receive_buffer() {
  PANDO_ASSERT(!receiving_);
  Buffer larger = target_.reactor().buffers().take(kIoReceiveBytes);
  if (!larger) return;
  std::memcpy(larger.data(), receive_buffer_.data() + receive_begin_, available());
  receive_end_ = available();
  receive_begin_ = 0;
  receive_buffer_ = std::move(larger);
}

void Connection::set_applicant(const std::string& subsystem_nqn, const std::string& host_nqn) {
  applicant_subsystem_ = subsystem_nqn;
  applicant_host_ = host_nqn;
}

bool Connection::applies_for(const std::string& subsystem_nqn, const std::string& host_nqn) const {
  return applicant_subsystem_ == subsystem_nqn && (host_nqn.empty() || applicant_host_ == host_nqn);
}

// Which bytes the command moves, and whether its descriptor is one that we take (TCP 3.3.2.1).
Status Connection::plan_transfer(Command& command, uint32_t capsule_bytes) const {
  const Sqe& sqe = command.sqe;
  if ((sqe.flags & kFlagsPsdtMask) != kFlagsPsdtSgl || (sqe.flags & kFlagsFuseMask) != 0) {
    return Status::kInvalidField;
  }
  const uint8_t direction = data_direction(sqe);
  if (direction == 0) return Status::kSuccess;
  if (direction == kDirectionMask) return Status::kInvalidOpcode;  // bidirectional
  if (sqe.sgl.type == kSglInCapsule) {
    if (direction != kHostToController) return Status::kSglDescriptorTypeInvalid;
    if (sqe.sgl.address != 0) return Status::kSglOffsetInvalid;
    if (sqe.sgl.length > capsule_bytes) return Status::kDataSglLengthInvalid;
  } else if (sqe.sgl.type != kSglTransport) {
    return Status::kSglDescriptorTypeInvalid;
  }
  if (sqe.sgl.length > target_.options().max_data_bytes) return Status::kInvalidField;
  command.transfer_bytes = sqe.sgl.length;
  return Status::kSuccess;
}

// Whether this queue takes the command in the state that it is in, before its data is asked for.
Status Connection::admit(const Command& command) const {
  const Sqe& sqe = command.sqe;
  if (controller_ == nullptr) {
    return is_connect(sqe) && executing_ == 0 ? Status::kSuccess : Status::kCommandSequenceError;
  }
  if (is_connect(sqe)) return Status::kCommandSequenceError;
  if (is_authentication(sqe)) return Status::kSuccess;
  if (!trusted_) return Status::kAuthenticationRequired;
  if (sqe.opcode == kFabricsOpcode) {
    return queue_.queue_id == 0 ? Status::kSuccess : Status::kInvalidOpcode;
  }
  if (!controller_->ready()) return Status::kCommandSequenceError;
  return queue_.queue_id == 0 ? Status::kSuccess : check_io(*controller_, command);
}

Command* Connection::take_command() {
  const size_t limit = controller_ == nullptr ? 2 : queue_.entries;
  if (free_commands_.empty()) {
    if (commands_.size() >= limit) return nullptr;
    commands_.push_back(std::make_unique<Command>());
    Command* command = commands_.back().get();
    command->connection = this;
    command->tag = static_cast<uint16_t>(commands_.size() - 1);
    command->io.context = command;
    return command;
  }
  Command* command = free_commands_.back();
  free_commands_.pop_back();
  return command;
}

// Every command waits for what only the host can bring: it has sent more than the queue holds (Base
// 3.3.1), and what they wait for could only be behind that. A reply that is on its way may have
// arrived.
bool Connection::is_overfull() const {
  return std::ranges::none_of(commands_, [](const auto& command) {
    return command->state == Command::State::kExecuting ||
           command->state == Command::State::kReplying;
  });
}

void Connection::release(Command& command) {
  PANDO_ASSERT(command.state != Command::State::kExecuting);
  reserved_bytes_ -= command.reserved_bytes;
  if (std::exchange(command.budgeted, false)) {
    target_.budget().give(controller_->settings().host_nqn, command.reserved_bytes);
  }
  command.state = Command::State::kFree;
  command.digest_failed = false;
  command.transfer_bytes = 0;
  command.received_bytes = 0;
  command.reserved_bytes = 0;
  command.buffer.reset();
  command.scratch.reset();
  free_commands_.push_back(&command);
}

bool Connection::abort(uint16_t cid) {
  for (const auto& command : commands_) {
    const bool waits = command->state == Command::State::kWaitingForBuffer;
    if (!waits || command->sqe.cid != cid) continue;
    std::erase(waiting_, command.get());
    fail(*command, Status::kAbortRequested);
    return true;
  }
  return false;
}

// Verify reads what it does not send, Compare reads beside what it was sent.
uint32_t Connection::bytes_of(const Command& command) const {
  return command.transfer_bytes + (queue_.queue_id > 0 ? scratch_bytes(command.sqe) : 0);
}

/// Once for each command. False: it does not fit now, and has to wait.
bool Connection::reserve(Command& command) {
  const uint32_t bytes = bytes_of(command);
  const bool fits =
      reserved_bytes_ == 0 || reserved_bytes_ + bytes <= target_.options().connection_buffer_bytes;
  if (!fits) return false;
  if (controller_ != nullptr && bytes > 0) {
    if (!target_.budget().take(controller_->settings().host_nqn, bytes)) {
      target_.budget().wait(*this);
      return false;
    }
    command.budgeted = true;
  }
  command.reserved_bytes = bytes;
  reserved_bytes_ += bytes;
  return true;
}

/// What has to be taken whether it fits or not: the connection's own limit counts it.
void Connection::force_reserve(Command& command) {
  command.reserved_bytes = bytes_of(command);
  reserved_bytes_ += command.reserved_bytes;
}

void Connection::reserve_and_start(Command& command) {
  if (bytes_of(command) == 0 || (waiting_.empty() && reserve(command))) return start(command);
  command.state = Command::State::kWaitingForBuffer;
  waiting_.push_back(&command);
}

void Connection::start_waiting() {
  while (!waiting_.empty() && (state_ == State::kLive || state_ == State::kNegotiated)) {
    Command& command = *waiting_.front();
    if (!reserve(command)) return;
    waiting_.pop_front();
    start(command);
  }
}

void Connection::memory_available() {
  if (draining_) return;
  start_waiting();
  resume();
}

void Connection::start(Command& command) {
  if (command.transfer_bytes > 0) {
    command.buffer = target_.reactor().buffers().take(command.transfer_bytes);
    if (!command.buffer) return fail(command, Status::kInternalError);
    if (data_direction(command.sqe) == kHostToController) return request_data(command);
  }
  dispatch(command);
}

void Connection::dispatch(Command& command) {
  command.state = Command::State::kExecuting;
  ++executing_;
  if (command.sqe.opcode == kFabricsOpcode) {
    execute_fabrics(command);
  } else if (queue_.queue_id == 0) {
    controller_->execute_admin(command);
  } else {
    execute_io(*controller_, command);
  }
}

void Connection::fail(Command& command, Status status) {
  command.state = Command::State::kExecuting;
  ++executing_;
  reply(command, {status});
}

void Connection::hold(Command& command) {
  PANDO_ASSERT(command.state == Command::State::kExecuting);
  command.state = Command::State::kHeld;
  --executing_;
}

}  // namespace pando::nvme
