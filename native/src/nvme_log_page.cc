#include "nvme_log_page.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "nvme_controller.h"
#include "nvme_discovery.h"
#include "nvme_features.h"

namespace pando::nvme {
namespace {

constexpr uint32_t kRetainEvent = 1 << 15;             // CDW10, RAE
constexpr uint32_t kIndexOffset = 1 << 23;             // CDW14, OT
constexpr uint32_t kSupported = 1 << 0;                // Base 5.16.1.1, LSUPP
constexpr uint32_t kChangesContents = 1 << 1;          // Base 5.16.1.6, LBCC
constexpr uint32_t kGroupsOnly = 1 << 8;               // CDW10, LSP of the ANA log: RGO
constexpr uint32_t kControllerScope = 1u << (20 + 1);  // Base 5.16.1.18, FSP
constexpr uint8_t kSpareThreshold = 10;

template <typename T>
Reply put_log(Command& command, const LogWindow& window, const T& log) {
  if (window.offset > sizeof(T)) return {Status::kInvalidField};
  put_log_piece(command, window, 0, &log, sizeof(T));
  return {Status::kSuccess, 0, window.bytes};
}

Reply supported_log(const Controller& controller, Command& command, const LogWindow& window) {
  std::array<uint32_t, 256> log{};
  const auto add = [&log](LogPage page) { log[static_cast<size_t>(page)] = kSupported; };
  add(LogPage::kSupported);
  if (controller.discovery()) {
    add(LogPage::kDiscovery);
  } else {
    for (LogPage page :
         {LogPage::kError, LogPage::kSmart, LogPage::kFirmware, LogPage::kChangedNamespaces,
          LogPage::kCommandEffects, LogPage::kNamespaceAccess, LogPage::kFeatureEffects}) {
      add(page);
    }
  }
  return put_log(command, window, log);
}

Reply error_log(const Controller& controller, Command& command, const LogWindow& window) {
  std::array<ErrorLogEntry, kErrorLogEntries> log{};
  for (uint32_t i = 0; i < kErrorLogEntries; ++i) {
    if (const ErrorLogEntry* entry = controller.error(i)) log[i] = *entry;
  }
  return put_log(command, window, log);
}

Reply smart_log(Controller& controller, Command& command, const LogWindow& window) {
  constexpr uint64_t kDataUnit = 512 * 1000;
  const IoCounters& counters = controller.counters();
  SmartLog log{};
  log.available_spare = 100;
  log.spare_threshold = kSpareThreshold;
  log.data_units_read[0] = (counters.bytes_read + kDataUnit - 1) / kDataUnit;
  log.data_units_written[0] = (counters.bytes_written + kDataUnit - 1) / kDataUnit;
  log.host_reads[0] = counters.reads;
  log.host_writes[0] = counters.writes;
  log.media_errors[0] = counters.media_errors;
  log.error_log_entries[0] = controller.error_count();
  return put_log(command, window, log);
}

// Base 5.16.1.4: slot 1 is active and holds revision "1".
Reply firmware_log(Command& command, const LogWindow& window) {
  std::array<char, 512> log{};
  log[0] = 1;
  std::memcpy(log.data() + 8, "1       ", 8);
  return put_log(command, window, log);
}

Reply changed_log(Controller& controller, Command& command, const LogWindow& window, bool retain) {
  std::array<uint32_t, 1024> log{};
  if (window.offset > sizeof(log)) return {Status::kInvalidField};
  if (controller.namespace_changed()) log[0] = 1;
  if (!retain) controller.clear_notice(kNotifyNamespace);
  return put_log(command, window, log);
}

// Base 5.16.1.13: there is one group, it is always optimized, and nothing about it ever changes.
Reply access_log(Command& command, const LogWindow& window) {
  NamespaceAccessLog log{};
  log.groups = 1;
  log.group = kAccessGroup;
  log.group_state = kAccessOptimized;
  if ((command.sqe.cdw10 & kGroupsOnly) == 0) {
    log.group_namespaces = 1;
    log.namespace_id = 1;
  }
  return put_log(command, window, log);
}

// Base 5.16.1.18: which features there are, and that each is a controller's own.
Reply features_log(Command& command, const LogWindow& window) {
  std::array<uint32_t, 256> log{};
  for (const Feature feature : kFeatures) {
    log[static_cast<size_t>(feature)] = kSupported | kControllerScope;
  }
  return put_log(command, window, log);
}

// Base 5.16.1.6: 256 admin commands, then 256 I/O commands.
Reply effects_log(Command& command, const LogWindow& window) {
  std::array<uint32_t, 1024> log{};
  for (AdminOpcode opcode : {AdminOpcode::kGetLogPage, AdminOpcode::kIdentify, AdminOpcode::kAbort,
                             AdminOpcode::kSetFeatures, AdminOpcode::kGetFeatures,
                             AdminOpcode::kAsyncEventRequest, AdminOpcode::kKeepAlive}) {
    log[static_cast<size_t>(opcode)] = kSupported;
  }
  for (IoOpcode opcode :
       {IoOpcode::kFlush, IoOpcode::kRead, IoOpcode::kCompare, IoOpcode::kVerify}) {
    log[256 + static_cast<size_t>(opcode)] = kSupported;
  }
  for (IoOpcode opcode : {IoOpcode::kWrite, IoOpcode::kWriteZeroes, IoOpcode::kDatasetManagement}) {
    log[256 + static_cast<size_t>(opcode)] = kSupported | kChangesContents;
  }
  return put_log(command, window, log);
}

}  // namespace

void put_log_piece(Command& command, const LogWindow& window, uint64_t piece_offset,
                   const void* piece, size_t piece_bytes) {
  const uint64_t begin = std::max(window.offset, piece_offset);
  const uint64_t end = std::min(window.offset + window.bytes, piece_offset + piece_bytes);
  if (begin >= end) return;
  std::memcpy(command.buffer.data() + (begin - window.offset),
              static_cast<const std::byte*>(piece) + (begin - piece_offset), end - begin);
}

std::optional<Reply> get_log_page(Controller& controller, Command& command) {
  const Sqe& sqe = command.sqe;
  // Base 5.16: NUMD, 0's based, in dwords; LPO in bytes.
  const uint64_t bytes = ((sqe.cdw10 >> 16 | (sqe.cdw11 & 0xFFFFull) << 16) + 1) * 4;
  const uint64_t offset = sqe.cdw12 | static_cast<uint64_t>(sqe.cdw13) << 32;
  const bool retain = (sqe.cdw10 & kRetainEvent) != 0;
  const auto page = static_cast<LogPage>(sqe.cdw10 & 0xFF);
  if (bytes > command.transfer_bytes) return Reply{Status::kDataSglLengthInvalid};
  if (offset % 4 != 0 || offset > UINT64_MAX / 2 || (sqe.cdw14 & kIndexOffset) != 0) {
    return Reply{Status::kInvalidField};
  }
  const LogWindow window{offset, static_cast<uint32_t>(bytes)};
  std::memset(command.buffer.data(), 0, window.bytes);

  if (page == LogPage::kSupported) return supported_log(controller, command, window);
  if (controller.discovery()) {
    if (page != LogPage::kDiscovery) return Reply{Status::kInvalidLogPage};
    if (!retain) controller.clear_notice(kNotifyDiscovery);
    return discovery_log(controller, command, window);
  }
  switch (page) {
    case LogPage::kError:
      return error_log(controller, command, window);
    case LogPage::kSmart:
      return smart_log(controller, command, window);
    case LogPage::kFirmware:
      return firmware_log(command, window);
    case LogPage::kChangedNamespaces:
      return changed_log(controller, command, window, retain);
    case LogPage::kCommandEffects:
      return effects_log(command, window);
    case LogPage::kNamespaceAccess:
      return access_log(command, window);
    case LogPage::kFeatureEffects:
      return features_log(command, window);
    default:
      return Reply{Status::kInvalidLogPage};
  }
}

}  // namespace pando::nvme
