// Mutation fuzz of the target's parser: sessions that are good but for a few bytes, by seed. The
// target must stay up, give everything back, and a witness beside it must never notice.
//   nvme_fuzz_test [SEED] [CASES]
#include <poll.h>

#include <chrono>
#include <cstdlib>
#include <random>

#include "nvme_session.h"

using namespace pando;
using namespace pando::test;
using nvme::IoOpcode;

namespace {

using Random = std::mt19937_64;

constexpr uint64_t kDefaultSeed = 20261123;
constexpr int kDefaultCases = 60'000;
constexpr int kCasesPerConnection = 10;
constexpr int64_t kBudgetSeconds = 60;

uint64_t below(Random& random, uint64_t limit) {
  return random() % limit;
}

nvme::Sqe random_command(Random& random) {
  nvme::Sqe sqe{};
  auto* bytes = reinterpret_cast<uint8_t*>(&sqe);
  if (below(random, 4) == 0) {
    for (size_t i = 0; i < sizeof(sqe); ++i) bytes[i] = static_cast<uint8_t>(random());
  }
  constexpr uint8_t kOpcodes[] = {0, 1, 2, 5, 6, 8, 9, 0x0A, 0x0C, 0x18, 0x7F};
  sqe.opcode = kOpcodes[below(random, sizeof(kOpcodes))];
  sqe.nsid = sqe.opcode == 0x7F ? static_cast<uint32_t>(below(random, 6)) : 1;
  sqe.cdw10 = static_cast<uint32_t>(below(random, 4097));
  sqe.cdw12 = static_cast<uint32_t>(below(random, 5));
  return sqe;
}

// A PDU that is right, or nearly.
Bytes random_pdu(Random& random, const Host& host) {
  const size_t sizes[] = {0, 4096, 4096, 8192, 16, 1024};
  if (below(random, 6) == 0) {
    return host.h2c_data(
        static_cast<uint16_t>(below(random, 8)), static_cast<uint16_t>(below(random, 8)),
        static_cast<uint32_t>(below(random, 3) * 4096), Bytes(4096), below(random, 2) == 0);
  }
  const size_t size = sizes[below(random, std::size(sizes))];
  const bool in_capsule = size > 0 && below(random, 3) != 0;
  nvme::Sqe sqe = Host::describe(random_command(random), size, in_capsule);
  sqe.cid = static_cast<uint16_t>(below(random, 8));
  if (sqe.opcode <= 2 && size >= 4096) sqe.cdw12 = static_cast<uint32_t>(size / 4096 - 1);
  return host.capsule(sqe, in_capsule ? Bytes(size, std::byte{0x5A}) : Bytes{});
}

void mutate(Random& random, Bytes& bytes) {
  const uint64_t changes = below(random, 2) == 0 ? 0 : below(random, 4);
  for (uint64_t i = 0; i < changes; ++i) {
    // Mostly in the headers, where it matters.
    const size_t limit = below(random, 4) == 0 ? bytes.size() : std::min<size_t>(bytes.size(), 80);
    const size_t at = below(random, limit);
    switch (below(random, 4)) {
      case 0:
        bytes[at] ^= static_cast<std::byte>(1 << below(random, 8));
        break;
      case 1:
        bytes[at] = static_cast<std::byte>(random());
        break;
      case 2:
        bytes[at] = below(random, 2) == 0 ? std::byte{0} : std::byte{0xFF};
        break;
      default:
        bytes.resize(at + 1);  // stops half-way
        break;
    }
  }
}

void drain(Host& host) {
  char sink[4096];
  while (::recv(host.fd(), sink, sizeof(sink), MSG_DONTWAIT) > 0) {
  }
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : kDefaultSeed;
  const int cases = argc > 2 ? std::atoi(argv[2]) : kDefaultCases;
  std::printf("seed %llu, %d cases\n", static_cast<unsigned long long>(seed), cases);
  Random random(seed);
  const auto start = std::chrono::steady_clock::now();

  nvme::TargetOptions options = any_port();
  options.send_stall_ms = 2'000;
  TargetThread target(options, 4 << 20);
  Session witness(target.port(), {}, kOtherNqn);
  const Bytes data = pattern(16384, 1);
  CHECK(witness.io.write(0, data, true).ok());

  int ran = 0;
  for (; ran < cases; ran += kCasesPerConnection) {
    const Digests digests{below(random, 4) == 0, below(random, 4) == 0};
    const uint64_t stage = below(random, 8);
    if (stage == 0) {  // from the first byte on
      Host host(target.port());
      const nvme::IcPdu pdu = Host::ic_request(digests);
      Bytes bytes(sizeof(pdu));
      std::memcpy(bytes.data(), &pdu, sizeof(pdu));
      mutate(random, bytes);
      host.send(bytes);
      for (int i = 1; i < kCasesPerConnection; ++i) {
        Bytes next = random_pdu(random, host);
        mutate(random, next);
        if (!host.send(next)) break;
      }
    } else {
      Session session(target.port(), digests);
      Host& victim = stage < 3 ? session.admin : session.io;
      for (int i = 0; i < kCasesPerConnection; ++i) {
        Bytes bytes = random_pdu(random, victim);
        mutate(random, bytes);
        if (!victim.send(bytes)) break;
        drain(victim);
      }
    }
    const Outcome outcome = witness.io.read(0, 4);
    if (!CHECK(outcome.ok() && outcome.data == data)) break;
    if (std::chrono::steady_clock::now() - start > std::chrono::seconds(kBudgetSeconds)) break;
  }
  CHECK(ran >= cases);
  CHECK(target.eventually([&](auto&) { return target.exports.open_count == 1; }));
  CHECK(target.eventually(
      [&](nvme::Target& t) { return t.reactor().buffers().in_use_bytes() <= 2 * 64 * 1024; }));
  return finish("nvme_fuzz_test");
}
