// Sessions from their beginning to their end: Connect, discovery, keep alive, hosts that vanish,
// and what a target refuses to start with.
#include "nvme_session.h"

#include <cstring>

using namespace pando;
using namespace pando::test;
using nvme::AdminOpcode;
using nvme::IdentifyCns;
using nvme::LogPage;
using nvme::Property;
using nvme::Status;

namespace {

constexpr uint32_t kInData = 1 << 16;

void connects() {
  TargetThread target;
  {
    Session session(target.port());
    CHECK(target.open_volumes() == 1);
    Host second(target.port());
    CHECK(second.initialize());
    CHECK(second.connect(kVolumeNqn, 2, session.controller_id).ok());
    CHECK(second.read(0, 1).ok());
    // A second controller of the same host holds the volume open too.
    Session other(target.port());
    CHECK(other.controller_id != session.controller_id);
    CHECK(target.open_volumes() == 2);
    std::vector<nvme::Session> sessions;
    target.on_reactor([&](nvme::Target& t) { sessions = t.sessions(); });
    CHECK(sessions.size() == 2 && sessions[0].host_nqn == kHostNqn);
    CHECK(sessions[0].io_queues == 2 && sessions[1].io_queues == 1);
  }
  CHECK(target.eventually([&](auto&) { return target.exports.open_count == 0; }));
}

void refuses_connects() {
  nvme::TargetOptions options = any_port();
  options.max_io_queues = 4;
  TargetThread target(options);
  Session session(target.port());
  const auto attempt = [&](auto connect) {
    Host host(target.port());
    REQUIRE(host.initialize());
    return connect(host);
  };
  const auto refused = [&](const Outcome& outcome, Status status, uint64_t result) {
    return outcome.failed_with(status) && outcome.result == result;
  };
  CHECK(refused(attempt([](Host& h) { return h.connect("nqn.2026-01.io.pando:volume:none", 0); }),
                Status::kConnectInvalidParameters, 256 | kInData));
  CHECK(refused(attempt([](Host& h) { return h.connect("volume", 0); }),
                Status::kConnectInvalidParameters, 256 | kInData));
  CHECK(refused(attempt([](Host& h) { return h.connect(std::string(300, 'n'), 0); }),
                Status::kConnectInvalidParameters, 256 | kInData));
  CHECK(refused(attempt([](Host& h) { return h.connect(kVolumeNqn, 0, 0xFFFF, ""); }),
                Status::kConnectInvalidParameters, 512 | kInData));
  CHECK(refused(attempt([](Host& h) { return h.connect(kVolumeNqn, 0, 5); }),
                Status::kConnectInvalidParameters, 16 | kInData));
  CHECK(refused(attempt([](Host& h) { return h.connect(kVolumeNqn, 0, 0xFFFF, kHostNqn, 0, 1); }),
                Status::kConnectInvalidParameters, 44));
  CHECK(refused(attempt([](Host& h) { return h.connect(kVolumeNqn, 0, 0xFFFF, kHostNqn, 0, 129); }),
                Status::kConnectInvalidParameters, 44));
  const uint16_t id = session.controller_id;
  CHECK(refused(attempt([&](Host& h) { return h.connect(kVolumeNqn, 1, 999); }),
                Status::kConnectInvalidParameters, 16 | kInData));
  CHECK(refused(attempt([&](Host& h) { return h.connect(kOtherNqn, 2, id); }),
                Status::kConnectInvalidParameters, 256 | kInData));
  CHECK(refused(attempt([&](Host& h) { return h.connect(kVolumeNqn, 2, id, "nqn.other"); }),
                Status::kConnectInvalidParameters, 512 | kInData));
  CHECK(refused(attempt([&](Host& h) { return h.connect(kVolumeNqn, 5, id); }),
                Status::kConnectInvalidParameters, 42));
  CHECK(attempt([&](Host& h) {
          return h.connect(kVolumeNqn, 1, id);
        }).failed_with(Status::kCommandSequenceError));  // the queue exists
  CHECK(attempt([&](Host& h) {
          nvme::ConnectData data{};
          data.controller_id = id;
          std::memcpy(data.subsystem_nqn, kVolumeNqn, sizeof(kVolumeNqn));
          std::memcpy(data.host_nqn, kHostNqn, sizeof(kHostNqn));
          return h.connect_with(data, 2, 0, 32, 0);  // another host identifier
        }).failed_with(Status::kConnectInvalidParameters));
  CHECK(attempt([&](Host& h) {
          nvme::Sqe sqe{};
          sqe.opcode = nvme::kFabricsOpcode;
          sqe.nsid = 1;
          sqe.cdw10 = 1;  // record format
          sqe.cdw11 = 31;
          return h.run(sqe, 0, Bytes(1024), true);
        }).failed_with(Status::kConnectIncompatibleFormat));
  CHECK(attempt([&](Host& h) {
          nvme::Sqe sqe{};
          sqe.opcode = nvme::kFabricsOpcode;
          sqe.nsid = 1;
          sqe.cdw11 = 31;
          return h.run(sqe, 0, Bytes(512), true);
        }).failed_with(Status::kDataSglLengthInvalid));

  target.on_reactor([&](auto&) { target.exports.denied_hosts.insert("nqn.denied"); });
  const Outcome denied =
      attempt([](Host& h) { return h.connect(kVolumeNqn, 0, 0xFFFF, "nqn.denied"); });
  CHECK(denied.failed_with(Status::kConnectInvalidHost) && denied.do_not_retry);
  target.on_reactor([&](auto&) { target.exports.busy = true; });
  const Outcome busy = attempt([](Host& h) { return h.connect(kVolumeNqn, 0); });
  CHECK(busy.failed_with(Status::kConnectControllerBusy) && !busy.do_not_retry);
  target.on_reactor([&](auto&) {
    target.exports.busy = false;
    target.exports.broken = true;
  });
  const Outcome broken = attempt([](Host& h) { return h.connect(kVolumeNqn, 0); });
  CHECK(broken.failed_with(Status::kInternalError) && !broken.do_not_retry);
  CHECK(target.open_volumes() == 1);
  CHECK(session.io.read(0, 1).ok());
}

/// A Connect whose data the target has to ask for; its transfer tag.
uint16_t ask_to_connect(Host& host, uint16_t cid) {
  nvme::Sqe sqe{};
  sqe.opcode = nvme::kFabricsOpcode;
  sqe.nsid = static_cast<uint8_t>(nvme::FabricsType::kConnect);
  sqe.cdw11 = 31;
  sqe = Host::describe(sqe, sizeof(nvme::ConnectData), false);
  sqe.cid = cid;
  host.send(host.capsule(sqe));
  HostPdu pdu;
  REQUIRE(host.receive(pdu));
  nvme::R2tPdu r2t;
  REQUIRE(pdu.header_bytes.size() == sizeof(r2t));
  std::memcpy(&r2t, pdu.header_bytes.data(), sizeof(r2t));
  CHECK(r2t.header.type == static_cast<uint8_t>(nvme::PduType::kR2t) && r2t.cid == cid);
  return r2t.tag;
}

// Fabrics 3.3: one Connect makes one queue, however many are sent before the first has its data.
void connects_once() {
  for (const bool discovery : {true, false}) {
    TargetThread target;
    target.on_reactor([&](auto&) { target.exports.open_delay_ms = 20; });
    Host host(target.port());
    REQUIRE(host.initialize());
    nvme::ConnectData data{};
    data.controller_id = 0xFFFF;
    const std::string subsystem = discovery ? nvme::kDiscoveryNqn : kVolumeNqn;
    std::memcpy(data.subsystem_nqn, subsystem.data(), subsystem.size());
    std::memcpy(data.host_nqn, kHostNqn, sizeof(kHostNqn));
    Bytes bytes(sizeof(data));
    std::memcpy(bytes.data(), &data, sizeof(data));
    const uint16_t first = ask_to_connect(host, 1);
    const uint16_t second = ask_to_connect(host, 2);
    host.send(host.h2c_data(1, first, 0, bytes, true));
    host.send(host.h2c_data(2, second, 0, bytes, true));
    int connected = 0;
    for (int i = 0; i < 2; ++i) {
      HostPdu pdu;
      nvme::CapsuleRespPdu response{};
      REQUIRE(host.receive(pdu) && pdu.header_bytes.size() == sizeof(response));
      std::memcpy(&response, pdu.header_bytes.data(), sizeof(response));
      const auto status = static_cast<Status>((response.cqe.status >> 1) & 0x7FF);
      CHECK(status == Status::kSuccess || status == Status::kCommandSequenceError);
      connected += status == Status::kSuccess ? 1 : 0;
    }
    CHECK(connected == 1 && target.open_volumes() == (discovery ? 0 : 1));
    CHECK(host.enable());
  }
}

// A fault while the control plane is being asked: what it says comes too late to be used.
void faults_while_it_connects() {
  TargetThread target;
  target.on_reactor([&](auto&) { target.exports.open_delay_ms = 50; });
  Host host(target.port());
  REQUIRE(host.initialize());
  nvme::ConnectData data{};
  data.controller_id = 0xFFFF;
  std::memcpy(data.subsystem_nqn, kVolumeNqn, sizeof(kVolumeNqn));
  std::memcpy(data.host_nqn, kHostNqn, sizeof(kHostNqn));
  Bytes bytes(sizeof(data));
  std::memcpy(bytes.data(), &data, sizeof(data));
  nvme::Sqe sqe{};
  sqe.opcode = nvme::kFabricsOpcode;
  sqe.nsid = static_cast<uint8_t>(nvme::FabricsType::kConnect);
  sqe.cdw11 = 31;
  host.send(host.capsule(Host::describe(sqe, bytes.size(), true), bytes));
  CHECK(target.eventually([&](auto&) { return target.exports.open_count == 1; }));
  const nvme::PduHeader unknown{0x55, 0, 24, 0, 24};
  host.send_bytes(&unknown, sizeof(unknown));
  uint16_t error = 0;
  CHECK(host.closed_by_target(&error));
  CHECK(error == static_cast<uint16_t>(nvme::FatalError::kInvalidHeaderField));
  CHECK(target.eventually([&](auto&) { return target.exports.open_count == 0; }));
}

void connects_in_order_only() {
  TargetThread target;
  Host host(target.port());
  REQUIRE(host.initialize());
  CHECK(host.admin(AdminOpcode::kKeepAlive).failed_with(Status::kCommandSequenceError));
  CHECK(host.property_get(Property::kStatus).failed_with(Status::kCommandSequenceError));
  const Outcome connected = host.connect(kVolumeNqn, 0);
  CHECK(connected.ok());
  CHECK(host.connect(kVolumeNqn, 0).failed_with(Status::kCommandSequenceError));
  // Before CC.EN there are only fabrics commands, and no I/O queues.
  CHECK(host.identify(IdentifyCns::kController).failed_with(Status::kCommandSequenceError));
  Host io(target.port());
  REQUIRE(io.initialize());
  const auto id = static_cast<uint16_t>(connected.result);
  CHECK(io.connect(kVolumeNqn, 1, id).failed_with(Status::kCommandSequenceError));
  CHECK(host.enable());
  CHECK(io.connect(kVolumeNqn, 1, id).ok());
  CHECK(io.property_get(Property::kStatus).failed_with(Status::kInvalidOpcode));
}

void keep_alive() {
  nvme::TargetOptions options = any_port();
  options.keep_alive_granularity_ms = 100;
  options.discovery_idle_ms = 300;
  TargetThread target(options);
  Host host(target.port());
  REQUIRE(host.initialize() && host.connect(kVolumeNqn, 0, 0xFFFF, kHostNqn, 300).ok());
  REQUIRE(host.enable());
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    CHECK(host.admin(AdminOpcode::kKeepAlive).ok());
  }
  CHECK(target.open_volumes() == 1);
  const auto start = std::chrono::steady_clock::now();
  CHECK(host.closed_by_target());
  const auto waited = std::chrono::steady_clock::now() - start;
  CHECK(waited > std::chrono::milliseconds(250) && waited < std::chrono::seconds(2));
  CHECK(target.eventually([&](auto&) { return target.exports.open_count == 0; }));

