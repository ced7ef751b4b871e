#include "nvme_features.h"

#include <algorithm>
#include <cstring>

#include "nvme_controller.h"
#include "nvme_target.h"

namespace pando::nvme {
namespace {

// Base 5.27: SV, bit 31 of CDW10; Base 5.15: SEL, bits 10:8.
constexpr uint32_t kSave = 1u << 31;
constexpr uint32_t kSelectMask = 7 << 8;
enum class Select : uint8_t { kCurrent, kDefault, kSaved, kCapabilities };
constexpr uint64_t kChangeable = 1 << 2;  // of the capabilities: not saveable, not a namespace's
// Base 5.27.1.3: CDW11, TMPSEL (19:16) and THSEL (21:20) name another sensor or the lower limit.
constexpr uint32_t kOtherThresholds = 0x3F << 16;
// Base 5.27.1.25: EXHID, the 128-bit identifier.
constexpr uint32_t kExtendedHostId = 1 << 0;

bool allowed(const Controller& controller, Feature feature) {
  if (!controller.discovery()) return std::ranges::find(kFeatures, feature) != kFeatures.end();
  return feature == Feature::kAsyncEventConfig || feature == Feature::kKeepAliveTimer;
}

uint32_t queue_count_result(const Controller& controller) {
  const uint32_t last = controller.target().options().max_io_queues - 1u;
  return last << 16 | last;
}

Reply set_queue_count(const Controller& controller, uint32_t value) {
  const uint32_t submission = value & 0xFFFF;
  const uint32_t completion = value >> 16;
  if (submission == 0xFFFF || completion == 0xFFFF) return {Status::kInvalidField};
  if (controller.io_queues() > 0) return {Status::kCommandSequenceError};
  const uint32_t last = controller.target().options().max_io_queues - 1u;
  return {Status::kSuccess, std::min(completion, last) << 16 | std::min(submission, last)};
}

Reply get_host_id(const Controller& controller, Command& command) {
  const auto& id = controller.settings().host_id;
  if ((command.sqe.cdw11 & kExtendedHostId) == 0) return {Status::kHostIdInconsistent};
  if (command.transfer_bytes < id.size()) return {Status::kDataSglLengthInvalid};
  std::memcpy(command.buffer.data(), id.data(), id.size());
  return {Status::kSuccess, 0, static_cast<uint32_t>(id.size())};
}

Reply read_feature(const Controller& controller, Command& command, const FeatureValues& values) {
  switch (static_cast<Feature>(command.sqe.cdw10 & 0xFF)) {
    case Feature::kArbitration:
      return {Status::kSuccess, values.arbitration};
    case Feature::kPowerManagement:
      return {Status::kSuccess, 0};
    case Feature::kTemperatureThreshold:
      if ((command.sqe.cdw11 & kOtherThresholds) != 0) return {Status::kInvalidField};
      return {Status::kSuccess, values.temperature_threshold};
    case Feature::kErrorRecovery:
      return {Status::kSuccess, values.error_recovery};
    case Feature::kVolatileWriteCache:
      return {Status::kSuccess, values.write_cache ? 1u : 0u};
    case Feature::kNumberOfQueues:
      return {Status::kSuccess, queue_count_result(controller)};
    case Feature::kWriteAtomicity:
      return {Status::kSuccess, values.write_atomicity};
    case Feature::kAsyncEventConfig:
      return {Status::kSuccess, values.async_events};
    case Feature::kKeepAliveTimer:
      return {Status::kSuccess, controller.keep_alive_ms()};
    case Feature::kHostIdentifier:
      return get_host_id(controller, command);
  }
  return {Status::kInvalidField};
}

uint32_t rounded_keep_alive(const Controller& controller, uint32_t milliseconds) {
  const uint64_t unit = controller.target().options().keep_alive_granularity_ms;
  return static_cast<uint32_t>(
      std::min<uint64_t>((milliseconds + unit - 1) / unit * unit, UINT32_MAX));
}

}  // namespace

Reply get_features(Controller& controller, Command& command) {
  const Sqe& sqe = command.sqe;
  const auto feature = static_cast<Feature>(sqe.cdw10 & 0xFF);
  if (!allowed(controller, feature)) return {Status::kInvalidField};
  switch (static_cast<Select>((sqe.cdw10 & kSelectMask) >> 8)) {
    case Select::kCurrent:
      return read_feature(controller, command, controller.features());
    case Select::kDefault:
    case Select::kSaved:  // nothing is saved: the default
      return read_feature(controller, command, FeatureValues{});
    case Select::kCapabilities:
      return {Status::kSuccess, feature == Feature::kHostIdentifier ? 0 : kChangeable};
  }
  return {Status::kInvalidField};
}

Reply set_features(Controller& controller, Command& command) {
  const Sqe& sqe = command.sqe;
  const auto feature = static_cast<Feature>(sqe.cdw10 & 0xFF);
  const uint32_t value = sqe.cdw11;
  FeatureValues& values = controller.features();
  if (!allowed(controller, feature)) return {Status::kInvalidField};
  if ((sqe.cdw10 & kSave) != 0) return {Status::kFeatureNotSaveable};
  switch (feature) {
    case Feature::kArbitration:
      values.arbitration = value;
      return {};
    case Feature::kPowerManagement:  // there is one power state
      return {(value & 0x1F) == 0 ? Status::kSuccess : Status::kInvalidField};
    case Feature::kTemperatureThreshold:
      if ((value & kOtherThresholds) != 0) return {Status::kInvalidField};
      values.temperature_threshold = value & 0xFFFF;
      return {};
    case Feature::kErrorRecovery:
      values.error_recovery = value & 0xFFFF;
      return {};
    case Feature::kVolatileWriteCache:
      values.write_cache = (value & 1) != 0;
      return {};
    case Feature::kNumberOfQueues:
      return set_queue_count(controller, value);
    case Feature::kWriteAtomicity:
      values.write_atomicity = value & 1;
      return {};
    case Feature::kAsyncEventConfig:
      values.async_events = value;
      return {};
    case Feature::kKeepAliveTimer:
      controller.set_keep_alive(rounded_keep_alive(controller, value));
      return {};
    case Feature::kHostIdentifier:  // Base 5.27.1.25: in fabrics Connect sets it
      return {Status::kCommandSequenceError};
  }
  return {Status::kInvalidField};
}

}  // namespace pando::nvme
