// Where the target listens and how it stops listening: several addresses, IPv6, and a stop that
// answers what it has taken.
#include "nvme_session.h"

using namespace pando;
using namespace pando::test;
using nvme::LogPage;
using nvme::Status;

namespace {

bool has_ipv6() {
  const int fd = socket(AF_INET6, SOCK_STREAM, 0);
  sockaddr_in6 name{};
  name.sin6_family = AF_INET6;
  name.sin6_addr = in6addr_loopback;
  const bool has = fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0;
  if (fd >= 0) ::close(fd);
  return has;
}

void listens_in_several_places() {
  nvme::TargetOptions options = any_port();
  options.listen = {{"127.0.0.1", 0}, {"127.0.0.1", 0}};
  TargetThread target(options);
  const auto ports = target.ports();
  REQUIRE(ports.size() == 2 && ports[0] != ports[1]);
  // The queues of one controller may come by different ways.
  Host admin(ports[0]);
  REQUIRE(admin.initialize());
  const Outcome connected = admin.connect(kVolumeNqn, 0);
  REQUIRE(connected.ok() && admin.enable());
  Host io(ports[1]);
  REQUIRE(io.initialize());
  CHECK(io.connect(kVolumeNqn, 1, static_cast<uint16_t>(connected.result)).ok());
  CHECK(io.read(0, 1).ok());
}

void discovery_lists_every_place() {
  nvme::TargetOptions options = any_port();
  options.advertised = {{"192.0.2.7", 4420}, {"fd00::7", 4421}};
  TargetThread target(options);
  Host host(target.port());
  REQUIRE(host.initialize() && host.connect(nvme::kDiscoveryNqn, 0).ok() && host.enable());
  const Outcome log = host.log_page(LogPage::kDiscovery, 1024 * 5);
  CHECK(as<nvme::DiscoveryHeader>(log).records == 4);
  std::array<nvme::DiscoveryEntry, 4> entries;
  REQUIRE(log.data.size() == 1024 * 5);
  std::memcpy(entries.data(), log.data.data() + 1024, sizeof(entries));
  for (size_t i = 0; i < entries.size(); ++i) {
    const bool second = i % 2 == 1;
    CHECK(entries[i].port_id == (second ? 2 : 1) && entries[i].family == (second ? 2 : 1));
    CHECK(std::strcmp(entries[i].address, second ? "fd00::7" : "192.0.2.7") == 0);
    CHECK(std::strcmp(entries[i].service, second ? "4421" : "4420") == 0);
    CHECK(std::strcmp(entries[i].subsystem_nqn, i < 2 ? kVolumeNqn : kOtherNqn) == 0);
  }
  // A piece from the middle is the same list.
  const Outcome piece = host.log_page(LogPage::kDiscovery, 2048, 1024 * 3);
  CHECK(piece.ok() && std::memcmp(piece.data.data(), &entries[2], 2048) == 0);
}

void serves_over_ipv6() {
  if (!has_ipv6()) {
    std::printf("no IPv6 on this machine\n");
    return;
  }
  nvme::TargetOptions options = any_port();
  options.listen = {{"::1", 0}};
  TargetThread target(options);
  Host host(target.port(), true);
  REQUIRE(host.initialize() && host.connect(nvme::kDiscoveryNqn, 0).ok() && host.enable());
  const Outcome log = host.log_page(LogPage::kDiscovery, 2048);
  nvme::DiscoveryEntry entry;
  REQUIRE(log.data.size() == 2048);
  std::memcpy(&entry, log.data.data() + 1024, sizeof(entry));
  CHECK(entry.family == 2 && std::strcmp(entry.address, "::1") == 0);
  Host admin(target.port(), true);
  REQUIRE(admin.initialize() && admin.connect(kVolumeNqn, 0).ok());
  std::vector<nvme::Session> sessions;
  target.on_reactor([&](nvme::Target& t) { sessions = t.sessions(); });
  CHECK(sessions.size() == 1 && sessions[0].peer.starts_with("[::1]:"));
}

void one_bad_place_and_none_is_taken() {
  TargetThread other;
  Reactor reactor;
  FakeExports exports(reactor);
  nvme::TargetOptions options = any_port();
  options.listen = {{"127.0.0.1", 0}, {"127.0.0.1", other.port()}};
  nvme::Target target(reactor, exports, options);
  std::string message;
  try {
    target.start();
  } catch (const std::exception& error) {
    message = error.what();
  }
  CHECK(message.find("cannot listen on 127.0.0.1 port " + std::to_string(other.port())) !=
        std::string::npos);
  CHECK(target.ports().empty());
}

nvme::Sqe send_write(Host& host) {
  nvme::Sqe sqe = Host::describe(Host::io(nvme::IoOpcode::kWrite, 0, 1), 4096, true);
  sqe.cid = host.next_cid();
  host.send(host.capsule(sqe, Bytes(4096)));
  return sqe;
}

void a_stop_answers_what_was_taken() {
  TargetThread target;
  Session session(target.port());
  target.on_reactor([&](auto&) { target.volume->delay_ms = 300; });
  const nvme::Sqe sqe = send_write(session.io);
  CHECK(target.eventually([&](auto&) { return target.volume->submitted == 1; }));
  std::thread stopping([&] { target.stop(); });
  CHECK(session.io.await(sqe.cid).ok());
  CHECK(session.io.closed_by_target());
  CHECK(session.admin.closed_by_target());
  stopping.join();
}

void a_stop_does_not_wait_for_ever() {
  nvme::TargetOptions options = any_port();
  options.drain_timeout_ms = 50;
  TargetThread target(options);
  Session session(target.port());
  target.on_reactor([&](auto&) { target.volume->delay_ms = 500; });
  const nvme::Sqe sqe = send_write(session.io);
  CHECK(target.eventually([&](auto&) { return target.volume->submitted == 1; }));
  target.stop();
  CHECK(!session.io.await(sqe.cid).answered);
}

}  // namespace

int main() {
  listens_in_several_places();
  discovery_lists_every_place();
  serves_over_ipv6();
  one_bad_place_and_none_is_taken();
  a_stop_answers_what_was_taken();
  a_stop_does_not_wait_for_ever();
  return finish("nvme_places_test");
}