  Host discovery(target.port());  // no keep alive: it lives for its fixed time
  REQUIRE(discovery.initialize() && discovery.connect(nvme::kDiscoveryNqn, 0).ok());
  CHECK(discovery.closed_by_target());
}

void discovery() {
  nvme::TargetOptions options = any_port();
  options.advertised = {{"192.0.2.7", 4420}};
  TargetThread target(options);
  Host host(target.port());
  REQUIRE(host.initialize());
  REQUIRE(host.connect(nvme::kDiscoveryNqn, 0, 0xFFFF, kHostNqn, 5000).ok() && host.enable());
  const auto controller = as<nvme::IdentifyController>(host.identify(IdentifyCns::kController));
  CHECK(controller.controller_type == 2 && controller.namespaces == 0 &&
        controller.oaes == 1u << 31);
  CHECK(std::strcmp(controller.subsystem_nqn, nvme::kDiscoveryNqn) == 0);
  CHECK(host.identify(IdentifyCns::kNamespace, 1).failed_with(Status::kInvalidField));
  CHECK(host.log_page(LogPage::kSmart, 512).failed_with(Status::kInvalidLogPage));

  const auto header = as<nvme::DiscoveryHeader>(host.log_page(LogPage::kDiscovery, 1024));
  CHECK(header.records == 2 && header.format == 0);
  const Outcome whole = host.log_page(LogPage::kDiscovery, 3072);
  nvme::DiscoveryEntry entry;
  std::memcpy(&entry, whole.data.data() + 1024, sizeof(entry));
  CHECK(entry.transport == 3 && entry.family == 1 && entry.subsystem_type == 2);
  CHECK(std::strcmp(entry.service, "4420") == 0 && std::strcmp(entry.address, "192.0.2.7") == 0);
  CHECK(std::strcmp(entry.subsystem_nqn, kVolumeNqn) == 0 && entry.controller_id == 0xFFFF);
  const Outcome second = host.log_page(LogPage::kDiscovery, 1024, 2048);
  std::memcpy(&entry, second.data.data(), sizeof(entry));
  CHECK(std::strcmp(entry.subsystem_nqn, kOtherNqn) == 0);
  CHECK(host.log_page(LogPage::kDiscovery, 1024, 4096).failed_with(Status::kInvalidField));
  CHECK(host.admin(AdminOpcode::kKeepAlive).ok());

  // Told of changes, and the generation is another.
  CHECK(host.admin(AdminOpcode::kSetFeatures, 0x0B, 1u << 31).ok());
  nvme::Sqe sqe{};
  sqe.opcode = static_cast<uint8_t>(AdminOpcode::kAsyncEventRequest);
  sqe = Host::describe(sqe, 0, false);
  sqe.cid = host.next_cid();
  host.send(host.capsule(sqe));
  CHECK(host.admin(AdminOpcode::kKeepAlive).ok());
  target.on_reactor([&](nvme::Target& t) {
    target.exports.volumes.erase(kOtherNqn);
    t.exports_changed({kHostNqn});
  });
  CHECK(host.await(sqe.cid).result == 0x70F002);
  const auto after = as<nvme::DiscoveryHeader>(host.log_page(LogPage::kDiscovery, 1024));
  CHECK(after.records == 1 && after.generation != header.generation);

  // A host sees what it may connect to, at the address that it came to.
  target.on_reactor([&](auto&) { target.exports.denied_hosts.insert("nqn.stranger"); });
  Host stranger(target.port());
  REQUIRE(stranger.initialize());
  REQUIRE(stranger.connect(nvme::kDiscoveryNqn, 0, 0xFFFF, "nqn.stranger").ok() &&
          stranger.enable());
  CHECK(as<nvme::DiscoveryHeader>(stranger.log_page(LogPage::kDiscovery, 1024)).records == 0);
  Host io(target.port());
  REQUIRE(io.initialize());
  CHECK(io.connect(nvme::kDiscoveryNqn, 1, 1).failed_with(Status::kConnectInvalidParameters));
}

