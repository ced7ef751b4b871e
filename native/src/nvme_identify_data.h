// What Identify returns, as it lies on the wire (Base 5.17, NVM 4.1.5).
#pragma once

#include <cstddef>
#include <cstdint>

namespace pando::nvme {

inline constexpr size_t kIdentifyBytes = 4096;

// Base 5.17.1 (the CNS field of Identify)
enum class IdentifyCns : uint8_t {
  kNamespace = 0x00,
  kController = 0x01,
  kActiveNamespaces = 0x02,
  kNamespaceDescriptors = 0x03,
  kCommandSetNamespace = 0x05,
  kCommandSetController = 0x06,
  kCommandSetActiveNamespaces = 0x07,
  kIndependentNamespace = 0x08,
  kAllocatedNamespaces = 0x10,
  kAllocatedNamespace = 0x11,
  kNamespaceControllers = 0x12,
  kSubsystemControllers = 0x13,
  kCommandSets = 0x1C,
};

// Base 5.17.2.1
struct IdentifyController {
  uint16_t pci_vendor;
  uint16_t pci_subsystem_vendor;
  char serial[20];
  char model[40];
  char firmware[8];
  uint8_t rab;
  uint8_t ieee[3];
  uint8_t cmic;
  uint8_t mdts;
  uint16_t controller_id;
  uint32_t version;
  uint32_t rtd3r;
  uint32_t rtd3e;
  uint32_t oaes;
  uint32_t ctratt;
  uint8_t reserved100[11];
  uint8_t controller_type;
  uint8_t reserved112[144];
  uint16_t oacs;
  uint8_t abort_limit;
  uint8_t async_event_limit;
  uint8_t firmware_updates;
  uint8_t log_page_attributes;
  uint8_t error_log_entries;
  uint8_t power_states;
  uint8_t reserved264[2];
  uint16_t warning_temperature;
  uint16_t critical_temperature;
  uint8_t reserved270[50];
  uint16_t keep_alive_support;
  uint8_t reserved322[20];
  uint8_t access_transition_time;  // ANATT, seconds
  uint8_t access_capabilities;     // ANACAP
  uint32_t access_group_max;       // ANAGRPMAX
  uint32_t access_groups;          // NANAGRPID
  uint8_t reserved352[160];
  uint8_t sqes;
  uint8_t cqes;
  uint16_t max_commands;
  uint32_t namespaces;
  uint16_t oncs;
  uint16_t fuses;
  uint8_t fna;
  uint8_t vwc;
  uint16_t awun;
  uint16_t awupf;
  uint8_t nvscc;
  uint8_t nwpc;
  uint16_t acwu;
  uint16_t ocfs;
  uint32_t sgls;
  uint32_t max_allowed_namespaces;
  uint8_t reserved544[224];
  char subsystem_nqn[256];
  uint8_t reserved1024[768];
  uint32_t ioccsz;
  uint32_t iorcsz;
  uint16_t icdoff;
  uint8_t fcatt;
  uint8_t msdbd;
  uint16_t ofcs;
  uint8_t discovery_type;
  uint8_t reserved1807[241];
  uint8_t power_state_0[32];
  uint8_t reserved2080[2016];
};
static_assert(sizeof(IdentifyController) == kIdentifyBytes);
static_assert(offsetof(IdentifyController, cmic) == 76);
static_assert(offsetof(IdentifyController, controller_type) == 111);
static_assert(offsetof(IdentifyController, oacs) == 256);
static_assert(offsetof(IdentifyController, keep_alive_support) == 320);
static_assert(offsetof(IdentifyController, access_transition_time) == 342);
static_assert(offsetof(IdentifyController, access_groups) == 348);
static_assert(offsetof(IdentifyController, sqes) == 512);
static_assert(offsetof(IdentifyController, sgls) == 536);
static_assert(offsetof(IdentifyController, subsystem_nqn) == 768);
static_assert(offsetof(IdentifyController, ioccsz) == 1792);
static_assert(offsetof(IdentifyController, power_state_0) == 2048);

// Base 5.17.2.1
inline constexpr uint8_t kCmicMultipleControllers = 1 << 1;
inline constexpr uint8_t kCmicNamespaceAccess = 1 << 3;
inline constexpr uint8_t kAccessReportsOptimized = 1 << 0;
inline constexpr uint8_t kAccessGroupNeverChanges = 1 << 6;
inline constexpr uint8_t kAccessTransitionSeconds = 10;
inline constexpr uint32_t kCtrattTrafficKeepAlive = 1 << 6;
inline constexpr uint8_t kControllerTypeIo = 1;
inline constexpr uint8_t kControllerTypeDiscovery = 2;
inline constexpr uint8_t kLpaCommandEffects = 1 << 1;
inline constexpr uint8_t kLpaExtendedData = 1 << 2;
inline constexpr uint8_t kFirmwareOneReadOnlySlot = 1 << 1 | 1 << 0;
inline constexpr uint16_t kOncsCompare = 1 << 0;
inline constexpr uint16_t kOncsDatasetManagement = 1 << 2;
inline constexpr uint16_t kOncsWriteZeroes = 1 << 3;
inline constexpr uint16_t kOncsSelectFeatures = 1 << 4;
inline constexpr uint16_t kOncsVerify = 1 << 7;
inline constexpr uint8_t kVwcPresent = 1 << 0;
inline constexpr uint8_t kVwcFlushAllNamespaces = 3 << 1;
inline constexpr uint32_t kSglsSupported = 1 << 0;  // no alignment needed
inline constexpr uint32_t kSglsOffset = 1 << 20;
inline constexpr uint32_t kSglsTransport = 1 << 21;

// NVM 4.1.5.1
struct IdentifyNamespace {
  uint64_t size;
  uint64_t capacity;
  uint64_t used;
  uint8_t nsfeat;
  uint8_t formats;  // 0's based
  uint8_t format;
  uint8_t mc;
  uint8_t dpc;
  uint8_t dps;
  uint8_t nmic;
  uint8_t rescap;
  uint8_t fpi;
  uint8_t dlfeat;
  uint16_t nawun;
  uint16_t nawupf;
  uint16_t nacwu;
  uint16_t nabsn;
  uint16_t nabo;
  uint16_t nabspf;
  uint16_t noiob;
  uint64_t nvmcap[2];
  uint16_t npwg;
  uint16_t npwa;
  uint16_t npdg;
  uint16_t npda;
  uint16_t nows;
  uint8_t reserved74[18];
  uint32_t ana_group;
  uint8_t reserved96[3];
  uint8_t nsattr;
  uint16_t nvm_set;
  uint16_t endurance_group;
  uint8_t nguid[16];
  uint8_t eui64[8];
  uint32_t lba_formats[16];
  uint8_t reserved192[3904];
};
static_assert(sizeof(IdentifyNamespace) == kIdentifyBytes);
static_assert(offsetof(IdentifyNamespace, nvmcap) == 48);
static_assert(offsetof(IdentifyNamespace, ana_group) == 92);
static_assert(offsetof(IdentifyNamespace, nguid) == 104);
static_assert(offsetof(IdentifyNamespace, lba_formats) == 128);

inline constexpr uint8_t kNsfeatAtomics = 1 << 1;
inline constexpr uint8_t kNsfeatIdsNotReused = 1 << 3;
inline constexpr uint8_t kNsfeatOptimalIo = 1 << 4;
inline constexpr uint8_t kNmicShared = 1 << 0;
inline constexpr uint8_t kDlfeatReadsZero = 1 << 0;
inline constexpr uint8_t kDlfeatWriteZeroesDeallocates = 1 << 3;
inline constexpr uint8_t kNsattrWriteProtected = 1 << 0;
inline constexpr uint32_t kLbaFormat4096 = 12 << 16;  // LBADS: 2^12 bytes

// Base 5.17.2.3 (namespace identification descriptors)
inline constexpr uint8_t kDescriptorNguid = 2;
inline constexpr uint8_t kDescriptorUuid = 3;
inline constexpr uint8_t kDescriptorCommandSet = 4;

// NVM 4.1.5.4 (CNS 06h, NVM command set)
struct IdentifyNvmController {
  uint8_t verify_limit;        // VSL, 2^n * 4 KiB
  uint8_t write_zeroes_limit;  // WZSL
  uint8_t write_uncorrectable_limit;
  uint8_t dsm_ranges;         // DMRL
  uint32_t dsm_range_blocks;  // DMRSL
  uint64_t dsm_blocks;        // DMSL
  uint8_t reserved16[4080];
};
static_assert(sizeof(IdentifyNvmController) == kIdentifyBytes);

// Base 5.17.2.8 (CNS 08h)
struct IdentifyIndependentNamespace {
  uint8_t nsfeat;
  uint8_t nmic;
  uint8_t rescap;
  uint8_t fpi;
  uint32_t ana_group;
  uint8_t nsattr;
  uint8_t reserved9;
  uint16_t nvm_set;
  uint16_t endurance_group;
  uint8_t nstat;  // bit 0: ready
  uint8_t reserved15[4081];
};
static_assert(sizeof(IdentifyIndependentNamespace) == kIdentifyBytes);

}  // namespace pando::nvme
