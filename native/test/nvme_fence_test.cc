// Fencing: a host is put out at once, and the report comes when nothing of it runs any more. Two
// hosts on one volume, and who is told that discovery lists something else.
#include <atomic>

#include "nvme_session.h"

using namespace pando;
using namespace pando::test;
using nvme::AdminOpcode;
using nvme::Status;

namespace {

constexpr char kSecondHost[] = "nqn.2014-08.org.nvmexpress:uuid:second";

/// A fence under way.
struct Fence {
  Fence(TargetThread& target, const std::string& subsystem, const std::string& host) {
    target.on_reactor([&](nvme::Target& t) {
      t.disconnect(subsystem, host, [this](nvme::FenceReport got) {
        report = got;
        reported = true;
      });
    });
  }
  bool wait() {
    for (int i = 0; i < 500 && !reported; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return reported;
  }

  nvme::FenceReport report;
  std::atomic<bool> reported = false;
};

void fences_one_host_of_one_volume() {
  TargetThread target;
  Session session(target.port());
  Session other(target.port(), {}, kOtherNqn);
  Fence nobody(target, kVolumeNqn, "nqn.somebody");
  CHECK(nobody.wait() && nobody.report.controllers == 0 && nobody.report.ended);
  CHECK(session.io.read(0, 1).ok());

  Fence fence(target, kVolumeNqn, kHostNqn);
  CHECK(session.admin.closed_by_target() && session.io.closed_by_target());
  CHECK(fence.wait() && fence.report.controllers == 1 && fence.report.ended);
  CHECK(target.open_volumes() == 1);
  CHECK(other.io.read(0, 1).ok());
}

void fences_a_connect_under_way() {
  TargetThread target;
  target.on_reactor([&](auto&) { target.exports.open_delay_ms = 200; });
  Host late(target.port());
  REQUIRE(late.initialize());
  bool ended = false;
  std::thread fencing([&] {
    CHECK(target.eventually([&](auto&) { return target.exports.open_count == 1; }));
    Fence fence(target, kVolumeNqn, "");
    ended = fence.wait() && fence.report.ended;
  });
  CHECK(!late.connect(kVolumeNqn, 0).answered);
  fencing.join();
  CHECK(ended);
  CHECK(target.open_volumes() == 0);
}

void reports_when_the_last_request_has_ended() {
  TargetThread target;
  Session session(target.port());
  uint64_t writes = 0;
  target.on_reactor([&](auto&) {
    target.volume->delay_ms = 400;
    writes = target.volume->finished;
  });
  nvme::Sqe sqe = Host::describe(Host::io(nvme::IoOpcode::kWrite, 0, 1), 4096, true);
  session.io.send(session.io.capsule(sqe, Bytes(4096)));
  CHECK(target.eventually([&](auto&) { return target.volume->submitted == 1; }));
  Fence fence(target, kVolumeNqn, kHostNqn);
  CHECK(session.io.closed_by_target());
  CHECK(!fence.reported);
  CHECK(fence.wait() && fence.report.ended);
  target.on_reactor([&](auto&) { CHECK(target.volume->finished == writes + 1); });
}

void gives_up_waiting_after_a_time() {
  nvme::TargetOptions options = any_port();
  options.fence_timeout_ms = 50;
  TargetThread target(options);
  Session session(target.port());
  target.on_reactor([&](auto&) { target.volume->delay_ms = 600; });
  nvme::Sqe sqe = Host::describe(Host::io(nvme::IoOpcode::kWrite, 0, 1), 4096, true);
  session.io.send(session.io.capsule(sqe, Bytes(4096)));
  CHECK(target.eventually([&](auto&) { return target.volume->submitted == 1; }));
  Fence fence(target, kVolumeNqn, kHostNqn);
  CHECK(fence.wait() && fence.report.controllers == 1 && !fence.report.ended);
}

void two_hosts_share_a_volume() {
  TargetThread target;
  Session first(target.port());
  Session second(target.port(), {}, kVolumeNqn, 0, 128, 0, kSecondHost);
  const Bytes data = pattern(8192, 7);
  CHECK(first.io.write(4, data, true).ok());
  const Outcome seen = second.io.read(4, 2);
  CHECK(seen.ok() && seen.data == data);
  // Base 8.19: there are no reservations, and nobody is told that there were.
  const auto space =
      as<nvme::IdentifyNamespace>(first.admin.identify(nvme::IdentifyCns::kNamespace, 1));
  CHECK(space.rescap == 0 && space.nmic == 1);
  for (const uint8_t opcode : {0x0D, 0x0E, 0x11, 0x15}) {
    CHECK(first.io.run(Host::io(static_cast<nvme::IoOpcode>(opcode), 0, 1))
              .failed_with(Status::kInvalidOpcode));
  }
  std::vector<nvme::Session> sessions;
  target.on_reactor([&](nvme::Target& t) { sessions = t.sessions(); });
  CHECK(sessions.size() == 2 && sessions[0].host_nqn == kHostNqn);
  CHECK(sessions[1].host_nqn == kSecondHost && sessions[1].connected_ms < 60'000);
  target.on_reactor([&](nvme::Target& t) { sessions = t.sessions(kSecondHost); });
  CHECK(sessions.size() == 1 && sessions[0].host_nqn == kSecondHost);

  Fence fence(target, kVolumeNqn, kHostNqn);
  CHECK(fence.wait() && fence.report.ended && first.io.closed_by_target());
  CHECK(second.io.write(4, pattern(4096, 8), true).ok());
  CHECK(target.open_volumes() == 1);
}

void discovery_news_go_to_whom_they_concern() {
  TargetThread target;
  const auto watch = [&](Host& host, const std::string& nqn) {
    REQUIRE(host.initialize() && host.connect(nvme::kDiscoveryNqn, 0, 0xFFFF, nqn).ok());
    REQUIRE(host.enable());
    REQUIRE(host.admin(AdminOpcode::kSetFeatures, 0x0B, 1u << 31).ok());
    nvme::Sqe sqe{};
    sqe.opcode = static_cast<uint8_t>(AdminOpcode::kAsyncEventRequest);
    sqe = Host::describe(sqe, 0, false);
    sqe.cid = host.next_cid();
    host.send(host.capsule(sqe));
    return sqe.cid;
  };
  Host first(target.port());
  Host second(target.port());
  const uint16_t first_event = watch(first, kHostNqn);
  const uint16_t second_event = watch(second, kSecondHost);
  target.on_reactor([](nvme::Target& t) { t.exports_changed({kSecondHost}); });
  CHECK(second.await(second_event).result == 0x70F002);
  CHECK(first.admin(AdminOpcode::kKeepAlive).ok());  // and no event before its answer
  target.on_reactor([](nvme::Target& t) { t.exports_changed({"nqn.x", kHostNqn}); });
  CHECK(first.await(first_event).result == 0x70F002);
}

}  // namespace

int main() {
  fences_one_host_of_one_volume();
  fences_a_connect_under_way();
  reports_when_the_last_request_has_ended();
  gives_up_waiting_after_a_time();
  two_hosts_share_a_volume();
  discovery_news_go_to_whom_they_concern();
  return finish("nvme_fence_test");
}
