#include "nvme_identify.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

#include "nvme_controller.h"
#include "nvme_identify_data.h"
#include "nvme_target.h"

namespace pando::nvme {
namespace {

constexpr uint32_t kNamespaceId = 1;
constexpr uint32_t kAllNamespaces = 0xFFFFFFFF;
constexpr uint8_t kNvmCommandSet = 0;
constexpr uint32_t kKeepAliveUnitMs = 100;  // KAS
// The largest Write Zeroes that its 16-bit length can say, 65,536 blocks: 2^16 * 4 KiB.
constexpr uint8_t kWriteZeroesLimit = 16;

template <size_t Size>
void put_text(char (&field)[Size], std::string_view text) {
  std::memset(field, ' ', Size);  // Base 1.5: ASCII fields are padded with spaces
  std::memcpy(field, text.data(), std::min(Size, text.size()));
}

template <typename T>
Reply put(Command& command, const T& data) {
  static_assert(sizeof(T) == kIdentifyBytes);
  std::memcpy(command.buffer.data(), &data, sizeof(T));
  return {Status::kSuccess, 0, sizeof(T)};
}

uint8_t transfer_limit(const Controller& controller) {
  return static_cast<uint8_t>(
      std::bit_width(controller.target().options().max_data_bytes / kSectorSize) - 1);
}

Reply identify_controller(const Controller& controller, Command& command) {
  const TargetOptions& options = controller.target().options();
  IdentifyController data{};
  char serial[21] = "PANDO-DISCOVERY     ";
  if (!controller.discovery()) {
    constexpr char kHex[] = "0123456789abcdef";
    const auto& uuid = controller.volume().uuid();
    for (size_t i = 0; i < 20; ++i) {
      serial[i] = kHex[i % 2 == 0 ? uuid[i / 2] >> 4 : uuid[i / 2] & 15];
    }
  }
  put_text(data.serial, std::string_view(serial, sizeof(data.serial)));
  put_text(data.model, "Pando");
  put_text(data.firmware, "1");
  data.mdts = transfer_limit(controller);
  data.controller_id = controller.id();
  data.version = kVersion2_0;
  data.async_event_limit = kMaxHeldEvents - 1;
  data.error_log_entries = kErrorLogEntries - 1;
  data.log_page_attributes = kLpaExtendedData;
  data.keep_alive_support =
      static_cast<uint16_t>(std::max(1u, options.keep_alive_granularity_ms / kKeepAliveUnitMs));
  data.ctratt = kCtrattTrafficKeepAlive;
  data.max_commands = options.max_queue_entries;
  data.sgls = kSglsSupported | kSglsOffset | kSglsTransport;
  const std::string& nqn = controller.settings().subsystem_nqn;
  std::memcpy(data.subsystem_nqn, nqn.data(), std::min(nqn.size(), kNqnMaxLength));
  data.msdbd = 1;
  if (controller.discovery()) {
    data.controller_type = kControllerTypeDiscovery;
    data.oaes = kNotifyDiscovery;
    return put(command, data);
  }
  data.controller_type = kControllerTypeIo;
  data.cmic = kCmicMultipleControllers | kCmicNamespaceAccess;
  // One place serves a volume, so every path to it is as good as another.
  data.access_capabilities = kAccessReportsOptimized | kAccessGroupNeverChanges;
  data.access_transition_time = kAccessTransitionSeconds;
  data.access_group_max = kAccessGroup;
  data.access_groups = kAccessGroup;
  data.oaes = kNotifyNamespace;
  data.abort_limit = 3;
  data.firmware_updates = kFirmwareOneReadOnlySlot;
  data.log_page_attributes |= kLpaCommandEffects;
  data.sqes = 6 << 4 | 6;
  data.cqes = 4 << 4 | 4;
  data.namespaces = kNamespaceId;
  data.max_allowed_namespaces = kNamespaceId;
  data.oncs =
      kOncsCompare | kOncsDatasetManagement | kOncsWriteZeroes | kOncsSelectFeatures | kOncsVerify;
  data.vwc = kVwcPresent | kVwcFlushAllNamespaces;
  data.ioccsz = static_cast<uint32_t>((sizeof(Sqe) + options.in_capsule_bytes) / 16);
  data.iorcsz = sizeof(Cqe) / 16;
  return put(command, data);
}

uint8_t namespace_features() {
  return kNsfeatAtomics | kNsfeatIdsNotReused | kNsfeatOptimalIo;
}

uint8_t namespace_attributes(const BlockVolume& volume) {
  return volume.read_only() ? kNsattrWriteProtected : 0;
}

Reply identify_namespace(const Controller& controller, Command& command) {
  const BlockVolume& volume = controller.volume();
  IdentifyNamespace data{};
  data.size = volume.size_bytes() / kSectorSize;
  data.capacity = data.size;
  data.used = data.size;
  data.nsfeat = namespace_features();
  data.nmic = kNmicShared;
  data.dlfeat = kDlfeatReadsZero | kDlfeatWriteZeroesDeallocates;
  // 0's based, in blocks. A device with a smaller atomic unit cannot say so: the least is a block.
  data.nawupf = static_cast<uint16_t>(std::max(volume.atomic_unit() / kSectorSize, 1u) - 1);
  data.nvmcap[0] = volume.size_bytes();
  const auto granularity =
      static_cast<uint16_t>(std::max(volume.block_size() / kSectorSize, 1u) - 1);
  data.npwg = data.npwa = data.npdg = data.npda = granularity;
  data.nows = granularity;
  data.ana_group = kAccessGroup;
  data.nsattr = namespace_attributes(volume);
  std::memcpy(data.nguid, volume.uuid().data(), sizeof(data.nguid));
  data.lba_formats[0] = kLbaFormat4096;
  return put(command, data);
}

Reply identify_independent(const Controller& controller, Command& command) {
  IdentifyIndependentNamespace data{};
  data.nsfeat = namespace_features();
  data.nmic = kNmicShared;
  data.ana_group = kAccessGroup;
  data.nsattr = namespace_attributes(controller.volume());
  data.nstat = 1;
  return put(command, data);
}

Reply identify_descriptors(const Controller& controller, Command& command) {
  std::array<std::byte, kIdentifyBytes> data{};
  size_t at = 0;
  const auto add = [&](uint8_t type, const uint8_t* value, uint8_t length) {
    data[at] = std::byte{type};
    data[at + 1] = std::byte{length};
    std::memcpy(data.data() + at + 4, value, length);
    at += 4u + length;
  };
  const auto& uuid = controller.volume().uuid();
  add(kDescriptorUuid, uuid.data(), 16);
  add(kDescriptorNguid, uuid.data(), 16);
  add(kDescriptorCommandSet, &kNvmCommandSet, 1);
  return put(command, data);
}

// The ids above the one that was asked for.
Reply identify_active(const Sqe& sqe, Command& command) {
  if (sqe.nsid >= kAllNamespaces - 1) return {Status::kInvalidNamespace};
  std::array<uint32_t, kIdentifyBytes / 4> ids{};
  if (sqe.nsid < kNamespaceId) ids[0] = kNamespaceId;
  return put(command, ids);
}

// Base 5.17.2.11: the controllers of the subsystem, from the id that was asked for on.
Reply identify_controllers(const Controller& controller, Command& command) {
  std::array<uint16_t, kIdentifyBytes / 2> list{};
  const auto first = static_cast<uint16_t>(command.sqe.cdw10 >> 16);
  for (const uint16_t id :
       controller.target().controllers_of(controller.settings().subsystem_nqn)) {
    if (id >= first && list[0] + 1u < list.size()) list[++list[0]] = id;
  }
  return put(command, list);
}

// Base 5.17.2.21: combinations of command sets; the only one is the NVM command set alone.
Reply identify_command_sets(Command& command) {
  std::array<uint64_t, kIdentifyBytes / 8> sets{};
  sets[0] = 1;
  return put(command, sets);
}

Reply identify_nvm_controller(const Controller& controller, Command& command) {
  IdentifyNvmController data{};
  data.verify_limit = transfer_limit(controller);
  data.write_zeroes_limit = kWriteZeroesLimit;
  return put(command, data);
}

}  // namespace

Reply identify(const Controller& controller, Command& command) {
  const Sqe& sqe = command.sqe;
  const auto cns = static_cast<IdentifyCns>(sqe.cdw10 & 0xFF);
  const uint32_t command_set = sqe.cdw11 >> 24;
  if (command.transfer_bytes < kIdentifyBytes) return {Status::kDataSglLengthInvalid};
  if (cns == IdentifyCns::kController) return identify_controller(controller, command);
  if (controller.discovery()) return {Status::kInvalidField};

  switch (cns) {
    case IdentifyCns::kActiveNamespaces:
    case IdentifyCns::kAllocatedNamespaces:
      return identify_active(sqe, command);
    case IdentifyCns::kSubsystemControllers:
      return identify_controllers(controller, command);
    case IdentifyCns::kCommandSets:
      return identify_command_sets(command);
    case IdentifyCns::kCommandSetActiveNamespaces:
      if (command_set != kNvmCommandSet) return {Status::kInvalidField};
      return identify_active(sqe, command);
    case IdentifyCns::kCommandSetController:
      if (command_set != kNvmCommandSet) return {Status::kInvalidField};
      return identify_nvm_controller(controller, command);
    case IdentifyCns::kNamespace:
    case IdentifyCns::kAllocatedNamespace:
    case IdentifyCns::kNamespaceControllers:
    case IdentifyCns::kNamespaceDescriptors:
    case IdentifyCns::kCommandSetNamespace:
    case IdentifyCns::kIndependentNamespace:
      break;
    default:
      return {Status::kInvalidField};
  }
  if (sqe.nsid != kNamespaceId) return {Status::kInvalidNamespace};
  if (cns == IdentifyCns::kNamespace || cns == IdentifyCns::kAllocatedNamespace) {
    return identify_namespace(controller, command);
  }
  if (cns == IdentifyCns::kNamespaceControllers) return identify_controllers(controller, command);
  if (cns == IdentifyCns::kNamespaceDescriptors) return identify_descriptors(controller, command);
  if (cns == IdentifyCns::kIndependentNamespace) return identify_independent(controller, command);
  if (command_set != kNvmCommandSet) return {Status::kInvalidField};
  // NVM 4.1.5.2: no protection information, no extended formats.
  return put(command, std::array<std::byte, kIdentifyBytes>{});
}

}  // namespace pando::nvme
