// The server against clients that leave, stall, flood and talk nonsense, and its own life: start,
// disconnect, stop. Whatever one client does, another is served meanwhile.
#include <sys/stat.h>

#include <fstream>
#include <random>
#include <system_error>

#include "nbd_client.h"

namespace {

using namespace pando;
using namespace pando::test;
using Completion = MemoryVolume::Completion;

/// A fixture whose volume completes only when the test says so.
MemoryVolume::Options by_hand() {
  return {.completion = Completion::kShuffled, .delay_ms = UINT64_MAX};
}

bool serves(NbdFixture& fixture) {
  NbdClient client(fixture);
  client.go(true);
  client.post({nbd::kCmdRead, 0, 4096});
  fixture.settle();
  fixture.volume().complete();
  return client.reply().error == nbd::kOk;
}

bool all_gone(NbdFixture& fixture) {
  return fixture.turn_until([&] { return fixture.server().connections() == 0; }) &&
         fixture.exports().open_count(&fixture.volume()) == 0 &&
         fixture.reactor().buffers().in_use_bytes() == 0;
}

int start_error(NbdServer& server) {
  try {
    server.start();
  } catch (const std::system_error& error) {
    return error.code().value();
  }
  return 0;
}

void socket_file() {
  NbdFixture fixture;
  struct stat status;
  REQUIRE(::stat(fixture.path().c_str(), &status) == 0);
  CHECK(S_ISSOCK(status.st_mode) && (status.st_mode & 07777) == 0600);

  NbdServer second(fixture.reactor(), fixture.exports(), fixture.path());
  CHECK(start_error(second) == EADDRINUSE);
  CHECK(serves(fixture));

  const std::string path = fixture.path() + "-other";
  std::ofstream(path) << "precious";
  NbdServer third(fixture.reactor(), fixture.exports(), path);
  CHECK(start_error(third) == EEXIST);
  std::string text;
  std::ifstream(path) >> text;
  CHECK(text == "precious");
  ::unlink(path.c_str());

  NbdServer far(fixture.reactor(), fixture.exports(), "/tmp/" + std::string(200, 'x'));
  CHECK(start_error(far) == ENAMETOOLONG);
  NbdServer nowhere(fixture.reactor(), fixture.exports(), "/nonexistent-folder/socket");
  CHECK(start_error(nowhere) == ENOENT);

  // What a killed server leaves behind is replaced.
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, path.c_str());
  REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  ::close(fd);
  CHECK(start_error(third) == 0);
  bool stopped = false;
  third.stop([&] { stopped = true; });
  CHECK(fixture.turn_until([&] { return stopped; }));
  CHECK(::access(path.c_str(), F_OK) != 0);
}

void a_client_that_reads_nothing_is_not_read() {
  NbdFixture fixture(by_hand());
  NbdClient client(fixture);
  client.go(false);
  // Far more than the socket and the server take.
  size_t posted = 0;
  const nbd::Request request{nbd::kRequestMagic, 0, nbd::kCmdRead, 0, 0, 256 << 10};
  while (posted < 20000 && client.send_now(request)) {
    fixture.settle();
    fixture.volume().complete();
    ++posted;
  }
  CHECK(posted > 20 && posted < 20000);
  CHECK(fixture.reactor().buffers().in_use_bytes() <= NbdTransmission::kMaxDataBytes + (128 << 10));
  CHECK(serves(fixture));
  client.close();
  CHECK(all_gone(fixture));
}

void requests_are_bounded_in_number_and_bytes() {
  NbdFixture fixture(by_hand());
  NbdClient client(fixture);
  client.go(false);
  Bytes flushes;
  for (int i = 0; i < 1000; ++i) {
    NbdClient::append(flushes, nbd::Request{nbd::kRequestMagic, 0, nbd::kCmdFlush, 0, 0, 0});
  }
  REQUIRE(client.send(flushes));
  fixture.settle();
  CHECK(fixture.volume().in_flight() == NbdTransmission::kQueueDepth);
  for (int answered = 0; answered < 1000; ++answered) {
    if (fixture.volume().in_flight() > 0) fixture.volume().complete(1);
    CHECK(client.reply().error == nbd::kOk);
  }
  for (int i = 0; i < 100; ++i) client.post({nbd::kCmdRead, 0, kMaxIoBytes});
  fixture.settle();
  CHECK(fixture.volume().in_flight() == NbdTransmission::kMaxDataBytes / kMaxIoBytes);
  for (int answered = 0; answered < 100; ++answered) {
    fixture.volume().complete(1);
    CHECK(client.reply(kMaxIoBytes).error == nbd::kOk);
  }
}

