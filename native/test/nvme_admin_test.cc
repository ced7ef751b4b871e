// What a controller says of itself and its namespace: properties, Identify, features, log pages,
// events.
#include <cstring>

#include "nvme_session.h"

using namespace pando;
using namespace pando::test;
using nvme::AdminOpcode;
using nvme::Feature;
using nvme::IdentifyCns;
using nvme::LogPage;
using nvme::Property;
using nvme::Status;

namespace {

void properties() {
  TargetThread target;
  Session session(target.port());
  Host& admin = session.admin;
  const uint64_t cap = admin.property_get(Property::kCapabilities, true).result;
  CHECK((cap & 0xFFFF) == 127 && (cap >> 16 & 1) == 1 && (cap >> 37 & 1) == 1);
  CHECK(admin.property_get(Property::kVersion).result == 0x20000);
  CHECK(admin.property_get(Property::kConfiguration).result == Host::kEnable);
  CHECK(admin.property_get(Property::kReadyTimeouts).ok());
  CHECK(admin.property_get(Property::kCapabilities).failed_with(Status::kInvalidField));
  CHECK(admin.property_get(Property::kStatus, true).failed_with(Status::kInvalidField));
  CHECK(admin.property_get(static_cast<Property>(0x24)).failed_with(Status::kInvalidField));
  CHECK(admin.property_set(Property::kStatus, 0).failed_with(Status::kInvalidField));

  // Shutdown makes what was written durable.
  uint64_t flushes = 0;
  CHECK(admin.property_set(Property::kConfiguration, Host::kEnable | 1 << 14).ok());
  CHECK((admin.property_get(Property::kStatus).result & 0xC) == 8);
  target.on_reactor([&](auto&) { flushes = target.volume->flushes; });
  CHECK(flushes == 1);

  // Reset ends the I/O queues; the admin queue can enable again.
  nvme::Sqe event{};
  event.opcode = static_cast<uint8_t>(AdminOpcode::kAsyncEventRequest);
  event = Host::describe(event, 0, false);
  event.cid = admin.next_cid();
  admin.send(admin.capsule(event));
  nvme::Sqe disable{};
  disable.opcode = nvme::kFabricsOpcode;
  disable.cdw11 = static_cast<uint32_t>(Property::kConfiguration);
  disable = Host::describe(disable, 0, false);
  disable.cid = admin.next_cid();
  admin.send(admin.capsule(disable));
  CHECK(admin.await(event.cid).failed_with(Status::kAbortRequested));
  CHECK(admin.await(disable.cid).ok());
  CHECK((admin.property_get(Property::kStatus).result & 1) == 0);
  CHECK(session.io.closed_by_target());
  CHECK(admin.enable());
  // A configuration that we do not have: fatal status, not ready.
  CHECK(admin.property_set(Property::kConfiguration, 0).ok());
  CHECK(admin.property_set(Property::kConfiguration, Host::kEnable | 7 << 4).ok());
  CHECK((admin.property_get(Property::kStatus).result & 3) == 2);
}

// Base 3.6.1: a shutdown that was taken back and asked for again is complete when a flush is that
// began after it.
void shuts_down_twice() {
  TargetThread target;
  Session session(target.port());
  Host& admin = session.admin;
  target.on_reactor([&](auto&) { target.volume->delay_ms = 200; });
  const auto configure = [&](uint32_t shutdown) {
    CHECK(admin.property_set(Property::kConfiguration, Host::kEnable | shutdown << 14).ok());
  };
  configure(1);
  configure(0);
  configure(1);
  while ((admin.property_get(Property::kStatus).result & 0xC) == 4) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  CHECK((admin.property_get(Property::kStatus).result & 0xC) == 8);
  uint64_t flushes = 0;
  target.on_reactor([&](auto&) { flushes = target.volume->flushes; });
  CHECK(flushes == 2);
}

// Base 3.6.2: a shutdown whose flush fails is not complete, and the status says that it will not be
// (Base 3.1.3.6, CFS), until the controller is reset.
void a_shutdown_that_fails_says_so() {
  TargetThread target;
  Session session(target.port());
  Host& admin = session.admin;
  const auto status = [&] { return admin.property_get(Property::kStatus).result & 0xF; };
  target.on_reactor([&](auto&) { target.volume->fail_with = IoStatus::kIoError; });
  CHECK(admin.property_set(Property::kConfiguration, Host::kEnable | 1 << 14).ok());
  CHECK(status() == (1 | 2 | 1 << 2));  // ready, fatal, shutdown occurring
  target.on_reactor([&](auto&) { target.volume->fail_with = IoStatus::kOk; });
  CHECK(admin.property_set(Property::kConfiguration, 0).ok() && status() == 0);
  CHECK(admin.enable());
  CHECK(admin.property_set(Property::kConfiguration, Host::kEnable | 1 << 14).ok());
  CHECK(status() == (1 | 2 << 2));
}

void identifies() {
  TargetThread target;
  Session session(target.port());
  Host& admin = session.admin;
  const auto controller = as<nvme::IdentifyController>(admin.identify(IdentifyCns::kController));
  CHECK(controller.controller_id == session.controller_id);
  CHECK(controller.mdts == 8 && controller.namespaces == 1 && controller.max_commands == 128);
  CHECK(controller.ioccsz * 16 == 64 + 16384 && controller.iorcsz == 1 && controller.icdoff == 0);
  CHECK((controller.sgls & 3) == 1 && (controller.sgls >> 20 & 1) == 1);
  CHECK(controller.keep_alive_support > 0 && controller.sqes == 0x66 && controller.cqes == 0x44);
  CHECK((controller.vwc & 1) == 1 && controller.controller_type == 1);
  CHECK(controller.oncs == (1 << 0 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 7));
  CHECK(std::strcmp(controller.subsystem_nqn, kVolumeNqn) == 0);
  CHECK(std::memcmp(controller.serial, "8f14e45fceea467f9b1a", 20) == 0);
  CHECK(std::memcmp(controller.model, "Pando   ", 8) == 0 && controller.model[39] == ' ');

  const auto space = as<nvme::IdentifyNamespace>(admin.identify(IdentifyCns::kNamespace, 1));
  CHECK(space.size == 4096 && space.capacity == 4096 && space.formats == 0);
  CHECK((space.lba_formats[0] >> 16 & 0xFF) == 12 && space.nsattr == 0);
  const auto& uuid = target.volume->uuid();
  CHECK(std::memcmp(space.nguid, uuid.data(), 16) == 0);
  for (const uint32_t nsid : {0u, 2u, 0xFFFFFFFFu}) {
    CHECK(admin.identify(IdentifyCns::kNamespace, nsid).failed_with(Status::kInvalidNamespace));
  }

  const Outcome list = admin.identify(IdentifyCns::kActiveNamespaces, 0);
  CHECK(as<uint32_t>(list) == 1 && list.data.size() == 4096);
  CHECK(as<uint32_t>(admin.identify(IdentifyCns::kActiveNamespaces, 1)) == 0);
  CHECK(admin.identify(IdentifyCns::kActiveNamespaces, 0xFFFFFFFE)
            .failed_with(Status::kInvalidNamespace));

  const Outcome descriptors = admin.identify(IdentifyCns::kNamespaceDescriptors, 1);
  const uint8_t uuid_header[] = {3, 16, 0, 0};
  const uint8_t nguid_header[] = {2, 16, 0, 0};
  CHECK(std::memcmp(descriptors.data.data(), uuid_header, 4) == 0);
  CHECK(std::memcmp(descriptors.data.data() + 4, uuid.data(), 16) == 0);
  CHECK(std::memcmp(descriptors.data.data() + 20, nguid_header, 4) == 0);
  CHECK(std::memcmp(descriptors.data.data() + 24, uuid.data(), 16) == 0);

  CHECK(admin.identify(IdentifyCns::kCommandSetNamespace, 1).ok());
  CHECK(as<nvme::IdentifyNvmController>(admin.identify(IdentifyCns::kCommandSetController))
            .write_zeroes_limit == 16);
  CHECK(
      as<nvme::IdentifyIndependentNamespace>(admin.identify(IdentifyCns::kIndependentNamespace, 1))
          .nstat == 1);
  CHECK(as<uint32_t>(admin.identify(IdentifyCns::kCommandSetActiveNamespaces)) == 1);
  CHECK(admin.identify(IdentifyCns::kCommandSetController, 0, 2u << 24)
            .failed_with(Status::kInvalidField));
  CHECK(as<uint32_t>(admin.identify(IdentifyCns::kAllocatedNamespaces)) == 1);
  CHECK(admin.identify(IdentifyCns::kAllocatedNamespace, 1).data ==
        admin.identify(IdentifyCns::kNamespace, 1).data);
  CHECK(as<uint64_t>(admin.identify(IdentifyCns::kCommandSets)) == 1);
  const Session second(target.port());
  const Session elsewhere(target.port(), {}, kOtherNqn);
  const auto both = as<std::array<uint16_t, 4>>(admin.identify(IdentifyCns::kSubsystemControllers));
  CHECK(both[0] == 2 && both[1] == session.controller_id && both[2] == second.controller_id);
  const Outcome from_second = admin.admin(
      AdminOpcode::kIdentify,
      static_cast<uint32_t>(IdentifyCns::kNamespaceControllers) | second.controller_id << 16u, 0,
      4096, 1);
  const auto last = as<std::array<uint16_t, 4>>(from_second);
  CHECK(last[0] == 1 && last[1] == second.controller_id && last[2] == 0);
  CHECK(
      admin.identify(IdentifyCns::kNamespaceControllers, 2).failed_with(Status::kInvalidNamespace));
  CHECK(controller.cmic == (1 << 1 | 1 << 3) && controller.access_capabilities == (1 | 1 << 6));
  CHECK(controller.access_groups == 1 && controller.access_group_max == 1);
  CHECK(space.ana_group == 1);
  for (const uint32_t cns : {0x04u, 0x09u, 0x14u, 0x17u, 0xFFu}) {
    CHECK(admin.identify(static_cast<IdentifyCns>(cns), 1).failed_with(Status::kInvalidField));
  }
  CHECK(admin.admin(AdminOpcode::kIdentify, 1, 0, 1024).failed_with(Status::kDataSglLengthInvalid));
  CHECK(admin.admin(static_cast<AdminOpcode>(0x80)).failed_with(Status::kInvalidOpcode));
}

void features() {
  nvme::TargetOptions options = any_port();
  options.max_io_queues = 4;
  TargetThread target(options);
  Host admin(target.port());
  REQUIRE(admin.initialize() && admin.connect(kVolumeNqn, 0).ok() && admin.enable());
  // `also`: the bits of CDW10 above the feature's number.
  const auto set = [&](Feature feature, uint32_t value, uint32_t also = 0) {
    return admin.admin(AdminOpcode::kSetFeatures, static_cast<uint32_t>(feature) | also, value);
  };
  const auto get = [&](Feature feature, uint32_t cdw11 = 0, size_t bytes = 0, uint32_t also = 0) {
    return admin.admin(AdminOpcode::kGetFeatures, static_cast<uint32_t>(feature) | also, cdw11,
                       bytes);
  };
  const auto selected = [&](Feature feature, uint32_t select) {
    return get(feature, 0, 0, select << 8);
  };
  CHECK(set(Feature::kNumberOfQueues, 15 << 16 | 15).result == (3 << 16 | 3));
  CHECK(set(Feature::kNumberOfQueues, 1 << 16 | 2).result == (1 << 16 | 2));
  CHECK(set(Feature::kNumberOfQueues, 0xFFFF).failed_with(Status::kInvalidField));
  CHECK(get(Feature::kNumberOfQueues).result == (3 << 16 | 3));
  CHECK(set(Feature::kAsyncEventConfig, 0x100).ok());
  CHECK(get(Feature::kAsyncEventConfig).result == 0x100);
  CHECK(set(Feature::kKeepAliveTimer, 4500).ok());
  CHECK(get(Feature::kKeepAliveTimer).result == 5000);
  CHECK(set(Feature::kKeepAliveTimer, 0).ok());
  CHECK(set(Feature::kArbitration, 5).ok() && get(Feature::kArbitration).result == 5);
  CHECK(set(Feature::kPowerManagement, 0).ok() && get(Feature::kPowerManagement).result == 0);
  CHECK(set(Feature::kPowerManagement, 1).failed_with(Status::kInvalidField));
  CHECK(get(Feature::kTemperatureThreshold).result == 0xFFFF);
  CHECK(set(Feature::kTemperatureThreshold, 350).ok());
  CHECK(get(Feature::kTemperatureThreshold).result == 350);
  // Base 5.27.1.3: there is one sensor, and no lower limit.
  CHECK(get(Feature::kTemperatureThreshold, 1 << 20).failed_with(Status::kInvalidField));
  CHECK(set(Feature::kTemperatureThreshold, 1 << 16 | 350).failed_with(Status::kInvalidField));
  CHECK(set(Feature::kErrorRecovery, 1).ok() && get(Feature::kErrorRecovery).result == 1);
  CHECK(set(Feature::kWriteAtomicity, 1).ok() && get(Feature::kWriteAtomicity).result == 1);
  CHECK(get(Feature::kVolatileWriteCache).result == 1);
  CHECK(set(Feature::kVolatileWriteCache, 0).ok());
  CHECK(get(Feature::kVolatileWriteCache).result == 0);
  CHECK(set(Feature::kVolatileWriteCache, 1, 1u << 31).failed_with(Status::kFeatureNotSaveable));
  // Base 5.15: the default, what is saved (the same), what can be done with it.
  CHECK(selected(Feature::kVolatileWriteCache, 1).result == 1);
  CHECK(selected(Feature::kVolatileWriteCache, 2).result == 1);
  CHECK(get(Feature::kVolatileWriteCache).result == 0);
  CHECK(selected(Feature::kVolatileWriteCache, 3).result == 4);
  CHECK(selected(Feature::kHostIdentifier, 3).result == 0);
  CHECK(selected(Feature::kVolatileWriteCache, 4).failed_with(Status::kInvalidField));
  CHECK(selected(static_cast<Feature>(0xC0), 3).failed_with(Status::kInvalidField));
  const Outcome host_id = get(Feature::kHostIdentifier, 1, 16);
  CHECK(host_id.ok() && host_id.data == Bytes(16, std::byte{7}));
  CHECK(get(Feature::kHostIdentifier, 0, 8).failed_with(Status::kHostIdInconsistent));
  CHECK(get(Feature::kHostIdentifier, 1, 8).failed_with(Status::kDataSglLengthInvalid));
  CHECK(set(Feature::kHostIdentifier, 1).failed_with(Status::kCommandSequenceError));
  // The queues are there: their number is settled.
  Host io(target.port());
  const auto id = as<nvme::IdentifyController>(admin.identify(IdentifyCns::kController));
  REQUIRE(io.initialize() && io.connect(kVolumeNqn, 1, id.controller_id).ok());
  CHECK(set(Feature::kNumberOfQueues, 0).failed_with(Status::kCommandSequenceError));
}

void log_pages() {
  TargetThread target;
  Session session(target.port());
  Host& admin = session.admin;
  const Bytes data = pattern(8192, 1);
  CHECK(session.io.write(0, data, true).ok() && session.io.read(0, 2).ok());
  const auto smart = as<nvme::SmartLog>(admin.log_page(LogPage::kSmart, 512));
  CHECK(smart.host_reads[0] == 1 && smart.host_writes[0] == 1 && smart.critical_warning == 0);
  CHECK(smart.data_units_read[0] == 1 && smart.available_spare == 100);
  const Outcome firmware = admin.log_page(LogPage::kFirmware, 512);
  CHECK(firmware.ok() && firmware.data[0] == std::byte{1} && firmware.data[8] == std::byte{'1'});
  const Outcome effects = admin.log_page(LogPage::kCommandEffects, 4096);
  const auto table = as<std::array<uint32_t, 512>>(effects);
  CHECK(table[6] == 1 && table[0x18] == 1 && table[0x80] == 0);
  CHECK(table[256 + 1] == 3 && table[256 + 2] == 1 && table[256 + 9] == 3 && table[256 + 4] == 0);
  const auto supported = as<std::array<uint32_t, 256>>(admin.log_page(LogPage::kSupported, 1024));
  CHECK(supported[0] == 1 && supported[2] == 1 && supported[0x70] == 0 && supported[0x0C] == 1 &&
        supported[0x0D] == 0);
  // Pieces are the whole.
  Bytes pieces = admin.log_page(LogPage::kCommandEffects, 1024).data;
  for (const uint64_t offset : {1024u, 2048u, 3072u}) {
    const Bytes piece = admin.log_page(LogPage::kCommandEffects, 1024, offset).data;
    pieces.insert(pieces.end(), piece.begin(), piece.end());
  }
  CHECK(pieces == effects.data);
  CHECK(admin.log_page(LogPage::kCommandEffects, 8192, 4000).ok());  // past the end: zeroes
  CHECK(admin.log_page(LogPage::kSmart, 512, 516).failed_with(Status::kInvalidField));
  CHECK(admin.log_page(LogPage::kSmart, 512, 2).failed_with(Status::kInvalidField));
  CHECK(admin.log_page(LogPage::kSmart, 512, UINT64_MAX - 3).failed_with(Status::kInvalidField));
  CHECK(admin.log_page(LogPage::kDiscovery, 1024).failed_with(Status::kInvalidLogPage));
  CHECK(admin.log_page(static_cast<LogPage>(0x0D), 64).failed_with(Status::kInvalidLogPage));
  CHECK(admin.admin(AdminOpcode::kGetLogPage, 2 | 127 << 16, 0, 256)
            .failed_with(Status::kDataSglLengthInvalid));
}

void access_and_feature_logs() {
  TargetThread target;
  Session session(target.port());
  Host& admin = session.admin;
  const auto access = as<nvme::NamespaceAccessLog>(admin.log_page(LogPage::kNamespaceAccess, 56));
  CHECK(access.groups == 1 && access.group == 1 && access.group_namespaces == 1);
  CHECK(access.group_state == 1 && access.namespace_id == 1);
  // The groups alone (RGO).
  const auto groups = as<nvme::NamespaceAccessLog>(admin.admin(
      AdminOpcode::kGetLogPage, 0x0C | 1 << 8 | 13 << 16, 0, sizeof(nvme::NamespaceAccessLog)));
  CHECK(groups.group == 1 && groups.group_namespaces == 0 && groups.namespace_id == 0);
  const auto features =
      as<std::array<uint32_t, 256>>(admin.log_page(LogPage::kFeatureEffects, 1024));
  CHECK(features[0] == 0 && features[6] == (1 | 1 << 21) && features[0x0F] == (1 | 1 << 21));
  CHECK(features[3] == 0 && features[0x81] != 0);
}

// Base 5.1
void aborts() {
  nvme::TargetOptions options = any_port();
  options.connection_buffer_bytes = 8192;
  TargetThread target(options);
  Session session(target.port());
  Host& admin = session.admin;
  const auto abort = [&](uint16_t queue, uint16_t cid) {
    return admin.admin(AdminOpcode::kAbort, queue | static_cast<uint32_t>(cid) << 16);
  };
  CHECK(abort(1, 4711).ok() && abort(1, 4711).result == 1);
  CHECK(abort(9, 1).failed_with(Status::kInvalidField));

  // An event request that waits.
  nvme::Sqe event{};
  event.opcode = static_cast<uint8_t>(AdminOpcode::kAsyncEventRequest);
  event = Host::describe(event, 0, false);
  event.cid = admin.next_cid();
  admin.send(admin.capsule(event));
  nvme::Sqe request{};
  request.opcode = static_cast<uint8_t>(AdminOpcode::kAbort);
  request.cdw10 = static_cast<uint32_t>(event.cid) << 16;
  request = Host::describe(request, 0, false);
  request.cid = admin.next_cid();
  admin.send(admin.capsule(request));
  CHECK(admin.await(event.cid).failed_with(Status::kAbortRequested));
  const Outcome done = admin.await(request.cid);
  CHECK(done.ok() && done.result == 0);

  // Of two reads, one runs, and the other waits for the first one's buffer.
  target.on_reactor([&](auto&) { target.volume->delay_ms = 300; });
  const auto read = [&] {
    nvme::Sqe sqe = Host::describe(Host::io(nvme::IoOpcode::kRead, 0, 2), 8192, false);
    sqe.cid = session.io.next_cid();
    session.io.send(session.io.capsule(sqe));
    return sqe.cid;
  };
  const uint16_t runs = read();
  CHECK(target.eventually([&](auto&) { return target.volume->submitted == 1; }));
  const uint16_t waits = read();
  Outcome aborted;
  for (int i = 0; i < 100 && (!aborted.ok() || aborted.result != 0); ++i) aborted = abort(1, waits);
  CHECK(aborted.ok() && aborted.result == 0);
  CHECK(abort(1, runs).result == 1);
  const Outcome refused = session.io.await(waits);
  CHECK(refused.failed_with(Status::kAbortRequested) && !refused.do_not_retry);
  CHECK(session.io.await(runs, 8192).ok());
  uint64_t submitted = 0;
  target.on_reactor([&](auto&) { submitted = target.volume->submitted; });
  CHECK(submitted == 1);
}

void events() {
  TargetThread target;
  Session session(target.port());
  Host& admin = session.admin;
  const auto request = [&] {
    nvme::Sqe sqe{};
    sqe.opcode = static_cast<uint8_t>(AdminOpcode::kAsyncEventRequest);
    sqe = Host::describe(sqe, 0, false);
    sqe.cid = admin.next_cid();
    admin.send(admin.capsule(sqe));
    return sqe.cid;
  };
  const auto grow = [&] {
    target.on_reactor([&](nvme::Target& t) {
      target.volume->resize(target.volume->size_bytes() * 2);
      t.volume_changed(target.volume);
    });
  };
  const uint16_t first = request();
  CHECK(admin.admin(AdminOpcode::kKeepAlive).ok());
  grow();  // nobody asked to be told
  CHECK(admin.admin(AdminOpcode::kSetFeatures, 0x0B, 0x100).ok());
  grow();
  const Outcome event = admin.await(first);
  CHECK(event.ok() && event.result == 0x040002);
  const uint16_t second = request();
  grow();  // masked until the log is read
  CHECK(admin.admin(AdminOpcode::kKeepAlive).ok());
  CHECK(as<uint32_t>(admin.log_page(LogPage::kChangedNamespaces, 4096, 0, true)) == 1);
  CHECK(as<uint32_t>(admin.log_page(LogPage::kChangedNamespaces, 4096)) == 1);
  CHECK(as<uint32_t>(admin.log_page(LogPage::kChangedNamespaces, 4096)) == 0);
  CHECK(as<nvme::IdentifyNamespace>(admin.identify(IdentifyCns::kNamespace, 1)).size == 4096 * 8);
  grow();
  CHECK(admin.await(second).result == 0x040002);
  CHECK(session.io.read(4096 * 9, 1).ok());
  // Four may wait, the fifth is refused.
  for (int i = 0; i < 4; ++i) request();
  CHECK(admin.await(request()).failed_with(Status::kAsyncEventLimitExceeded));
}

}  // namespace

int main() {
  properties();
  shuts_down_twice();
  a_shutdown_that_fails_says_so();
  identifies();
  features();
  log_pages();
  events();
  access_and_feature_logs();
  aborts();
  return finish("nvme_admin_test");
}
