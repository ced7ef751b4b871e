// NVMe/TCP protocol data units: how they lie on the wire, and whether a header that came in may be
// believed. "TCP" is the NVMe TCP Transport Specification 1.0.
//
//   byte 0     8            hlen              pdo             plen
//   | common  | specific   | header digest?  | pad | data | data digest? |
//
// Pure functions over bytes: sockets and commands are the connection's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "nvme_spec.h"

namespace pando::nvme {

// TCP 3.6.1
enum class PduType : uint8_t {
  kIcReq = 0x00,
  kIcResp = 0x01,
  kH2cTermReq = 0x02,
  kC2hTermReq = 0x03,
  kCapsuleCmd = 0x04,
  kCapsuleResp = 0x05,
  kH2cData = 0x06,
  kC2hData = 0x07,
  kR2t = 0x09,
};

inline constexpr uint8_t kPduHeaderDigest = 1 << 0;
inline constexpr uint8_t kPduDataDigest = 1 << 1;
inline constexpr uint8_t kPduLastData = 1 << 2;  // H2CData and C2HData
inline constexpr uint8_t kPduSuccess = 1 << 3;   // C2HData

struct PduHeader {
  uint8_t type;
  uint8_t flags;
  uint8_t header_length;
  uint8_t data_offset;
  uint32_t length;
};
static_assert(sizeof(PduHeader) == 8);

// TCP 3.6.2.2 and 3.6.2.3
struct IcPdu {
  PduHeader header;
  uint16_t format;
  uint8_t data_alignment;  // HPDA or CPDA: (n + 1) * 4 bytes
  uint8_t digests;
  uint32_t limit;  // ICReq: MAXR2T, 0's based; ICResp: MAXH2CDATA
  uint8_t reserved[112];
};
static_assert(sizeof(IcPdu) == 128);
inline constexpr uint8_t kDigestHeader = 1 << 0;
inline constexpr uint8_t kDigestData = 1 << 1;
inline constexpr uint8_t kMaxDataAlignment = 31;

struct CapsuleCmdPdu {  // TCP 3.6.2.6
  PduHeader header;
  Sqe sqe;
};
static_assert(sizeof(CapsuleCmdPdu) == 72);

struct CapsuleRespPdu {  // TCP 3.6.2.7
  PduHeader header;
  Cqe cqe;
};
static_assert(sizeof(CapsuleRespPdu) == 24);

struct DataPdu {  // TCP 3.6.2.8 and 3.6.2.9: H2CData and C2HData
  PduHeader header;
  uint16_t cid;
  uint16_t tag;  // H2CData only
  uint32_t offset;
  uint32_t length;
  uint32_t reserved;
};
static_assert(sizeof(DataPdu) == 24);

struct R2tPdu {  // TCP 3.6.2.10
  PduHeader header;
  uint16_t cid;
  uint16_t tag;
  uint32_t offset;
  uint32_t length;
  uint32_t reserved;
};
static_assert(sizeof(R2tPdu) == 24);

struct TermReqPdu {  // TCP 3.6.2.4 and 3.6.2.5; followed by the header that was wrong
  PduHeader header;
  uint16_t error;
  uint16_t information_low;
  uint16_t information_high;
  uint8_t reserved[10];
};
static_assert(sizeof(TermReqPdu) == 24);

// TCP 3.6.2.5: Fatal Error Status
enum class FatalError : uint16_t {
  kInvalidHeaderField = 0x01,
  kSequenceError = 0x02,
  kHeaderDigest = 0x03,
  kDataOutOfRange = 0x04,
  kDataLimitExceeded = 0x05,
  kUnsupportedParameter = 0x06,
};

struct PduFault {
  FatalError error;
  uint32_t information;  // the offset of the field that is wrong, or the digest that came
};

inline constexpr size_t kDigestBytes = 4;
inline constexpr size_t kMaxHeaderBytes = sizeof(IcPdu);  // the longest header, ICReq's
inline constexpr uint32_t kMaxTermReqBytes = 152;
inline constexpr uint32_t kMaxPadBytes = 128;

/// What the two sides agreed on (the defaults hold for ICReq itself) and our own limits.
struct PduRules {
  bool initialized = false;
  bool header_digest = false;
  bool data_digest = false;
  uint32_t max_in_capsule_bytes = 0;
  uint32_t max_h2c_data_bytes = 0;
};

/// Judges the common header alone: whether the PDU may come now and how long its header is.
std::optional<PduFault> check_common_header(const PduHeader& header, const PduRules& rules);

/// Where things are in a PDU whose common header passed. `header` is the whole header.
struct PduLayout {
  uint32_t header_bytes;  // with its digest
  uint32_t pad_bytes;
  uint32_t data_bytes;
  uint32_t trailer_bytes;  // the data digest
};
PduLayout pdu_layout(const PduHeader& header, const PduRules& rules);

/// Judges the digest behind a complete header of `header->header_length` bytes.
std::optional<PduFault> check_header_digest(const PduHeader& header, const PduRules& rules);

/// Appends the digest of the `length` bytes at `header`, which has room for it.
void put_header_digest(void* header, size_t length);

}  // namespace pando::nvme
