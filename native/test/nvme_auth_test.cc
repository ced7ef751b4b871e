// Authentication as the target sees it (Base 6.1, 6.2, 8.13): which queue has to, what it may do
// before it has, and what happens to one that fails, says nothing, or asks out of turn. What the
// messages say is the control plane's.
#include "nvme_session.h"

using namespace pando;
using namespace pando::test;
using nvme::FabricsType;
using nvme::Property;
using nvme::Status;

namespace {

constexpr uint32_t kProtocol = 0xE9u << 24 | 1 << 16 | 1 << 8;
constexpr uint64_t kRequested = 1 << 17;

nvme::Sqe authentication(FabricsType type, uint32_t length, uint32_t protocol = kProtocol) {
  nvme::Sqe sqe{};
  sqe.opcode = nvme::kFabricsOpcode;
  sqe.nsid = static_cast<uint8_t>(type);
  sqe.cdw10 = protocol;
  sqe.cdw11 = length;
  return sqe;
}

Outcome say(Host& host, const std::string& text) {
  Bytes data(text.size());
  std::memcpy(data.data(), text.data(), text.size());
  const auto length = static_cast<uint32_t>(text.size());
  return host.run(authentication(FabricsType::kAuthenticationSend, length), 0, data, true);
}

Outcome hear(Host& host, uint32_t room = 64) {
  return host.run(authentication(FabricsType::kAuthenticationReceive, room), room);
}

struct Guarded : TargetThread {
  explicit Guarded(nvme::TargetOptions options = any_port()) : TargetThread(std::move(options)) {
    on_reactor([&](auto&) { exports.authenticate_hosts = true; });
  }
};

uint16_t connect_admin(Host& host) {
  REQUIRE(host.initialize());
  const Outcome connected = host.connect(kVolumeNqn, 0);
  REQUIRE(connected.ok() && (connected.result & kRequested) != 0);
  return static_cast<uint16_t>(connected.result);
}

void nothing_before_the_proof() {
  Guarded target;
  Host admin(target.port());
  const uint16_t id = connect_admin(admin);
  const auto locked = [](const Outcome& outcome) {
    return outcome.failed_with(Status::kAuthenticationRequired) && outcome.do_not_retry;
  };
  CHECK(locked(admin.property_get(Property::kCapabilities, true)));
  CHECK(locked(admin.property_set(Property::kConfiguration, Host::kEnable)));
  CHECK(locked(admin.identify(nvme::IdentifyCns::kController)));
  CHECK(say(admin, "yes").ok());
  CHECK(locked(admin.property_get(Property::kStatus)));
  const Outcome answer = hear(admin);
  CHECK(answer.ok() && answer.data.size() == 64 && answer.data[0] == std::byte{'+'});
  CHECK(answer.data[8] == std::byte{0});
  REQUIRE(admin.enable());

  // Each queue by itself.
  Host io(target.port());
  REQUIRE(io.initialize());
  const Outcome connected = io.connect(kVolumeNqn, 1, id);
  CHECK(connected.ok() && connected.result == (id | kRequested));
  CHECK(locked(io.read(0, 1)) && locked(io.write(0, Bytes(4096), true)));
  CHECK(say(io, "yes").ok() && hear(io).ok());
  CHECK(io.read(0, 1).ok());
  std::vector<nvme::Session> sessions;
  target.on_reactor([&](nvme::Target& t) { sessions = t.sessions(); });
  CHECK(sessions.size() == 1 && sessions[0].authenticated);
}

void a_failure_ends_the_queue() {
  Guarded target;
  Host admin(target.port());
  connect_admin(admin);
  CHECK(say(admin, "no").ok());
  const Outcome answer = hear(admin);
  CHECK(answer.ok() && answer.data[0] == std::byte{'-'});
  CHECK(admin.closed_by_target());
  CHECK(target.eventually([&](auto&) {
    return target.exports.open_count == 0 && target.exports.authentications.empty();
  }));
}

void one_that_says_nothing_is_put_out() {
  nvme::TargetOptions options = any_port();
  options.connect_timeout_ms = 200;
  Guarded target(options);
  Host silent(target.port());
  connect_admin(silent);
  // What it does besides does not help it.
  for (int i = 0; i < 40; ++i) {
    if (!silent.property_get(Property::kStatus).answered) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  CHECK(silent.closed_by_target());
  CHECK(target.eventually([&](auto&) { return target.exports.open_count == 0; }));
  // One that has proved itself stays.
  Host good(target.port());
  connect_admin(good);
  REQUIRE(say(good, "yes").ok() && hear(good).ok() && good.enable());
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  CHECK(good.property_get(Property::kStatus).ok());
}

void wrong_commands() {
  Guarded target;
  Host admin(target.port());
  connect_admin(admin);
  const auto send = [&](uint32_t length, uint32_t protocol) {
    return admin.run(authentication(FabricsType::kAuthenticationSend, length, protocol), 0,
                     Bytes(16), true);
  };
  CHECK(send(16, 0xEAu << 24 | 1 << 16 | 1 << 8).failed_with(Status::kInvalidField));
  CHECK(send(16, 0xE9u << 24).failed_with(Status::kInvalidField));
  CHECK(send(0, kProtocol).failed_with(Status::kInvalidField));
  CHECK(send(1 << 20, kProtocol).failed_with(Status::kInvalidField));
  CHECK(send(17, kProtocol).failed_with(Status::kDataSglLengthInvalid));
  CHECK(admin.run(authentication(FabricsType::kAuthenticationReceive, 128), 64)
            .failed_with(Status::kDataSglLengthInvalid));

  // One step at a time.
  target.on_reactor([&](auto&) { target.exports.auth_delay_ms = 300; });
  nvme::Sqe first = Host::describe(authentication(FabricsType::kAuthenticationSend, 3), 3, true);
  first.cid = admin.next_cid();
  Bytes yes(3);
  std::memcpy(yes.data(), "yes", 3);
  admin.send(admin.capsule(first, yes));
  CHECK(hear(admin).failed_with(Status::kCommandSequenceError));
  CHECK(admin.await(first.cid).ok());
  target.on_reactor([&](auto&) { target.exports.auth_delay_ms = 0; });
  // Less room than our message needs ends the queue: the message cannot be had twice.
  CHECK(hear(admin, 4).failed_with(Status::kDataSglLengthInvalid));
  CHECK(admin.closed_by_target());
}

void again_on_a_live_queue() {
  Guarded target;
  Host admin(target.port());
  const uint16_t id = connect_admin(admin);
  REQUIRE(say(admin, "yes").ok() && hear(admin).ok() && admin.enable());
  Host io(target.port());
  REQUIRE(io.initialize() && io.connect(kVolumeNqn, 1, id).ok());
  REQUIRE(say(io, "yes").ok() && hear(io).ok());
  CHECK(say(admin, "yes").ok());
  CHECK(admin.identify(nvme::IdentifyCns::kController).ok());  // it has not stopped being trusted
  CHECK(hear(admin).ok() && io.read(0, 1).ok());
  CHECK(say(admin, "no").ok() && hear(admin).ok());
  CHECK(admin.closed_by_target() && io.closed_by_target());
}

void where_nobody_asks_for_it() {
  TargetThread target;
  Session session(target.port());
  CHECK(say(session.admin, "yes").failed_with(Status::kInvalidOpcode));
  CHECK(hear(session.io).failed_with(Status::kInvalidOpcode));
  std::vector<nvme::Session> sessions;
  target.on_reactor([&](nvme::Target& t) { sessions = t.sessions(); });
  CHECK(sessions.size() == 1 && !sessions[0].authenticated);
  Host fresh(target.port());
  REQUIRE(fresh.initialize());
  CHECK(say(fresh, "yes").failed_with(Status::kCommandSequenceError));
}

void a_host_that_vanishes_in_the_middle() {
  Guarded target;
  target.on_reactor([&](auto&) { target.exports.auth_delay_ms = 150; });
  {
    Host admin(target.port());
    connect_admin(admin);
    nvme::Sqe sqe = Host::describe(authentication(FabricsType::kAuthenticationSend, 3), 3, true);
    sqe.cid = admin.next_cid();
    admin.send(admin.capsule(sqe, Bytes(3)));
    CHECK(target.eventually([&](auto&) { return target.exports.authentications.size() == 1; }));
  }
  CHECK(target.eventually([&](auto&) {
    return target.exports.open_count == 0 && target.exports.authentications.empty();
  }));
}

}  // namespace

int main() {
  nothing_before_the_proof();
  a_failure_ends_the_queue();
  one_that_says_nothing_is_put_out();
  wrong_commands();
  again_on_a_live_queue();
  where_nobody_asks_for_it();
  a_host_that_vanishes_in_the_middle();
  return finish("nvme_auth_test");
}
