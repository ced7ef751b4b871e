// Mutation fuzz of the target, by seed: what a real Linux host sent (nvme_capture.h) and commands
// made up here, with bytes changed, PDUs left out, repeated and cut short. Where the change is
// inside, digests are made to fit afterwards, so that it gets past them; where it is outside, they
// are what they are. The target must stay up and give everything back, and a witness beside it must
// never notice.
//
//   nvme_fuzz_test [--seed S] [--cases N]      a case is one PDU
//
// At the end a table says which commands were answered in which state of a connection; less than
// nine tenths of it is a failure.
#include <poll.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <map>
#include <random>
#include <set>

#include "nvme_capture.h"
#include "nvme_session.h"

using namespace pando;
using namespace pando::test;

namespace {

using Random = std::mt19937_64;

constexpr uint64_t kDefaultSeed = 20261123;
// The build that finds most has most to do.
#ifdef __SANITIZE_ADDRESS__
constexpr uint64_t kDefaultCases = 200'000;
#else
constexpr uint64_t kDefaultCases = 40'000;
#endif
constexpr uint64_t kCasesPerConnection = 40;
constexpr uint32_t kPartBytes = 8192;
constexpr char kCapture[] = PANDO_FIXTURES "/nvme-host-linux-6.12.hex";
constexpr char kGuardedHost[] = "nqn.2014-08.org.nvmexpress:uuid:guarded";
constexpr auto kWitnessLimit = std::chrono::seconds(4);

enum class Stage { kFresh, kUnconnected, kDisabled, kAdmin, kDiscovery, kUntrusted, kIo };
constexpr std::array kStages = {Stage::kUnconnected, Stage::kDisabled,  Stage::kAdmin,
                                Stage::kDiscovery,   Stage::kUntrusted, Stage::kIo};
constexpr const char* kStageNames[] = {"fresh",     "unconnected", "disabled", "admin",
                                       "discovery", "untrusted",   "io"};
// Admin and I/O opcodes, and fabrics types above them.
constexpr int kFabrics = 0x100;
constexpr std::array kCommands = {
    0x00, 0x01, 0x02,         0x05,         0x06,         0x08,         0x09,        0x0A,
    0x0C, 0x18, kFabrics + 0, kFabrics + 1, kFabrics + 4, kFabrics + 5, kFabrics + 6};

uint64_t below(Random& random, uint64_t limit) {
  return random() % limit;
}

int command_of(const nvme::Sqe& sqe) {
  return sqe.opcode == nvme::kFabricsOpcode ? kFabrics + static_cast<int>(sqe.nsid & 0xFF)
                                            : sqe.opcode;
}

/// One connection under attack, and what of it was answered.
struct Victim {
  Victim(Host& its_host, Stage its_stage) : host(its_host), stage(its_stage) {}

  /// False: the target has ended it.
  bool send(const Bytes& bytes) { return host.send(bytes); }
  void sent(const nvme::Sqe& sqe) {
    const int command = command_of(sqe);
    // Two under one number: the answer says not which it is of.
    const auto [entry, first] = asked.emplace(sqe.cid, std::pair{stage, command});
    if (!first) entry->second.first = Stage::kFresh;
    // What may bring it into another state: from here on it counts for none.
    const bool moves = stage == Stage::kUnconnected ? command == kFabrics + 1
                       : stage == Stage::kIo        ? false
                                                    : command == kFabrics;
    if (moves) stage = Stage::kFresh;
  }
  void collect(std::set<std::pair<Stage, int>>& reached, int wait_ms) {
    pollfd readable{host.fd(), POLLIN, 0};
    while (poll(&readable, 1, wait_ms) > 0) {
      std::array<std::byte, 16384> chunk;
      const ssize_t got = ::recv(host.fd(), chunk.data(), chunk.size(), MSG_DONTWAIT);
      if (got <= 0) break;
      received.insert(received.end(), chunk.begin(), chunk.begin() + got);
      wait_ms = 0;
    }
    size_t at = 0;
    while (received.size() - at >= sizeof(nvme::PduHeader)) {
      nvme::PduHeader header;
      std::memcpy(&header, received.data() + at, sizeof(header));
      if (header.length < sizeof(header) || received.size() - at < header.length) break;
      uint16_t cid = 0;
      const auto type = static_cast<nvme::PduType>(header.type);
      const bool response = type == nvme::PduType::kCapsuleResp;
      const bool data = type == nvme::PduType::kC2hData && (header.flags & nvme::kPduSuccess) != 0;
      if (response) std::memcpy(&cid, received.data() + at + 20, 2);
      if (data) std::memcpy(&cid, received.data() + at + 8, 2);
      if (type == nvme::PduType::kR2t) {
        nvme::R2tPdu r2t;
        std::memcpy(&r2t, received.data() + at, sizeof(r2t));
        owed.push_back(r2t);
      }
      const auto found = asked.find(cid);
      if ((response || data) && found != asked.end()) {
        reached.insert(found->second);
        asked.erase(found);
      }
      at += header.length;
    }
    received.erase(received.begin(), received.begin() + static_cast<ptrdiff_t>(at));
  }