void clients_that_leave_half_way() {
  NbdFixture fixture(by_hand());
  { NbdClient silent(fixture); }
  {
    NbdClient greeted(fixture);
    greeted.greet();
    greeted.send(nbd::Be64(nbd::kOptionMagic));
  }
  {
    NbdClient half_option(fixture);
    half_option.greet();
    half_option.send(nbd::OptionHeader{nbd::kOptionMagic, nbd::kOptGo, 100});
    half_option.send(Bytes(50));
  }
  {
    NbdClient half_header(fixture);
    half_header.go(true);
    half_header.send(nbd::Be32(nbd::kRequestMagic));
  }
  for (const size_t sent : {0, 100, 100000, 300000}) {
    NbdClient half_write(fixture);
    half_write.go(true);
    half_write.send(nbd::Request{nbd::kRequestMagic, 0, nbd::kCmdWrite, 1, 0, 512 << 10});
    half_write.send(Bytes(sent));
    fixture.settle();
  }
  {
    NbdClient half_refused_write(fixture);
    half_refused_write.go(true);
    half_refused_write.send(nbd::Request{nbd::kRequestMagic, 0, nbd::kCmdWrite, 1, 7, 512 << 10});
    half_refused_write.send(Bytes(100));
    CHECK(half_refused_write.reply().error == nbd::kEinval);
  }
  CHECK(all_gone(fixture));
  CHECK(fixture.volume().seen().empty());

  // With requests at the volume: those finish first, then the volume is closed.
  {
    NbdClient busy(fixture);
    busy.go(true);
    busy.post({nbd::kCmdRead, 0, 65536});
    busy.post({nbd::kCmdWrite, 0, 65536, 0, 2, Bytes(65536)});
    busy.post({nbd::kCmdBlockStatus, 0, 64 << 20});
    fixture.settle();
  }
  fixture.settle();
  CHECK(fixture.server().connections() == 1 && fixture.volume().in_flight() == 3);
  CHECK(fixture.exports().open_count(&fixture.volume()) == 1);
  fixture.volume().complete(2);
  fixture.settle();
  CHECK(fixture.server().connections() == 1);
  CHECK(serves(fixture));
  fixture.volume().complete();
  CHECK(all_gone(fixture));
}

void disconnect_request_waits_for_the_others() {
  NbdFixture fixture(by_hand());
  NbdClient client(fixture);
  client.go(false);
  client.post({nbd::kCmdRead, 0, 4096, 0, 1});
  client.post({nbd::kCmdDisconnect});
  client.post({nbd::kCmdRead, 0, 4096, 0, 2});  // after the end: not looked at
  CHECK(client.quiet());
  CHECK(fixture.volume().in_flight() == 1);
  fixture.volume().complete();
  CHECK(client.reply(4096).cookie == 1);
  CHECK(client.ended());
  CHECK(fixture.exports().open_count(&fixture.volume()) == 0);  // it may be deleted now
  CHECK(all_gone(fixture));
}

void nonsense_costs_the_connection() {
  NbdFixture fixture(by_hand());
  NbdClient old(fixture);
  old.greet(0);  // not even fixed newstyle
  CHECK(old.ended());
  NbdClient future(fixture);
  future.greet(0xff);
  CHECK(future.ended());
  NbdClient bad_magic(fixture);
  bad_magic.greet();
  bad_magic.send(Bytes(16));
  CHECK(bad_magic.ended());
  NbdClient bad_request(fixture);
  bad_request.go(true);
  bad_request.send(Bytes(28));
  CHECK(bad_request.ended());
  NbdClient huge_write(fixture);
  huge_write.go(true);
  huge_write.send(nbd::Request{nbd::kRequestMagic, 0, nbd::kCmdWrite, 1, 0, 0xfffff000});
  CHECK(huge_write.ended());
  NbdClient huge_name(fixture);
  huge_name.greet();
  huge_name.send_option(nbd::kOptExportName, Bytes(5000, std::byte{'x'}));
  CHECK(huge_name.ended());
  CHECK(serves(fixture));
  CHECK(all_gone(fixture));
}

