// Serves one volume in memory over NBD until SIGINT or SIGTERM, to try the front end by hand with
// nbdcopy, qemu-io, fio and the like.
//
//   nbd_demo SOCKET [SIZE_MIB] [DELAY_MS]

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "memory_exports.h"
#include "memory_volume.h"
#include "nbd_server.h"

namespace {

volatile std::sig_atomic_t interrupted = 0;

int serve(int argc, char** argv) {
  pando::Reactor reactor;
  pando::test::MemoryVolume volume({
      .name = "demo",
      .size_bytes = (argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 256) << 20,
      .completion = pando::test::MemoryVolume::Completion::kShuffled,
      .reactor = &reactor,
      .delay_ms = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 0,
  });
  pando::test::MemoryExports exports;
  exports.add(&volume);
  pando::NbdServer server(reactor, exports, argv[1]);
  server.start();
  std::printf("nbd+unix:///demo?socket=%s\n", argv[1]);
  std::fflush(stdout);

  while (interrupted == 0) {
    reactor.turn(100000);
    volume.seen().clear();
  }
  bool stopped = false;
  server.stop([&] { stopped = true; });
  while (!stopped) reactor.turn(100000);
  return exports.open_count(&volume) == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: nbd_demo SOCKET [SIZE_MIB] [DELAY_MS]\n");
    return 2;
  }
  const auto interrupt = [](int) { interrupted = 1; };
  std::signal(SIGINT, interrupt);
  std::signal(SIGTERM, interrupt);
  try {
    return serve(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "nbd_demo: %s\n", error.what());
    return 1;
  }
}