  Host& host;
  Stage stage;
  std::map<uint16_t, std::pair<Stage, int>> asked;
  std::vector<nvme::R2tPdu> owed;  // data that the target has asked for
  Bytes received;
};

void change_bytes(Random& random, Bytes& bytes, size_t limit) {
  for (uint64_t left = below(random, 4); left > 0 && !bytes.empty(); --left) {
    std::byte& byte = bytes[below(random, std::min(limit, bytes.size()))];
    switch (below(random, 3)) {
      case 0:
        byte ^= static_cast<std::byte>(1 << below(random, 8));
        break;
      case 1:
        byte = static_cast<std::byte>(random());
        break;
      default:
        byte = below(random, 2) == 0 ? std::byte{0} : std::byte{0xFF};
    }
  }
}

nvme::Sqe made_up(Random& random, size_t bytes, bool in_capsule) {
  nvme::Sqe sqe{};
  if (below(random, 4) == 0) {
    for (size_t i = 0; i < sizeof(sqe); ++i) {
      reinterpret_cast<uint8_t*>(&sqe)[i] = static_cast<uint8_t>(random());
    }
  }
  const int command = kCommands[below(random, kCommands.size())];
  sqe.opcode = static_cast<uint8_t>(command >= kFabrics ? nvme::kFabricsOpcode : command);
  sqe.nsid = command >= kFabrics ? static_cast<uint32_t>(command - kFabrics) : 1;
  sqe.cdw10 = static_cast<uint32_t>(below(random, 4097));
  if (command >= kFabrics + 5 && below(random, 2) == 0) sqe.cdw10 = 0xE9u << 24 | 1 << 16 | 1 << 8;
  sqe.cdw11 = below(random, 2) == 0 ? 0 : static_cast<uint32_t>(below(random, 64));
  sqe.cdw12 = static_cast<uint32_t>(below(random, 5));
  sqe.cid = static_cast<uint16_t>(below(random, 64));
  return Host::describe(sqe, bytes, in_capsule);
}

/// The target's own names in place of those that the recorded host used.
void rename(Bytes& data) {
  if (data.size() != sizeof(nvme::ConnectData)) return;
  nvme::ConnectData connect;
  std::memcpy(&connect, data.data(), sizeof(connect));
  std::memset(connect.subsystem_nqn, 0, sizeof(connect.subsystem_nqn));
  std::memcpy(connect.subsystem_nqn, kVolumeNqn, sizeof(kVolumeNqn));
  std::memcpy(data.data(), &connect, sizeof(connect));
}

/// What a Connect brings, or so much of nothing.
Bytes data_of(Random& random, uint32_t bytes) {
  Bytes data(bytes);
  if (bytes != sizeof(nvme::ConnectData)) return data;
  nvme::ConnectData connect{};
  connect.controller_id = 0xFFFF;
  std::memcpy(connect.host_nqn, kHostNqn, sizeof(kHostNqn));
  const std::string subsystem = below(random, 2) == 0 ? nvme::kDiscoveryNqn : kVolumeNqn;
  std::memcpy(connect.subsystem_nqn, subsystem.data(), subsystem.size());
  std::memcpy(data.data(), &connect, sizeof(connect));
  return data;
}

/// Data that was asked for, all or the first part of it.
Bytes owed_data(Random& random, Victim& victim) {
  const size_t which = below(random, victim.owed.size());
  nvme::R2tPdu& r2t = victim.owed[which];
  const uint32_t bytes = std::min<uint32_t>(r2t.length, kPartBytes);
  const bool last = bytes == r2t.length;
  const Bytes pdu =
      victim.host.h2c_data(r2t.cid, r2t.tag, r2t.offset, data_of(random, bytes), last);
  r2t.offset += bytes;
  r2t.length -= bytes;
  if (last) victim.owed.erase(victim.owed.begin() + static_cast<ptrdiff_t>(which));
  return pdu;
}

/// The next thing to send: of the recording, or made up.
Bytes next_pdu(Random& random, Victim& victim, const CapturedConnection& recorded, size_t& at) {
  CapturedPdu pdu;
  if (!victim.owed.empty() && below(random, 4) == 0) return owed_data(random, victim);
  if (below(random, 2) == 0 && at < recorded.size()) {
    pdu = recorded[at];
    rename(pdu.data);
    const uint64_t step = below(random, 10);  // mostly in order
    at = step == 0 ? below(random, recorded.size()) : at + (step == 1 ? 2 : 1);
  } else if (below(random, 8) == 0) {
    const auto tag = static_cast<uint16_t>(below(random, 8));
    return victim.host.h2c_data(static_cast<uint16_t>(below(random, 64)), tag,
                                static_cast<uint32_t>(below(random, 3) * 4096), Bytes(4096),
                                below(random, 2) == 0);
  } else {
    constexpr size_t kSizes[] = {0, 0, 0, 4096, 4096, 8192, 16, 64, 1024};
    const size_t size = kSizes[below(random, std::size(kSizes))];
    const bool in_capsule = size > 0 && below(random, 3) != 0;
    const nvme::Sqe sqe = made_up(random, size, in_capsule);
    nvme::CapsuleCmdPdu capsule{};
    capsule.header.type = static_cast<uint8_t>(nvme::PduType::kCapsuleCmd);
    capsule.header.header_length = sizeof(capsule);
    capsule.sqe = sqe;
    pdu.type = nvme::PduType::kCapsuleCmd;
    pdu.header.resize(sizeof(capsule));
    std::memcpy(pdu.header.data(), &capsule, sizeof(capsule));
    if (in_capsule) pdu.data = Bytes(size, std::byte{0x5A});
  }
  const bool inside = below(random, 2) == 0;
  if (inside) {
    Bytes body(pdu.header.begin() + sizeof(nvme::PduHeader), pdu.header.end());
    change_bytes(random, body, body.size());
    std::copy(body.begin(), body.end(), pdu.header.begin() + sizeof(nvme::PduHeader));
    change_bytes(random, pdu.data, pdu.data.size());
  }
  if (pdu.type == nvme::PduType::kCapsuleCmd) victim.sent(pdu.sqe());
  if (pdu.type == nvme::PduType::kIcReq) {
    Bytes bytes = pdu.header;
    if (!inside) change_bytes(random, bytes, bytes.size());
    return bytes;
  }
  Bytes bytes = victim.host.assemble(pdu.header.data(), pdu.header.size(), pdu.data);
  if (!inside && below(random, 3) == 0) change_bytes(random, bytes, 80);
  if (below(random, 64) == 0) bytes.resize(1 + below(random, bytes.size()));  // stops half-way
  return bytes;
}

struct Table {
  std::set<std::pair<Stage, int>> reached;

