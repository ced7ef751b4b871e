// The NVMe structures and numbers that the target speaks, as they lie on the wire.
//
// "Base" is the NVM Express Base Specification 2.0, "NVM" the NVM Command Set Specification 1.0.
// Everything is little-endian, which is what we run on.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace pando::nvme {

static_assert(std::endian::native == std::endian::little, "wire structures are used in place");

// Base 3.3.3.2.1: a status as (status code type << 8 | status code).
enum class Status : uint16_t {
  kSuccess = 0x000,
  kInvalidOpcode = 0x001,
  kInvalidField = 0x002,
  kInternalError = 0x006,
  kAbortRequested = 0x007,
  kInvalidNamespace = 0x00B,
  kCommandSequenceError = 0x00C,
  kDataSglLengthInvalid = 0x00F,
  kSglDescriptorTypeInvalid = 0x011,
  kSglOffsetInvalid = 0x016,
  kHostIdInconsistent = 0x018,
  kNamespaceWriteProtected = 0x020,
  kTransientTransportError = 0x022,
  kLbaOutOfRange = 0x080,
  kCapacityExceeded = 0x081,
  kNamespaceNotReady = 0x082,
  kAsyncEventLimitExceeded = 0x105,
  kInvalidLogPage = 0x109,
  kFeatureNotSaveable = 0x10D,
  kConnectIncompatibleFormat = 0x180,  // Base 3.3.2 (Connect), 0x180 to 0x184
  kConnectControllerBusy = 0x181,
  kConnectInvalidParameters = 0x182,
  kConnectInvalidHost = 0x184,
  kAuthenticationRequired = 0x191,  // Base 6.3.1
  kWriteFault = 0x280,
  kUnrecoveredReadError = 0x281,
  kCompareFailure = 0x285,
};

// Base 3.1.3.4 (admin) and 6 (fabrics).
enum class AdminOpcode : uint8_t {
  kGetLogPage = 0x02,
  kIdentify = 0x06,
  kAbort = 0x08,
  kSetFeatures = 0x09,
  kGetFeatures = 0x0A,
  kAsyncEventRequest = 0x0C,
  kKeepAlive = 0x18,
};

inline constexpr uint8_t kFabricsOpcode = 0x7F;

enum class FabricsType : uint8_t {
  kPropertySet = 0x00,
  kConnect = 0x01,
  kPropertyGet = 0x04,
  kAuthenticationSend = 0x05,
  kAuthenticationReceive = 0x06,
};

// NVM 3.2
enum class IoOpcode : uint8_t {
  kFlush = 0x00,
  kWrite = 0x01,
  kRead = 0x02,
  kCompare = 0x05,
  kWriteZeroes = 0x08,
  kDatasetManagement = 0x09,
  kVerify = 0x0C,
};

// Base 3.2.2: bits 1:0 of an opcode (of a fabrics type, for fabrics commands) say which way data
// goes.
inline constexpr uint8_t kDirectionMask = 0x03;
inline constexpr uint8_t kHostToController = 0x01;
inline constexpr uint8_t kControllerToHost = 0x02;

// Base 4.1.2; the only two descriptors that NVMe/TCP uses (TCP 3.3.2.1).
inline constexpr uint8_t kSglInCapsule = 0x01;   // data block, address is an offset
inline constexpr uint8_t kSglTransport = 0x5A;   // transport data block, transport specific
inline constexpr uint8_t kFlagsPsdtMask = 0xC0;  // 01b: SGL, metadata contiguous
inline constexpr uint8_t kFlagsPsdtSgl = 0x40;
inline constexpr uint8_t kFlagsFuseMask = 0x03;

struct SglDescriptor {
  uint64_t address;
  uint32_t length;
  uint8_t reserved[3];
  uint8_t type;
};
static_assert(sizeof(SglDescriptor) == 16);

