// What the specification has, or leaves open, and the target has not: every other opcode, fabrics
// type, property, feature, log page and structure to identify gets the specified refusal, whichever
// queue it comes to, and nothing else happens. What there is instead: docs/nvme.md.
#include <algorithm>
#include <cstring>

#include "nvme_session.h"

using namespace pando;
using namespace pando::test;
using nvme::AdminOpcode;
using nvme::FabricsType;
using nvme::Feature;
using nvme::IdentifyCns;
using nvme::IoOpcode;
using nvme::LogPage;
using nvme::Property;
using nvme::Status;

namespace {

template <typename T>
bool among(int number, std::initializer_list<T> known) {
  return std::ranges::any_of(known, [number](T one) { return static_cast<int>(one) == number; });
}

/// Each number of a byte that `known` does not have.
template <typename T>
std::vector<int> others(std::initializer_list<T> known) {
  std::vector<int> numbers;
  for (int number = 0; number < 256; ++number) {
    if (!among(number, known)) numbers.push_back(number);
  }
  return numbers;
}

/// An enabled discovery controller.
struct Discovery {
  explicit Discovery(uint16_t port) : admin(port) {
    REQUIRE(admin.initialize() && admin.connect(nvme::kDiscoveryNqn, 0).ok() && admin.enable());
  }
  Host admin;
};

Outcome admin(Host& host, int opcode) {
  return host.admin(static_cast<AdminOpcode>(opcode), 0, 0, 0, 1);
}

// Base 5: among them those that create and delete queues, which fabrics do by Connect, and those
// that format, sanitize, load firmware and manage namespaces.
void admin_opcodes() {
  TargetThread target;
  Session session(target.port());
  for (const int opcode : others(
           {AdminOpcode::kGetLogPage, AdminOpcode::kIdentify, AdminOpcode::kAbort,
            AdminOpcode::kSetFeatures, AdminOpcode::kGetFeatures, AdminOpcode::kAsyncEventRequest,
            AdminOpcode::kKeepAlive, static_cast<AdminOpcode>(nvme::kFabricsOpcode)})) {
    const Outcome outcome = admin(session.admin, opcode);
    CHECK(outcome.failed_with(Status::kInvalidOpcode) && outcome.do_not_retry);
  }
  // Base 3.1.2.3: of a discovery controller these alone.
  Discovery discovery(target.port());
  for (const int opcode :
       others({AdminOpcode::kGetLogPage, AdminOpcode::kIdentify, AdminOpcode::kSetFeatures,
               AdminOpcode::kGetFeatures, AdminOpcode::kAsyncEventRequest, AdminOpcode::kKeepAlive,
               static_cast<AdminOpcode>(nvme::kFabricsOpcode)})) {
    CHECK(admin(discovery.admin, opcode).failed_with(Status::kInvalidOpcode));
  }
  CHECK(session.io.read(0, 1).ok());
}

// NVM 3.2: among them Write Uncorrectable and Copy; Base 7: reservations.
void io_opcodes() {
  TargetThread target;
  Session session(target.port());
  for (const int opcode :
       others({IoOpcode::kFlush, IoOpcode::kWrite, IoOpcode::kRead, IoOpcode::kCompare,
               IoOpcode::kWriteZeroes, IoOpcode::kDatasetManagement, IoOpcode::kVerify,
               static_cast<IoOpcode>(nvme::kFabricsOpcode)})) {
    const Outcome outcome = session.io.run(Host::io(static_cast<IoOpcode>(opcode), 0, 1));
    CHECK(outcome.failed_with(Status::kInvalidOpcode) && outcome.do_not_retry);
  }
  uint64_t submitted = 1;
  target.on_reactor([&](auto&) { submitted = target.volume->submitted; });
  CHECK(submitted == 0);
}

// Base 6: among them Disconnect, which a controller may leave out; the end of the connection ends
// the queue.
void fabrics_types() {
  TargetThread target;
  Session session(target.port());
  const auto run = [](Host& host, int type) {
    nvme::Sqe sqe{};
    sqe.opcode = nvme::kFabricsOpcode;
    sqe.nsid = static_cast<uint32_t>(type);
    return host.run(sqe);
  };
  for (const int type :
       others({FabricsType::kPropertySet, FabricsType::kConnect, FabricsType::kPropertyGet,
               FabricsType::kAuthenticationSend, FabricsType::kAuthenticationReceive})) {
    CHECK(run(session.admin, type).failed_with(Status::kInvalidOpcode));
    CHECK(run(session.io, type).failed_with(Status::kInvalidOpcode));
  }
  CHECK(session.io.read(0, 1).ok());
}

// Base 3.1.3, and 6.5: each in its own width.
void properties() {
  TargetThread target;
  Session session(target.port());
  for (uint32_t offset = 0; offset < 0x200; offset += 4) {
    const auto property = static_cast<Property>(offset);
    const bool wide = property == Property::kCapabilities;
    const bool narrow =
        among(static_cast<int>(offset), {Property::kVersion, Property::kStatus,
                                         Property::kConfiguration, Property::kReadyTimeouts});
    const Outcome eight = session.admin.property_get(property, true);
    const Outcome four = session.admin.property_get(property, false);
    CHECK(wide ? eight.ok() : eight.failed_with(Status::kInvalidField));
    CHECK(narrow ? four.ok() : four.failed_with(Status::kInvalidField));
    if (property == Property::kConfiguration) continue;
    CHECK(session.admin.property_set(property, 0).failed_with(Status::kInvalidField));
  }
  CHECK(session.io.read(0, 1).ok());
}

// Base 5.15 and 5.27
void features() {
  TargetThread target;
  Session session(target.port());
  for (const int feature :
       others({Feature::kArbitration, Feature::kPowerManagement, Feature::kTemperatureThreshold,
               Feature::kErrorRecovery, Feature::kVolatileWriteCache, Feature::kNumberOfQueues,
               Feature::kWriteAtomicity, Feature::kAsyncEventConfig, Feature::kKeepAliveTimer,
               Feature::kHostIdentifier})) {
    const auto number = static_cast<uint32_t>(feature);
    for (const AdminOpcode opcode : {AdminOpcode::kGetFeatures, AdminOpcode::kSetFeatures}) {
      CHECK(session.admin.admin(opcode, number, 0, 0, 1).failed_with(Status::kInvalidField));
    }
  }
  Discovery discovery(target.port());
  for (const int feature : others({Feature::kAsyncEventConfig, Feature::kKeepAliveTimer})) {
    const auto number = static_cast<uint32_t>(feature);
    for (const AdminOpcode opcode : {AdminOpcode::kGetFeatures, AdminOpcode::kSetFeatures}) {
      CHECK(discovery.admin.admin(opcode, number).failed_with(Status::kInvalidField));
    }
  }
}

// Base 5.16
void log_pages() {
  TargetThread target;
  Session session(target.port());
  for (const int page :
       others({LogPage::kSupported, LogPage::kError, LogPage::kSmart, LogPage::kFirmware,
               LogPage::kChangedNamespaces, LogPage::kCommandEffects, LogPage::kNamespaceAccess,
               LogPage::kFeatureEffects})) {
    const Outcome outcome = session.admin.log_page(static_cast<LogPage>(page), 64);
    CHECK(outcome.failed_with(Status::kInvalidLogPage) && outcome.do_not_retry);
  }
  Discovery discovery(target.port());
  for (const int page : others({LogPage::kSupported, LogPage::kDiscovery})) {
    CHECK(discovery.admin.log_page(static_cast<LogPage>(page), 64)
              .failed_with(Status::kInvalidLogPage));
  }
}

// Base 5.17
void structures_to_identify() {
  TargetThread target;
  Session session(target.port());
  for (const int cns :
       others({IdentifyCns::kNamespace, IdentifyCns::kController, IdentifyCns::kActiveNamespaces,
               IdentifyCns::kNamespaceDescriptors, IdentifyCns::kCommandSetNamespace,
               IdentifyCns::kCommandSetController, IdentifyCns::kCommandSetActiveNamespaces,
               IdentifyCns::kIndependentNamespace, IdentifyCns::kAllocatedNamespaces,
               IdentifyCns::kAllocatedNamespace, IdentifyCns::kNamespaceControllers,
               IdentifyCns::kSubsystemControllers, IdentifyCns::kCommandSets})) {
    const auto structure = static_cast<IdentifyCns>(cns);
    CHECK(session.admin.identify(structure, 1).failed_with(Status::kInvalidField));
  }
  Discovery discovery(target.port());
  for (const int cns : others({IdentifyCns::kController})) {
    const auto structure = static_cast<IdentifyCns>(cns);
    CHECK(discovery.admin.identify(structure, 1).failed_with(Status::kInvalidField));
  }
}

}  // namespace

int main() {
  admin_opcodes();
  io_opcodes();
  fabrics_types();
  properties();
  features();
  log_pages();
  structures_to_identify();
  return finish("nvme_refusals_test");
}
