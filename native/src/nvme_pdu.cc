#include "nvme_pdu.h"

#include <cstring>

#include "crc32c.h"

namespace pando::nvme {
namespace {

constexpr PduFault invalid_field(size_t offset) {
  return {FatalError::kInvalidHeaderField, static_cast<uint32_t>(offset)};
}

bool carries_data(PduType type, const PduHeader& header, const PduRules& rules) {
  const uint32_t digest = rules.header_digest ? kDigestBytes : 0;
  return type == PduType::kH2cData ||
         (type == PduType::kCapsuleCmd && header.length > header.header_length + digest);
}

// The lengths of a PDU that may carry data: CapsuleCmd and H2CData.
std::optional<PduFault> check_lengths(PduType type, const PduHeader& header,
                                      const PduRules& rules) {
  const uint32_t header_bytes = header.header_length + (rules.header_digest ? kDigestBytes : 0);
  if (header.length < header_bytes) return invalid_field(offsetof(PduHeader, length));
  if (!carries_data(type, header, rules)) return std::nullopt;

  const uint32_t trailer = rules.data_digest ? kDigestBytes : 0;
  const uint32_t limit =
      type == PduType::kH2cData ? rules.max_h2c_data_bytes : rules.max_in_capsule_bytes;
  if (header.data_offset < header_bytes || header.data_offset % 4 != 0 ||
      header.data_offset > header_bytes + kMaxPadBytes) {
    return invalid_field(offsetof(PduHeader, data_offset));
  }
  if (header.length <= header.data_offset + trailer) {
    return invalid_field(offsetof(PduHeader, length));
  }
  if (header.length - header.data_offset - trailer > limit) {
    return type == PduType::kH2cData ? PduFault{FatalError::kDataLimitExceeded, 0}
                                     : invalid_field(offsetof(PduHeader, length));
  }
  return std::nullopt;
}

std::optional<PduFault> check_flags(PduType type, const PduHeader& header, const PduRules& rules) {
  uint8_t expected = rules.header_digest ? kPduHeaderDigest : 0;
  uint8_t mask = kPduHeaderDigest;
  if (carries_data(type, header, rules)) {
    expected |= rules.data_digest ? kPduDataDigest : 0;
    mask |= kPduDataDigest;
  }
  if ((header.flags & mask) != expected) return invalid_field(offsetof(PduHeader, flags));
  return std::nullopt;
}

}  // namespace

std::optional<PduFault> check_common_header(const PduHeader& header, const PduRules& rules) {
  const auto type = static_cast<PduType>(header.type);
  switch (type) {
    case PduType::kIcReq:
      if (rules.initialized) return PduFault{FatalError::kSequenceError, 0};
      if (header.header_length != sizeof(IcPdu)) {
        return invalid_field(offsetof(PduHeader, header_length));
      }
      if (header.length != sizeof(IcPdu)) return invalid_field(offsetof(PduHeader, length));
      return std::nullopt;
    case PduType::kH2cTermReq:
      if (header.header_length != sizeof(TermReqPdu)) {
        return invalid_field(offsetof(PduHeader, header_length));
      }
      if (header.length < sizeof(TermReqPdu) || header.length > kMaxTermReqBytes) {
        return invalid_field(offsetof(PduHeader, length));
      }
      return std::nullopt;
    case PduType::kCapsuleCmd:
    case PduType::kH2cData: {
      if (!rules.initialized) return PduFault{FatalError::kSequenceError, 0};
      const size_t expected =
          type == PduType::kCapsuleCmd ? sizeof(CapsuleCmdPdu) : sizeof(DataPdu);
      if (header.header_length != expected) {
        return invalid_field(offsetof(PduHeader, header_length));
      }
      if (auto fault = check_lengths(type, header, rules)) return fault;
      return check_flags(type, header, rules);
    }
    default:
      return invalid_field(offsetof(PduHeader, type));
  }
}

PduLayout pdu_layout(const PduHeader& header, const PduRules& rules) {
  const auto type = static_cast<PduType>(header.type);
  PduLayout layout{header.header_length, 0, 0, 0};
  if (type != PduType::kCapsuleCmd && type != PduType::kH2cData) return layout;
  if (rules.header_digest) layout.header_bytes += kDigestBytes;
  if (!carries_data(type, header, rules)) return layout;
  layout.pad_bytes = header.data_offset - layout.header_bytes;
  layout.trailer_bytes = rules.data_digest ? kDigestBytes : 0;
  layout.data_bytes = header.length - header.data_offset - layout.trailer_bytes;
  return layout;
}

std::optional<PduFault> check_header_digest(const PduHeader& header, const PduRules& rules) {
  const auto type = static_cast<PduType>(header.type);
  if (!rules.header_digest || (type != PduType::kCapsuleCmd && type != PduType::kH2cData)) {
    return std::nullopt;
  }
  uint32_t digest;
  std::memcpy(&digest, reinterpret_cast<const std::byte*>(&header) + header.header_length,
              sizeof(digest));
  if (digest == crc32c(&header, header.header_length)) return std::nullopt;
  return PduFault{FatalError::kHeaderDigest, digest};
}

void put_header_digest(void* header, size_t length) {
  const uint32_t digest = crc32c(header, length);
  std::memcpy(static_cast<std::byte*>(header) + length, &digest, sizeof(digest));
}

}  // namespace pando::nvme