// Base 3.3.3.1: submission queue entry. Fabrics commands keep their type in byte 4.
struct Sqe {
  uint8_t opcode;
  uint8_t flags;
  uint16_t cid;
  uint32_t nsid;
  uint32_t cdw2;
  uint32_t cdw3;
  uint64_t metadata;
  SglDescriptor sgl;
  uint32_t cdw10;
  uint32_t cdw11;
  uint32_t cdw12;
  uint32_t cdw13;
  uint32_t cdw14;
  uint32_t cdw15;
};
static_assert(sizeof(Sqe) == 64 && offsetof(Sqe, sgl) == 24 && offsetof(Sqe, cdw10) == 40);

inline FabricsType fabrics_type(const Sqe& sqe) {
  return static_cast<FabricsType>(sqe.nsid & 0xFF);
}

// Base 3.3.3.2: completion queue entry.
struct Cqe {
  uint64_t result;
  uint16_t sq_head;
  uint16_t sq_id;
  uint16_t cid;
  uint16_t status;  // bits 15:1; bit 0 is the phase, unused in fabrics
};
static_assert(sizeof(Cqe) == 16);

inline constexpr uint16_t kStatusDoNotRetry = 1 << 15;

// Base 6.3: the data of Connect.
struct ConnectData {
  std::array<uint8_t, 16> host_id;
  uint16_t controller_id;
  uint8_t reserved18[238];
  char subsystem_nqn[256];
  char host_nqn[256];
  uint8_t reserved768[256];
};
static_assert(sizeof(ConnectData) == 1024 && offsetof(ConnectData, subsystem_nqn) == 256);

inline constexpr size_t kNqnMaxLength = 223;  // Base 4.5
inline constexpr uint16_t kDynamicController = 0xFFFF;
inline constexpr uint8_t kConnectDisableSqFlow = 1 << 2;  // CATTR
// Base 6.3, the result of Connect: AUTHREQ, 31:16; an authentication transaction is required.
inline constexpr uint64_t kAuthenticationRequested = 1 << 17;
inline constexpr char kDiscoveryNqn[] = "nqn.2014-08.org.nvmexpress.discovery";

// Base 3.1.4: properties.
enum class Property : uint32_t {
  kCapabilities = 0x00,
  kVersion = 0x08,
  kConfiguration = 0x14,
  kStatus = 0x1C,
  kReadyTimeouts = 0x68,
};

inline constexpr uint32_t kVersion2_0 = 0x00020000;
inline constexpr uint32_t kConfigEnable = 1 << 0;
inline constexpr uint32_t kConfigShutdownMask = 3 << 14;
inline constexpr uint32_t kStatusReady = 1 << 0;
inline constexpr uint32_t kStatusFatal = 1 << 1;
inline constexpr uint32_t kStatusShutdownOccurring = 1 << 2;
inline constexpr uint32_t kStatusShutdownComplete = 2 << 2;
inline constexpr uint32_t kStatusShutdownMask = 3 << 2;

// Base 5.27.1
enum class Feature : uint8_t {
  kArbitration = 0x01,
  kPowerManagement = 0x02,
  kTemperatureThreshold = 0x04,
  kErrorRecovery = 0x05,
  kVolatileWriteCache = 0x06,
  kNumberOfQueues = 0x07,
  kWriteAtomicity = 0x0A,
  kAsyncEventConfig = 0x0B,
  kKeepAliveTimer = 0x0F,
  kHostIdentifier = 0x81,
};

// Base 5.16.1
enum class LogPage : uint8_t {
  kSupported = 0x00,
  kError = 0x01,
  kSmart = 0x02,
  kFirmware = 0x03,
  kChangedNamespaces = 0x04,
  kCommandEffects = 0x05,
  kNamespaceAccess = 0x0C,  // asymmetric namespace access (ANA)
  kFeatureEffects = 0x12,
  kDiscovery = 0x70,
};