void discovery_without_advertised_address() {
  TargetThread target;
  Host host(target.port());
  REQUIRE(host.initialize() && host.connect(nvme::kDiscoveryNqn, 0).ok() && host.enable());
  const Outcome log = host.log_page(LogPage::kDiscovery, 2048);
  nvme::DiscoveryEntry entry;
  std::memcpy(&entry, log.data.data() + 1024, sizeof(entry));
  CHECK(std::strcmp(entry.address, "127.0.0.1") == 0);
  CHECK(std::atoi(entry.service) == target.port());
}

void hosts_that_vanish() {
  TargetThread target;
  target.on_reactor([&](auto&) { target.volume->delay_ms = 50; });
  for (int i = 0; i < 20; ++i) {  // with commands in flight, and one in the middle of its data
    Session session(target.port());
    for (int c = 0; c < 8; ++c) {
      nvme::Sqe sqe = Host::describe(Host::io(nvme::IoOpcode::kRead, 0, 8), 8 * 4096, false);
      sqe.cid = session.io.next_cid();
      session.io.send(session.io.capsule(sqe));
    }
    nvme::Sqe sqe = Host::describe(Host::io(nvme::IoOpcode::kWrite, 0, 2), 8192, true);
    const Bytes capsule = session.io.capsule(sqe, Bytes(8192));
    session.io.send_bytes(capsule.data(), capsule.size() / 2);
  }
  CHECK(target.eventually([&](auto&) { return target.exports.open_count == 0; }));
  CHECK(target.eventually(
      [&](nvme::Target& t) { return t.reactor().buffers().in_use_bytes() == 0; }));
}

