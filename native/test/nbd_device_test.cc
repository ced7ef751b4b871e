// Volumes on the sockets of NBD block devices: served without a handshake, let go when the last
// request has ended, and told apart by who has ended the connection.
#include <optional>

#include "nbd_client.h"
#include "nbd_device_server.h"

namespace {

using namespace pando;
using namespace pando::test;
using Completion = MemoryVolume::Completion;

constexpr uint64_t kByHand = UINT64_MAX;

/// Serves the fixture's volume and gives the kernel's end, or -errno.
int serve(NbdFixture& fixture, NbdDeviceServer& server, const std::string& name = "volume") {
  std::optional<int> result;
  server.serve(name, [&](int error, int socket, uint16_t flags) {
    result = error != 0 ? -error : socket;
    if (error == 0)
      CHECK((flags & nbd::kTransmitSendFlush) != 0 && (flags & nbd::kTransmitSendFua) != 0);
  });
  REQUIRE(fixture.turn_until([&] { return result.has_value(); }));
  return *result;
}

void leave(NbdFixture& fixture, NbdDeviceServer& server) {
  bool left = false;
  server.leave([&] { left = true; });
  CHECK(!left);  // it may end the server, so never inside the call
  REQUIRE(fixture.turn_until([&] { return left; }));
}

void requests_are_answered() {
  NbdFixture fixture;
  NbdDeviceServer server(fixture.reactor(), fixture.exports());
  {
    NbdClient kernel(fixture, serve(fixture, server));
    CHECK(fixture.exports().requests().back().front_end == FrontEnd::kNbdDevice);
    const Bytes data = pattern(65536, 3);
    CHECK(kernel.write(4096, data) == nbd::kOk);
    CHECK(kernel.run({nbd::kCmdRead, 4096, 65536}).data == data);
    CHECK(kernel.run({nbd::kCmdFlush}).error == nbd::kOk);
    CHECK(kernel.run({nbd::kCmdTrim, 4096, 65536}).error == nbd::kOk);
    CHECK(serve(fixture, server) == -EBUSY);
    CHECK(serve(fixture, server, "another") == -ENOENT);
  }
  leave(fixture, server);
  CHECK(serve(fixture, server) == -ESHUTDOWN);
}

void the_end_says_whose_it_was() {
  NbdFixture fixture;
  NbdDeviceServer server(fixture.reactor(), fixture.exports());
  std::optional<bool> lost;
  const auto ended = [&](bool was_lost) { lost = was_lost; };
  server.when_ended("volume", ended);
  CHECK(lost == false);  // it is not served

  lost.reset();
  { const NbdClient kernel(fixture, serve(fixture, server)); }
  server.when_ended("volume", ended);
  REQUIRE(fixture.turn_until([&] { return lost.has_value(); }));
  CHECK(lost == true);
  CHECK(fixture.exports().open_count(&fixture.volume()) == 0);

  for (const bool leaves : {false, true}) {
    lost.reset();
    const NbdClient kernel(fixture, serve(fixture, server));
    server.when_ended("volume", ended);
    if (leaves) {
      leave(fixture, server);
    } else {
      server.release("volume");
    }
    REQUIRE(fixture.turn_until([&] { return lost.has_value(); }));
    CHECK(lost == false);
    CHECK(fixture.exports().open_count(&fixture.volume()) == 0);
  }
}

/// The kernel sends a write anew by the next socket; the first must not come after it.
void a_request_under_way_keeps_the_volume() {
  NbdFixture fixture({.completion = Completion::kInOrder, .delay_ms = kByHand});
  NbdDeviceServer server(fixture.reactor(), fixture.exports());
  std::optional<bool> lost;
  {
    NbdClient kernel(fixture, serve(fixture, server));
    kernel.post({nbd::kCmdWrite, 0, 4096, 0, 1, pattern(4096, 1)});
    REQUIRE(fixture.turn_until([&] { return fixture.volume().in_flight() == 1; }));
  }
  server.when_ended("volume", [&](bool was_lost) { lost = was_lost; });
  fixture.settle();
  CHECK(!lost.has_value());
  CHECK(serve(fixture, server) == -EBUSY);
  bool left = false;
  server.leave([&] { left = true; });
  fixture.settle();
  CHECK(!left);
  fixture.volume().complete();
  REQUIRE(fixture.turn_until([&] { return left; }));
  CHECK(lost.has_value());
}

void opened_too_late() {
  NbdFixture fixture;
  fixture.exports().defer();
  NbdDeviceServer server(fixture.reactor(), fixture.exports());
  std::optional<int> error;
  server.serve("volume", [&](int failure, int, uint16_t) { error = failure; });
  bool left = false;
  server.leave([&] { left = true; });
  fixture.settle();
  CHECK(!left && !error.has_value());
  fixture.exports().answer();
  CHECK(left && error == ESHUTDOWN);
  CHECK(fixture.exports().open_count(&fixture.volume()) == 0);
}

}  // namespace

int main() {
  requests_are_answered();
  the_end_says_whose_it_was();
  a_request_under_way_keeps_the_volume();
  opened_too_late();
  return finish("nbd_device_test");
}