/// Valid sessions with random bytes changed, dropped or added, at random speed.
void mutated_sessions(uint64_t seed) {
  NbdFixture fixture({.size_bytes = 1 << 20, .completion = Completion::kShuffled, .seed = seed});
  std::mt19937_64 random(seed);
  for (int session = 0; session < 60; ++session) {
    Bytes bytes;
    const auto option = [&](uint32_t type, const Bytes& data) {
      NbdClient::append(
          bytes, nbd::OptionHeader{nbd::kOptionMagic, type, static_cast<uint32_t>(data.size())});
      NbdClient::append_bytes(bytes, data);
    };
    NbdClient::append(bytes, nbd::Be32(nbd::kClientFixedNewstyle | nbd::kClientNoZeroes));
    option(nbd::kOptStructuredReply, {});
    option(nbd::kOptList, {});
    option(nbd::kOptSetMetaContext, NbdClient::contexts("volume", {nbd::kBaseAllocation}));
    option(nbd::kOptInfo, NbdClient::choice("volume", {nbd::kInfoName}));
    option(nbd::kOptGo, NbdClient::choice("volume", {nbd::kInfoBlockSize}));
    const size_t handshake = bytes.size();
    for (int i = 0; i < 20; ++i) {
      const auto type = static_cast<uint16_t>(random() % 9);
      const auto length = static_cast<uint32_t>(random() % 16 * 4096);
      NbdClient::append(bytes, nbd::Request{nbd::kRequestMagic, 0, type, random(),
                                            random() % 256 * 4096, length});
      if (type == nbd::kCmdWrite) bytes.resize(bytes.size() + length);
    }
    const size_t changes = random() % 4;
    for (size_t i = 0; i < changes; ++i) {
      // As often in the handshake as in all that follows.
      const size_t at = random() % (random() % 2 == 0 ? handshake : bytes.size());
      const auto place = bytes.begin() + static_cast<ptrdiff_t>(at);
      switch (random() % 3) {
        case 0:
          *place = static_cast<std::byte>(random());
          break;
        case 1:
          bytes.erase(place);
          break;
        case 2:
          bytes.insert(place, static_cast<std::byte>(random()));
          break;
      }
    }
    NbdClient client(fixture);
    client.send_while_reading(bytes, 500 + random() % 20000);
    if (random() % 2 == 0) client.shut_down_writing();
    fixture.reactor().turn(0);
  }
  CHECK(serves(fixture));
  CHECK(all_gone(fixture));
}

void slow_handshakes_time_out() {
  NbdFixture fixture({}, {.negotiation_timeout_ms = 50});
  NbdClient quick(fixture), slow(fixture), slower(fixture);
  quick.go(true);
  slow.greet();
  CHECK(slow.ended());
  CHECK(slower.ended());
  CHECK(quick.quiet());
  CHECK(quick.run({nbd::kCmdRead, 0, 4096}).error == nbd::kOk);
}

void connections_are_bounded() {
  NbdFixture fixture({}, {.connections = 2});
  NbdClient first(fixture), second(fixture);
  first.go(true);
  second.greet();
  NbdClient third(fixture);
  CHECK(third.ended());
  second.close();
  CHECK(fixture.turn_until([&] { return fixture.server().connections() == 1; }));
  CHECK(serves(fixture));
}

void disconnect_by_volume() {
  NbdFixture fixture(by_hand());
  MemoryVolume other({.name = "other", .size_bytes = 1 << 20});
  fixture.exports().add(&other);
  NbdClient one(fixture), two(fixture), elsewhere(fixture), undecided(fixture);
  one.go(true);
  two.go(false);
  elsewhere.go(false, "other");
  undecided.greet();
  one.post({nbd::kCmdRead, 0, 4096});
  fixture.settle();
  fixture.server().disconnect("volume");
  CHECK(one.ended() && two.ended());
  fixture.settle();
  CHECK(fixture.exports().open_count(&fixture.volume()) == 1);  // until the read has finished
  fixture.volume().complete();
  CHECK(fixture.turn_until([&] { return fixture.server().connections() == 2; }));
  CHECK(fixture.exports().open_count(&fixture.volume()) == 0);
  CHECK(elsewhere.run({nbd::kCmdRead, 0, 4096}).error == nbd::kOk);
  CHECK(undecided.ask(nbd::kOptAbort).size() == 1);
}

void stop_waits_for_requests_and_answers() {
  const std::string path = "/tmp/pando-nbd-test-" + std::to_string(::getpid()) + "-stop.sock";
  NbdFixture fixture(by_hand());
  auto server = std::make_unique<NbdServer>(fixture.reactor(), fixture.exports(), path);
  server->start();
  NbdClient busy(fixture, path), asking(fixture, path), idle(fixture, path);
  busy.go(true);
  busy.post({nbd::kCmdRead, 0, 4096});
  fixture.settle();
  fixture.exports().defer();
  asking.greet();
  asking.send_option(nbd::kOptGo, NbdClient::choice("volume"));
  fixture.settle();
  bool stopped = false;
  server->stop([&] {
    stopped = true;
    server.reset();
  });
  CHECK(busy.ended() && asking.ended() && idle.ended());
  CHECK(!stopped);
  fixture.volume().complete();
  fixture.settle();
  CHECK(!stopped);
  fixture.exports().answer();
  CHECK(fixture.turn_until([&] { return stopped; }));
  CHECK(fixture.exports().open_count(&fixture.volume()) == 0);
}

}  // namespace

int main() {
  socket_file();
  a_client_that_reads_nothing_is_not_read();
  requests_are_bounded_in_number_and_bytes();
  clients_that_leave_half_way();
  disconnect_request_waits_for_the_others();
  nonsense_costs_the_connection();
  for (uint64_t seed = 1; seed <= 8; ++seed) mutated_sessions(seed);
  slow_handshakes_time_out();
  connections_are_bounded();
  disconnect_by_volume();
  stop_waits_for_requests_and_answers();
  return finish("nbd_server_test");
}
