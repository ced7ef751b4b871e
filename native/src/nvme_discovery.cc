#include "nvme_discovery.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "nvme_connection.h"
#include "nvme_controller.h"
#include "nvme_target.h"

namespace pando::nvme {
namespace {

// Base 5.16.1.23
constexpr uint8_t kTransportTcp = 3;
constexpr uint8_t kFamilyIpv4 = 1;
constexpr uint8_t kFamilyIpv6 = 2;
constexpr uint8_t kSubsystemNvm = 2;
constexpr uint8_t kNoSqFlowControl = 1 << 2;  // TREQ: may be disabled
constexpr uint16_t kPortId = 1;

template <size_t Size>
void put_string(char (&field)[Size], std::string_view text) {
  std::memcpy(field, text.data(), std::min(Size, text.size()));
}

// Lists that are equal have the same generation, whichever connection asks.
uint64_t generation_of(const std::vector<ExportEntry>& entries) {
  uint64_t hash = 0xCBF29CE484222325;  // FNV-1a
  for (const ExportEntry& entry : entries) {
    for (const char c : entry.name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3;
    hash = (hash ^ 0xFF) * 0x100000001B3;
  }
  return hash;
}

Reply write_log(Controller& controller, Command& command, const LogWindow& window) {
  const auto& entries = controller.discovered;
  const TargetOptions& options = controller.target().options();
  const Connection& connection = *command.connection;
  if (window.offset > sizeof(DiscoveryHeader) + entries.size() * sizeof(DiscoveryEntry)) {
    return {Status::kInvalidField};
  }
  DiscoveryHeader header{};
  header.generation = generation_of(entries);
  header.records = entries.size();
  put_log_piece(command, window, 0, &header, sizeof(header));

  DiscoveryEntry record{};
  const std::string address =
      options.advertised_address.empty() ? connection.local_address() : options.advertised_address;
  const uint16_t port =
      options.advertised_port == 0 ? connection.local_port() : options.advertised_port;
  record.transport = kTransportTcp;
  record.family = address.find(':') == std::string::npos ? kFamilyIpv4 : kFamilyIpv6;
  record.subsystem_type = kSubsystemNvm;
  record.requirements = kNoSqFlowControl;
  record.port_id = kPortId;
  record.controller_id = kDynamicController;
  record.admin_queue_size = options.max_queue_entries;
  put_string(record.service, std::to_string(port));
  put_string(record.address, address);

  // Only the entries that the window touches are put together.
  const uint64_t end = window.offset + window.bytes;
  size_t index =
      window.offset < sizeof(header) ? 0 : (window.offset - sizeof(header)) / sizeof(record);
  for (; index < entries.size(); ++index) {
    const uint64_t at = sizeof(header) + index * sizeof(record);
    if (at >= end) break;
    std::memset(record.subsystem_nqn, 0, sizeof(record.subsystem_nqn));
    put_string(record.subsystem_nqn, entries[index].name);
    put_log_piece(command, window, at, &record, sizeof(record));
  }
  return {Status::kSuccess, 0, window.bytes};
}

}  // namespace

std::optional<Reply> discovery_log(Controller& controller, Command& command,
                                   const LogWindow& window) {
  if (window.offset != 0) return write_log(controller, command, window);
  // The command keeps its connection alive, and that its controller.
  controller.target().exports().list(
      FrontEnd::kNvmeTcp, controller.settings().host_nqn,
      [&controller, &command, window](std::vector<ExportEntry> entries) {
        controller.discovered = std::move(entries);
        command.connection->reply(command, write_log(controller, command, window));
      });
  return std::nullopt;
}

}  // namespace pando::nvme