void limits_connections() {
  nvme::TargetOptions options = any_port();
  options.max_connections = 3;
  TargetThread target(options);
  Session session(target.port());
  Host third(target.port());
  CHECK(third.initialize());
  Host fourth(target.port());
  CHECK(!fourth.initialize());
  CHECK(session.io.read(0, 1).ok());
}

void refuses_bad_options() {
  Reactor reactor;
  FakeExports exports(reactor);
  const auto message = [&](nvme::TargetOptions options) -> std::string {
    try {
      nvme::Target target(reactor, exports, options);
      target.start();
      bool stopped = false;
      target.stop([&] { stopped = true; });
      while (!stopped) reactor.turn(1000);
      return "";
    } catch (const std::exception& error) {
      return error.what();
    }
  };
  CHECK(message(any_port()).empty());
  nvme::TargetOptions options = any_port();
  options.listen[0].address = "localhost";
  CHECK(message(options).find("not a numeric address: localhost") != std::string::npos);
  options.listen[0].address = "192.0.2.1";
  CHECK(message(options).find("cannot listen on 192.0.2.1 port 0") != std::string::npos);
  options = any_port();
  options.max_data_bytes = 5000;
  CHECK(message(options).find("max_data_bytes") != std::string::npos);
  TargetThread other;
  options = any_port();
  options.listen[0].port = other.port();
  CHECK(message(options).find("Address already in use") != std::string::npos);
}

}  // namespace

int main() {
  connects();
  refuses_connects();
  connects_once();
  faults_while_it_connects();
  connects_in_order_only();
  keep_alive();
  discovery();
  discovery_without_advertised_address();
  hosts_that_vanish();
  limits_connections();
  refuses_bad_options();
  return finish("nvme_session_test");
}