  size_t count() const {
    size_t count = 0;
    for (const Stage stage : kStages) {
      for (const int command : kCommands) count += reached.contains({stage, command}) ? 1 : 0;
    }
    return count;
  }
  void print() const {
    std::printf("answered, by state and command (f: fabrics)\n%-12s", "");
    for (const int command : kCommands) {
      std::printf(command >= kFabrics ? " f%02x" : "  %02x", command & 0xFF);
    }
    std::printf("\n");
    for (const Stage stage : kStages) {
      std::printf("%-12s", kStageNames[static_cast<size_t>(stage)]);
      for (const int command : kCommands) {
        std::printf("   %c", reached.contains({stage, command}) ? 'x' : '.');
      }
      std::printf("\n");
    }
  }
};

class Fuzzer {
 public:
  explicit Fuzzer(uint64_t seed) : random_(seed), target_(options(), 4 << 20) {
    target_.on_reactor([&](auto&) {
      target_.exports.guarded_hosts.insert(kGuardedHost);
      TlsKey key;
      key.identity = tls_.identity;
      key.secret.assign(tls_.secret.size(), std::byte{7});
      key.host_nqn = kHostNqn;
      key.subsystem_nqn = kVolumeNqn;
      target_.exports.tls_keys.push_back(key);
    });
    hello_ = TlsClient(-1, tls_).hello();
    for (CapturedConnection& connection : read_capture(kCapture)) {
      if (!connection.empty()) recorded_.push_back(std::move(connection));
    }
    REQUIRE(!recorded_.empty());
  }

