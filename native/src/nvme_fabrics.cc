#include "nvme_fabrics.h"

#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "nvme_auth.h"
#include "nvme_connection.h"
#include "nvme_controller.h"
#include "nvme_target.h"

namespace pando::nvme {
namespace {

// Base 6.3: a refused Connect says which field was wrong, and whether it is in the data.
constexpr uint64_t kInData = 1 << 16;
constexpr uint64_t kWrongQueueId = 42;
constexpr uint64_t kWrongQueueSize = 44;
constexpr uint64_t kWrongControllerId = offsetof(ConnectData, controller_id) | kInData;
constexpr uint64_t kWrongSubsystem = offsetof(ConnectData, subsystem_nqn) | kInData;
constexpr uint64_t kWrongHost = offsetof(ConnectData, host_nqn) | kInData;

constexpr uint32_t kPropertySizeMask = 7;
constexpr uint32_t kPropertyEightBytes = 1;

struct ConnectRequest {
  QueueSettings queue;
  uint16_t controller_id;
  uint32_t keep_alive_ms;
  std::string subsystem_nqn;
  std::string host_nqn;
  std::array<uint8_t, 16> host_id;
};

// Base 4.5: a name, NUL-terminated within its field; empty when it is none.
std::string read_nqn(const char (&field)[256]) {
  const size_t length = strnlen(field, sizeof(field));
  if (length > kNqnMaxLength || std::strncmp(field, "nqn.", 4) != 0) return {};
  return {field, length};
}

void refuse(Command& command, Status status, uint64_t result = 0) {
  command.connection->reply(command, {status, result});
}

void refuse_parameter(Command& command, uint64_t field) {
  refuse(command, Status::kConnectInvalidParameters, field);
}

/// It may come back when it has fewer; its operator learns of it from the log alone.
void refuse_one_more(Command& command, const std::string& host_nqn) {
  const auto& target = command.connection->target();
  command.connection->target().exports().refused(
      command.connection->peer(), "host " + host_nqn + " has " +
                                      std::to_string(target.options().max_host_connections) +
                                      " queues, as many as one host may");
  refuse(command, Status::kConnectControllerBusy);
}

void accept(Command& command, Controller& controller, const QueueSettings& queue) {
  command.connection->become_queue(controller, queue);
  const uint64_t wish = controller.settings().authenticate ? kAuthenticationRequested : 0;
  command.connection->reply(command, {Status::kSuccess, controller.id() | wish});
}

/// Without a volume: a discovery controller.
void make_controller(Command& command, const ConnectRequest& request, const OpenResult& open) {
  Connection& connection = *command.connection;
  Target& target = connection.target();
  Controller* controller = nullptr;
  if (connection.may_become_queue()) {
    controller = target.make_controller({request.subsystem_nqn, request.host_nqn, request.host_id,
                                         connection.peer(), open.volume, request.keep_alive_ms,
                                         open.authenticate, connection.secure()});
  }
  if (controller == nullptr) {
    if (open.volume != nullptr) {
      target.exports().close(FrontEnd::kNvmeTcp, open.volume, request.host_nqn);
    }
    return refuse(command, Status::kConnectControllerBusy);
  }
  accept(command, *controller, request.queue);
}

void finish_open(Command& command, const ConnectRequest& request, const OpenResult& result) {
  switch (result.status) {
    case OpenStatus::kOk:
      return make_controller(command, request, result);
    case OpenStatus::kNotFound:
      return refuse_parameter(command, kWrongSubsystem);
    case OpenStatus::kDenied:
      return refuse(command, Status::kConnectInvalidHost);
    case OpenStatus::kBusy:
      return refuse(command, Status::kConnectControllerBusy);
    case OpenStatus::kError:
      break;
  }
  refuse(command, Status::kInternalError);
}

void connect_admin(Command& command, ConnectRequest request) {
  Connection& connection = *command.connection;
  if (!connection.target().has_room_for(request.host_nqn)) {
    return refuse_one_more(command, request.host_nqn);
  }
  if (request.controller_id != kDynamicController) {
    return refuse_parameter(command, kWrongControllerId);
  }
  if (request.subsystem_nqn == kDiscoveryNqn) return make_controller(command, request, {});
  connection.set_applicant(request.subsystem_nqn, request.host_nqn);
  // The command keeps its connection until it is answered.
  OpenRequest open{FrontEnd::kNvmeTcp, request.subsystem_nqn, request.host_nqn, connection.peer(),
                   connection.secure()};
  connection.target().exports().open(std::move(open),
                                     [&command, request = std::move(request)](OpenResult result) {
                                       finish_open(command, request, result);
                                     });
}

void connect_io(Command& command, const ConnectRequest& request) {
  Target& target = command.connection->target();
  Controller* controller = target.find_controller(request.controller_id);
  if (controller == nullptr || controller->discovery()) {
    return refuse_parameter(command, kWrongControllerId);
  }
  if (controller->settings().subsystem_nqn != request.subsystem_nqn) {
    return refuse_parameter(command, kWrongSubsystem);
  }
  if (controller->settings().host_nqn != request.host_nqn ||
      controller->settings().host_id != request.host_id) {
    return refuse_parameter(command, kWrongHost);
  }
  if (controller->settings().secure != command.connection->secure()) {
    return refuse(command, Status::kConnectInvalidHost);
  }
  if (request.queue.queue_id > target.options().max_io_queues) {
    return refuse_parameter(command, kWrongQueueId);
  }
  if (!target.has_room_for(request.host_nqn)) return refuse_one_more(command, request.host_nqn);
  if (!controller->ready() || controller->has_queue(request.queue.queue_id)) {
    return refuse(command, Status::kCommandSequenceError);
  }
  accept(command, *controller, request.queue);
}

void connect(Command& command) {
  const Sqe& sqe = command.sqe;
  if ((sqe.cdw10 & 0xFFFF) != 0) return refuse(command, Status::kConnectIncompatibleFormat);
  if (command.transfer_bytes != sizeof(ConnectData)) {
    return refuse(command, Status::kDataSglLengthInvalid);
  }
  ConnectData data;
  std::memcpy(&data, command.buffer.data(), sizeof(data));

  ConnectRequest request;
  const auto last_entry = static_cast<uint16_t>(sqe.cdw11 & 0xFFFF);  // SQSIZE, 0's based
  request.queue.queue_id = static_cast<uint16_t>(sqe.cdw10 >> 16);
  request.queue.flow_control = ((sqe.cdw11 >> 16) & kConnectDisableSqFlow) == 0;
  request.controller_id = data.controller_id;
  request.keep_alive_ms = sqe.cdw12;
  request.subsystem_nqn = read_nqn(data.subsystem_nqn);
  request.host_nqn = read_nqn(data.host_nqn);
  request.host_id = data.host_id;
  if (last_entry == 0 || last_entry >= command.connection->target().options().max_queue_entries) {
    return refuse_parameter(command, kWrongQueueSize);
  }
  request.queue.entries = static_cast<uint16_t>(last_entry + 1);
  if (request.subsystem_nqn.empty()) return refuse_parameter(command, kWrongSubsystem);
  if (request.host_nqn.empty()) return refuse_parameter(command, kWrongHost);
  const Connection& connection = *command.connection;
  if (connection.secure()) {  // TCP 3.6.1.3: the identity of the key names both
    if (request.host_nqn != connection.secure_host()) {
      return refuse(command, Status::kConnectInvalidHost);
    }
    if (request.subsystem_nqn != connection.secure_subsystem()) {
      return refuse_parameter(command, kWrongSubsystem);
    }
  }

  if (request.queue.queue_id == 0) {
    connect_admin(command, std::move(request));
  } else {
    connect_io(command, request);
  }
}

void property_get(Command& command) {
  const Sqe& sqe = command.sqe;
  const auto value = command.connection->controller()->property(static_cast<Property>(sqe.cdw11));
  const bool eight = (sqe.cdw10 & kPropertySizeMask) == kPropertyEightBytes;
  const bool is_eight = static_cast<Property>(sqe.cdw11) == Property::kCapabilities;
  if (!value || eight != is_eight) return refuse(command, Status::kInvalidField);
  command.connection->reply(command, {Status::kSuccess, *value});
}

void property_set(Command& command) {
  const Sqe& sqe = command.sqe;
  if (static_cast<Property>(sqe.cdw11) != Property::kConfiguration ||
      (sqe.cdw10 & kPropertySizeMask) == kPropertyEightBytes) {
    return refuse(command, Status::kInvalidField);
  }
  command.connection->controller()->set_configuration(command, sqe.cdw12);
}

}  // namespace

void execute_fabrics(Command& command) {
  switch (fabrics_type(command.sqe)) {
    case FabricsType::kConnect:
      return connect(command);
    case FabricsType::kPropertyGet:
      return property_get(command);
    case FabricsType::kPropertySet:
      return property_set(command);
    case FabricsType::kAuthenticationSend:
    case FabricsType::kAuthenticationReceive:
      return execute_authentication(command);
  }
  command.connection->reply(command, {Status::kInvalidOpcode});
}

}  // namespace pando::nvme
