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
constexpr uint8_t kSecureRequired = 1;        // TREQ: a secure channel is
constexpr uint8_t kTls13 = 2;                 // TSAS of TCP: SECTYPE

template <size_t Size>
void put_string(char (&field)[Size], std::string_view text) {
  std::memcpy(field, text.data(), std::min(Size, text.size()));
}

// Lists that are equal have the same generation, whichever connection asks.
uint64_t generation_of(const std::vector<ExportEntry>& entries) {
  uint64_t hash = 0xCBF29CE484222325;  // FNV-1a
  for (const ExportEntry& entry : entries) {
    for (const char c : entry.name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3;
    hash = (hash ^ (entry.secure ? 0xFEu : 0xFFu)) * 0x100000001B3;
  }
  return hash;
}

DiscoveryEntry entry_at(const Place& place, uint16_t port_id, uint16_t queue_entries) {
  DiscoveryEntry entry{};
  entry.transport = kTransportTcp;
  entry.family = place.address.find(':') == std::string::npos ? kFamilyIpv4 : kFamilyIpv6;
  entry.subsystem_type = kSubsystemNvm;
  entry.requirements = kNoSqFlowControl;
  entry.port_id = port_id;
  entry.controller_id = kDynamicController;
  entry.admin_queue_size = queue_entries;
  put_string(entry.service, std::to_string(place.port));
  put_string(entry.address, place.address);
  return entry;
}

// Every subsystem at every place, a subsystem's places side by side.
Reply write_log(Controller& controller, Command& command, const LogWindow& window) {
  const auto& entries = controller.discovered();
  const TargetOptions& options = controller.target().options();
  std::vector<Place> places = options.advertised;
  if (places.empty()) places.push_back(command.connection->local());
  const uint64_t records = entries.size() * places.size();
  if (window.offset > sizeof(DiscoveryHeader) + records * sizeof(DiscoveryEntry)) {
    return {Status::kInvalidField};
  }
  DiscoveryHeader header{};
  header.generation = generation_of(entries);
  header.records = records;
  put_log_piece(command, window, 0, &header, sizeof(header));

  // Only the entries that the window touches are put together.
  const uint64_t end = window.offset + window.bytes;
  uint64_t index = window.offset < sizeof(header)
                       ? 0
                       : (window.offset - sizeof(header)) / sizeof(DiscoveryEntry);
  for (; index < records; ++index) {
    const uint64_t at = sizeof(header) + index * sizeof(DiscoveryEntry);
    if (at >= end) break;
    const uint64_t place = index % places.size();
    DiscoveryEntry entry =
        entry_at(places[place], static_cast<uint16_t>(place + 1), options.max_queue_entries);
    const ExportEntry& listed = entries[index / places.size()];
    put_string(entry.subsystem_nqn, listed.name);
    if (listed.secure || options.tls == TlsMode::kRequired) {
      entry.requirements |= kSecureRequired;
      entry.transport_specific[0] = kTls13;
    }
    put_log_piece(command, window, at, &entry, sizeof(entry));
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
        const bool fits = controller.discover(std::move(entries));
        command.connection->reply(
            command, fits ? write_log(controller, command, window) : Reply{Status::kInternalError});
      });
  return std::nullopt;
}

}  // namespace pando::nvme
