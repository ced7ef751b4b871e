// Serves one volume in memory over NVMe/TCP, to try the target against a real host:
//   nvme_target_demo PORT MIB [ADVERTISED_ADDRESS] [LISTEN_ADDRESS]
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "nvme_fixture.h"

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s PORT MIB [ADVERTISED_ADDRESS] [LISTEN_ADDRESS]\n", argv[0]);
    return EXIT_FAILURE;
  }
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  try {
    pando::nvme::TargetOptions options;
    const auto port = static_cast<uint16_t>(std::atoi(argv[1]));
    options.listen = {{argc > 4 ? argv[4] : "127.0.0.1", port}};
    if (argc > 3) options.advertised = {{argv[3], port}};
    const uint64_t bytes = std::strtoull(argv[2], nullptr, 10) << 20;
    pando::test::TargetThread target(options, bytes);
    std::printf("port %u\nsubsystem %s\n", target.port(), pando::test::kVolumeNqn);
    std::fflush(stdout);
    uint64_t size = bytes;
    for (int signal = 0;;) {
      if (sigwait(&signals, &signal) != 0 || signal != SIGUSR1) break;
      size *= 2;
      target.on_reactor([&](pando::nvme::Target& t) {  // grows the volume under its hosts
        target.volume->resize(size);
        t.volume_changed(target.volume);
      });
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
