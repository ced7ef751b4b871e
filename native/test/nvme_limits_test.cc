// What one peer cannot do to the others: use up the memory, the connections or the descriptors, or
// hold what it has by saying nothing.
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <list>

#include "nvme_session.h"

using namespace pando;
using namespace pando::test;
using nvme::Status;

namespace {

constexpr char kSecondHost[] = "nqn.2014-08.org.nvmexpress:uuid:second";
constexpr uint32_t kMiB = 1 << 20;

nvme::Sqe send_write(Host& host, uint32_t bytes, bool in_capsule) {
  nvme::Sqe sqe = Host::io(nvme::IoOpcode::kWrite, 0, bytes / 4096);
  sqe = Host::describe(sqe, bytes, in_capsule);
  sqe.cid = host.next_cid();
  host.send(host.capsule(sqe, in_capsule ? Bytes(bytes) : Bytes{}));
  return sqe;
}

uint64_t used(TargetThread& target) {
  uint64_t bytes = 0;
  target.on_reactor([&](nvme::Target& t) { bytes = t.budget().used_bytes(); });
  return bytes;
}

void a_host_has_its_share() {
  nvme::TargetOptions options = any_port();
  options.buffer_bytes = 6 * kMiB;
  options.host_buffer_bytes = 4 * kMiB;
  options.connection_buffer_bytes = 4 * kMiB;
  TargetThread target(options);
  // Writes whose data never comes hold what they were given.
  std::list<Session> greedy;
  for (int i = 0; i < 3; ++i) {
    greedy.emplace_back(target.port());
    for (int c = 0; c < 4; ++c) send_write(greedy.back().io, kMiB, false);
  }
  CHECK(target.eventually([](nvme::Target& t) { return t.budget().used_bytes() == 4 * kMiB; }));
  Session other(target.port(), {}, kVolumeNqn, 0, 128, 0, kSecondHost);
  const Bytes data = pattern(kMiB, 3);
  CHECK(other.io.write(0, data, false).ok());
  const Outcome back = other.io.read(0, 256);
  CHECK(back.ok() && back.data == data);
  // The greedy host's admin queues work: what they move is little.
  CHECK(greedy.back().admin.admin(nvme::AdminOpcode::kKeepAlive).ok());
  CHECK(used(target) == 4 * kMiB);
  greedy.clear();
  CHECK(target.eventually([](nvme::Target& t) { return t.budget().used_bytes() == 0; }));
}

void who_waits_gets_its_turn() {
  nvme::TargetOptions options = any_port();
  options.buffer_bytes = options.host_buffer_bytes = 2 * kMiB;
  TargetThread target(options);
  Session first(target.port());
  Session second(target.port(), {}, kVolumeNqn, 0, 128, 0, kSecondHost);
  target.on_reactor([&](auto&) { target.volume->delay_ms = 5; });
  const auto load = [](Host& host) {
    for (int i = 0; i < 40; ++i) {
      CHECK(host.read(0, 256).ok());
      CHECK(host.write(0, Bytes(16384), true).ok());
    }
  };
  std::thread one([&] { load(first.io); });
  std::thread other([&] { load(second.io); });
  one.join();
  other.join();
  CHECK(used(target) == 0);
}

void capsules_wait_and_nothing_is_lost() {
  nvme::TargetOptions options = any_port();
  options.connection_buffer_bytes = 64 * 1024;
  TargetThread target(options);
  Session session(target.port());
  target.on_reactor([&](auto&) { target.volume->delay_ms = 3; });
  std::vector<uint16_t> ids;
  std::thread sender([&] {  // many times what the connection may hold
    for (int i = 0; i < 100; ++i) ids.push_back(send_write(session.io, 16384, true).cid);
  });
  sender.join();
  for (const uint16_t id : ids) CHECK(session.io.await(id).ok());
}

void who_owes_data_and_says_nothing_is_put_out() {
  nvme::TargetOptions options = any_port();
  options.data_stall_ms = 150;
  TargetThread target(options);
  Session silent(target.port());
  send_write(silent.io, kMiB, false);
  HostPdu r2t;
  CHECK(silent.io.receive(r2t));
  CHECK(silent.io.closed_by_target());
  Session half(target.port());
  nvme::Sqe sqe = Host::describe(Host::io(nvme::IoOpcode::kWrite, 0, 4), 16384, true);
  const Bytes capsule = half.io.capsule(sqe, Bytes(16384));
  half.io.send_bytes(capsule.data(), capsule.size() / 2);
  CHECK(half.io.closed_by_target());
  // A slow one is not put out: something comes all the time.
  Session slow(target.port());
  sqe.cid = 99;
  const Bytes pieces = slow.io.capsule(sqe, Bytes(16384));
  for (size_t at = 0; at < pieces.size(); at += 2048) {
    slow.io.send_bytes(pieces.data() + at, std::min<size_t>(2048, pieces.size() - at));
    std::this_thread::sleep_for(std::chrono::milliseconds(40));
  }
  CHECK(slow.io.await(99).ok());
  CHECK(target.eventually([](nvme::Target& t) { return t.budget().used_bytes() == 0; }));
}

// Base 3.3.1: no more commands than the queue has entries. The data that all of them wait for would
// be behind one that cannot be taken: nothing would ever come, nor would the end be noticed.
void who_fills_its_queue_and_goes_on_is_put_out() {
  nvme::TargetOptions options = any_port();
  options.data_stall_ms = options.connect_timeout_ms = 60'000;
  TargetThread target(options);
  const auto is_put_out = [&](Host& host, int entries, const std::function<void()>& send) {
    for (int i = 0; i < entries; ++i) {
      send();
      HostPdu r2t;
      REQUIRE(host.receive(r2t));
      CHECK(r2t.header.type == static_cast<uint8_t>(nvme::PduType::kR2t));
    }
    send();
    uint16_t error = 0;
    REQUIRE(host.closed_by_target(&error));
    CHECK(error == static_cast<uint16_t>(nvme::FatalError::kSequenceError));
  };
  Session session(target.port(), {}, kVolumeNqn, 0, 4);
  is_put_out(session.io, 4, [&] { send_write(session.io, kMiB, false); });
  Host stranger(target.port());
  REQUIRE(stranger.initialize());
  is_put_out(stranger, 2, [&] {
    nvme::Sqe connect{};
    connect.opcode = nvme::kFabricsOpcode;
    connect.nsid = static_cast<uint8_t>(nvme::FabricsType::kConnect);
    connect = Host::describe(connect, sizeof(nvme::ConnectData), false);
    stranger.send(stranger.capsule(connect));
  });
  // Those that wait for memory which the others hold count too.
  Session greedy(target.port(), {}, kVolumeNqn, 0, 8);
  for (int i = 0; i < 4; ++i) send_write(greedy.io, kMiB, false);
  for (int i = 0; i < 5; ++i) send_write(greedy.io, kMiB, false);
  uint16_t error = 0;
  CHECK(greedy.io.closed_by_target(&error));
  CHECK(error == static_cast<uint16_t>(nvme::FatalError::kSequenceError));
  CHECK(target.eventually([](nvme::Target& t) { return t.budget().used_bytes() == 0; }));
}

void a_host_has_so_many_queues() {
  nvme::TargetOptions options = any_port();
  options.max_host_connections = 3;
  TargetThread target(options);
  Session session(target.port());
  Host third(target.port());
  REQUIRE(third.initialize());
  CHECK(third.connect(kVolumeNqn, 2, session.controller_id).ok());
  Host fourth(target.port());
  REQUIRE(fourth.initialize());
  const Outcome refused = fourth.connect(kVolumeNqn, 3, session.controller_id);
  CHECK(refused.failed_with(Status::kConnectControllerBusy) && !refused.do_not_retry);
  CHECK(fourth.connect(kVolumeNqn, 0).failed_with(Status::kConnectControllerBusy));
  size_t said = 0;
  target.on_reactor([&](auto&) { said = target.exports.refusals.size(); });
  CHECK(said == 2);
  Session other(target.port(), {}, kVolumeNqn, 0, 128, 0, kSecondHost);
  CHECK(other.io.read(0, 1).ok());
  // One that ends makes room for the next.
  ::shutdown(third.fd(), SHUT_RDWR);
  bool accepted = false;
  for (int i = 0; i < 200 && !accepted; ++i) {
    accepted = fourth.connect(kVolumeNqn, 3, session.controller_id).ok();
  }
  CHECK(accepted);
}

// What discovery lists to a host is its memory, for as long as the log may be read on.
void lists_count_as_their_hosts_memory() {
  nvme::TargetOptions options = any_port();
  options.buffer_bytes = 8 * kMiB;
  options.host_buffer_bytes = 2 * kMiB;
  TargetThread target(options);
  target.on_reactor([&](auto&) { target.exports.listed_besides = 10'000; });
  const auto discover = [&](Host& host, const char* name) {
    REQUIRE(host.initialize() && host.connect(nvme::kDiscoveryNqn, 0, 0xFFFF, name).ok());
    REQUIRE(host.enable());
    return host.log_page(nvme::LogPage::kDiscovery, 1024);
  };
  {
    Host first(target.port());
    CHECK(discover(first, kHostNqn).ok());
    const uint64_t held = used(target);
    CHECK(held > kMiB * 3 / 4 && held < 2 * kMiB);
    CHECK(first.log_page(nvme::LogPage::kDiscovery, 1024).ok() && used(target) == held);
    Host second(target.port());
    Outcome refused = discover(second, kHostNqn);
    if (refused.ok()) {  // two of them fit
      Host third(target.port());
      refused = discover(third, kHostNqn);
    }
    CHECK(refused.failed_with(Status::kInternalError) && !refused.do_not_retry);
    Host other(target.port());
    CHECK(discover(other, kSecondHost).ok());
  }
  CHECK(target.eventually([](nvme::Target& t) { return t.budget().used_bytes() == 0; }));
  Host again(target.port());
  CHECK(discover(again, kHostNqn).ok());
}

void strangers_do_not_take_every_place() {
  nvme::TargetOptions options = any_port();
  options.max_fresh_connections = 4;
  options.connect_timeout_ms = 300;
  TargetThread target(options);
  Session session(target.port());
  std::list<Host> strangers;
  for (int i = 0; i < 4; ++i) strangers.emplace_back(target.port());
  CHECK(strangers.back().initialize());
  Host fifth(target.port());
  CHECK(!fifth.initialize());
  CHECK(session.io.read(0, 1).ok());
  for (Host& stranger : strangers) CHECK(stranger.closed_by_target());
  Session late(target.port());
  CHECK(late.io.read(0, 1).ok());
}

void without_descriptors_the_old_live_and_the_new_wait() {
  TargetThread target;
  Session session(target.port());
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  const int first = socket(AF_INET, SOCK_STREAM, 0);
  const int second = socket(AF_INET, SOCK_STREAM, 0);
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(second) + 1;
  REQUIRE(first >= 0 && second >= 0 && setrlimit(RLIMIT_NOFILE, &none) == 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(target.port());
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const nvme::IcPdu request = Host::ic_request({});
  // An accept that is under way has the limit of before: the first one gets in.
  for (const int fd : {first, second}) {
    CHECK(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    CHECK(::send(fd, &request, sizeof(request), MSG_NOSIGNAL) == sizeof(request));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(250));
  char byte = 0;
  CHECK(::recv(second, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
  CHECK(session.io.read(0, 1).ok());
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
  pollfd answer{second, POLLIN, 0};
  while (poll(&answer, 1, 3000) < 0 && errno == EINTR) {
  }
  CHECK((answer.revents & POLLIN) != 0);
  ::close(first);
  ::close(second);
}

// In a process of its own, since what is given up cannot be had back.
void an_ordinary_user_can_serve() {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const rlimit locked{8 * kMiB, 8 * kMiB};
    bool fine = setrlimit(RLIMIT_MEMLOCK, &locked) == 0;
    if (geteuid() == 0) fine = fine && setgid(65534) == 0 && setuid(65534) == 0;
    {
      TargetThread target;
      Session session(target.port());
      const Bytes data = pattern(kMiB, 9);
      fine = fine && session.io.write(0, data, false).ok() && session.io.read(0, 256).data == data;
    }
    _exit(fine ? 0 : 1);
  }
  int status = -1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void a_flood_does_not_stall_another() {
  TargetThread target;
  Session witness(target.port(), {}, kOtherNqn);
  CHECK(witness.io.read(0, 1).ok());
  std::atomic<bool> done = false;
  std::thread flood([&] {
    Session loud(target.port());
    nvme::Sqe sqe = Host::describe(Host::io(nvme::IoOpcode::kRead, 0, 1), 4096, false);
    Bytes capsules;
    for (int i = 0; i < 64; ++i) {
      sqe.cid = static_cast<uint16_t>(i);
      const Bytes one = loud.io.capsule(sqe);
      capsules.insert(capsules.end(), one.begin(), one.end());
    }
    Bytes sink(1 << 18);
    while (!done) {
      loud.io.send(capsules);
      while (::recv(loud.io.fd(), sink.data(), sink.size(), MSG_DONTWAIT) > 0) {
      }
    }
  });
  std::vector<int64_t> waits;
  for (int i = 0; i < 200; ++i) {
    const auto start = std::chrono::steady_clock::now();
    CHECK(witness.io.read(0, 1).ok());
    const auto waited = std::chrono::steady_clock::now() - start;
    waits.push_back(std::chrono::duration_cast<std::chrono::milliseconds>(waited).count());
  }
  done = true;
  flood.join();
  std::ranges::sort(waits);
  CHECK(waits[waits.size() / 2] < 100);
}

}  // namespace

int main() {
  an_ordinary_user_can_serve();
  a_host_has_its_share();
  who_waits_gets_its_turn();
  capsules_wait_and_nothing_is_lost();
  who_owes_data_and_says_nothing_is_put_out();
  who_fills_its_queue_and_goes_on_is_put_out();
  a_host_has_so_many_queues();
  lists_count_as_their_hosts_memory();
  strangers_do_not_take_every_place();
  without_descriptors_the_old_live_and_the_new_wait();
  a_flood_does_not_stall_another();
  return finish("nvme_limits_test");
}