  void run(uint64_t cases) {
    Session witness(target_.port(), {}, kOtherNqn);
    const Bytes data = pattern(16384, 1);
    CHECK(witness.io.write(0, data, true).ok());
    while (cases_ < cases) {
      attack();
      const auto start = std::chrono::steady_clock::now();
      const Outcome outcome = witness.io.read(0, 4);
      const auto waited = std::chrono::steady_clock::now() - start;
      if (!CHECK(outcome.ok() && outcome.data == data && waited < kWitnessLimit)) break;
    }
    CHECK(target_.eventually([&](auto&) { return target_.exports.open_count == 1; }));
    CHECK(target_.eventually([](nvme::Target& t) { return t.budget().used_bytes() == 0; }));
    CHECK(target_.eventually([](nvme::Target& t) { return t.tls_budget().used_bytes() == 0; }));
    // Whose host has gone is gone, whatever it was waiting for: the witness's two buffers are left.
    CHECK(target_.eventually(
        [](nvme::Target& t) { return t.reactor().buffers().in_use_bytes() <= 2 * 64 * 1024; }));
    CHECK(target_.eventually([&](auto&) { return target_.exports.authentications.empty(); }));
    table_.print();
    CHECK(table_.count() * 10 >= kStages.size() * kCommands.size() * 9);
  }

 private:
  static nvme::TargetOptions options() {
    nvme::TargetOptions options = any_port();
    options.send_stall_ms = 2'000;
    options.data_stall_ms = 2'000;
    return options;
  }

  void attack() {
    if (below(random_, 16) == 0) return attack_tls();
    const Digests digests{below(random_, 4) == 0, below(random_, 4) == 0};
    const auto stage = static_cast<Stage>(below(random_, kStages.size() + 1));
    // Sometimes the control plane takes its time, and the attack goes on meanwhile.
    const uint64_t delay_ms = below(random_, 8) == 0 ? 2 : 0;
    target_.on_reactor([&](auto&) { target_.exports.open_delay_ms = delay_ms; });
    if (stage == Stage::kIo) {
      Session session(target_.port(), digests);
      return torment(session.io, stage);
    }
    Host host(target_.port());
    if (stage != Stage::kFresh) {
      REQUIRE(host.initialize(digests));
      const std::string subsystem = stage == Stage::kDiscovery ? nvme::kDiscoveryNqn : kVolumeNqn;
      const std::string name = stage == Stage::kUntrusted ? kGuardedHost : kHostNqn;
      if (stage != Stage::kUnconnected) {
        REQUIRE(host.connect(subsystem, 0, 0xFFFF, name).ok());
      }
      if (stage == Stage::kAdmin || stage == Stage::kDiscovery) REQUIRE(host.enable());
    }
    torment(host, stage);
  }

  /// What is not TLS, and what has been; or, past the handshake, PDUs and records of no sort.
  void attack_tls() {
    Host host(target_.port());
    const bool inside = below(random_, 2) == 0;
    if (inside && !CHECK(host.secure(tls_))) return;
    Victim victim(host, Stage::kFresh);
    const CapturedConnection& recorded = recorded_[below(random_, recorded_.size())];
    size_t at = 0;
    for (uint64_t i = 0; i < kCasesPerConnection / 2; ++i, ++cases_) {
      if (inside && below(random_, 8) != 0) {
        if (!victim.send(next_pdu(random_, victim, recorded, at))) return;
        continue;
      }
      Bytes bytes = hello_;
      change_bytes(random_, bytes, bytes.size());
      if (inside) bytes[0] = static_cast<std::byte>(20 + below(random_, 5));  // of any type
      if (below(random_, 3) == 0) bytes.resize(1 + below(random_, bytes.size()));
      if (::send(host.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL) <= 0) return;
      if (!inside && i > 2) return;
    }
  }

  void torment(Host& host, Stage stage) {
    Victim victim(host, stage);
    const CapturedConnection& recorded = recorded_[below(random_, recorded_.size())];
    size_t at = stage == Stage::kFresh ? 0 : std::min<size_t>(1, recorded.size());
    for (uint64_t i = 0; i < kCasesPerConnection; ++i, ++cases_) {
      if (!victim.send(next_pdu(random_, victim, recorded, at))) break;
      victim.collect(table_.reached, 0);
    }
    victim.collect(table_.reached, 5);
  }

  Random random_;
  const TlsClientOptions tls_{"NVMe0R01 fuzz", std::vector<unsigned char>(32, 7)};
  Bytes hello_;
  TargetThread target_;
  std::vector<CapturedConnection> recorded_;
  Table table_;
  uint64_t cases_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  uint64_t seed = kDefaultSeed;
  uint64_t cases = kDefaultCases;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i];
    const uint64_t value = std::strtoull(argv[i + 1], nullptr, 10);
    if (option == "--seed") {
      seed = value;
    } else if (option == "--cases") {
      cases = value;
    } else {
      std::fprintf(stderr, "usage: %s [--seed S] [--cases N]\n", argv[0]);
      return EXIT_FAILURE;
    }
  }
  std::printf("--seed %llu --cases %llu\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(cases));
  Fuzzer(seed).run(cases);
  return finish("nvme_fuzz_test");
}