// Base 5.2: the result of an Async Event Request is type | information << 8 | log page << 16.
inline constexpr uint32_t kEventNamespaceChanged = 0x02 | 0x00 << 8 | 0x04 << 16;
inline constexpr uint32_t kEventDiscoveryChanged = 0x02 | 0xF0u << 8 | 0x70 << 16;
inline constexpr uint32_t kNotifyNamespace = 1 << 8;  // Base 5.27.1.8, and OAES
inline constexpr uint32_t kNotifyDiscovery = 1u << 31;

// Base 5.16.1.13: one group, with the one namespace in it.
struct NamespaceAccessLog {
  uint64_t change_count;
  uint16_t groups;
  uint8_t reserved10[6];
  uint32_t group;
  uint32_t group_namespaces;
  uint64_t group_change_count;
  uint8_t group_state;
  uint8_t reserved33[15];
  uint32_t namespace_id;
};
static_assert(sizeof(NamespaceAccessLog) == 56 && offsetof(NamespaceAccessLog, group) == 16 &&
              offsetof(NamespaceAccessLog, group_state) == 32 &&
              offsetof(NamespaceAccessLog, namespace_id) == 48);
inline constexpr uint32_t kAccessGroup = 1;
inline constexpr uint8_t kAccessOptimized = 1;

// NVM 3.2.3
struct DsmRange {
  uint32_t attributes;
  uint32_t blocks;
  uint64_t first_block;
};
static_assert(sizeof(DsmRange) == 16);
inline constexpr uint32_t kDsmDeallocate = 1 << 2;     // CDW11
inline constexpr uint32_t kForceUnitAccess = 1 << 30;  // CDW12 of write-like commands

// Base 5.16.1.2
struct ErrorLogEntry {
  uint64_t error_count;
  uint16_t sq_id;
  uint16_t cid;
  uint16_t status;
  uint16_t parameter;
  uint64_t lba;
  uint32_t nsid;
  uint8_t vendor;
  uint8_t transport;
  uint8_t reserved30[2];
  uint64_t command_specific;
  uint16_t transport_specific;
  uint8_t reserved42[22];
};
static_assert(sizeof(ErrorLogEntry) == 64);

// Base 5.16.1.3
struct SmartLog {
  uint8_t critical_warning;
  uint8_t temperature[2];  // kelvin; 0: not reported
  uint8_t available_spare;
  uint8_t spare_threshold;
  uint8_t percentage_used;
  uint8_t reserved6[26];
  uint64_t data_units_read[2];  // of 1,000 x 512 bytes
  uint64_t data_units_written[2];
  uint64_t host_reads[2];
  uint64_t host_writes[2];
  uint64_t busy_minutes[2];
  uint64_t power_cycles[2];
  uint64_t power_on_hours[2];
  uint64_t unsafe_shutdowns[2];
  uint64_t media_errors[2];
  uint64_t error_log_entries[2];
  uint8_t reserved192[320];
};
static_assert(sizeof(SmartLog) == 512 && offsetof(SmartLog, data_units_read) == 32);

// Base 5.16.1.23
struct DiscoveryHeader {
  uint64_t generation;
  uint64_t records;
  uint16_t format;
  uint8_t reserved18[1006];
};
static_assert(sizeof(DiscoveryHeader) == 1024);

struct DiscoveryEntry {
  uint8_t transport;  // 3: TCP
  uint8_t family;     // 1: IPv4, 2: IPv6
  uint8_t subsystem_type;
  uint8_t requirements;
  uint16_t port_id;
  uint16_t controller_id;
  uint16_t admin_queue_size;
  uint16_t flags;
  uint8_t reserved12[20];
  char service[32];
  uint8_t reserved64[192];
  char subsystem_nqn[256];
  char address[256];
  uint8_t transport_specific[256];  // TCP: byte 0, security type, 0: none
};
static_assert(sizeof(DiscoveryEntry) == 1024 && offsetof(DiscoveryEntry, subsystem_nqn) == 256);

}  // namespace pando::nvme
