// TLS 1.3 with pre-shared keys, as the transport's specification has it (TCP 3.6.1): a host with a
// key is served as any other, and nothing else gets further than the handshake.
#include <openssl/rand.h>

#include <chrono>
#include <thread>

#include "nvme_session.h"

namespace pando::test {
namespace {

using nvme::IoOpcode;
using nvme::Status;
using nvme::TlsMode;

constexpr char kOtherHost[] =
    "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-666666666666";

nvme::TargetOptions with_mode(TlsMode mode) {
  nvme::TargetOptions options = any_port();
  options.tls = mode;
  return options;
}

std::string identity_of(bool sha384, const std::string& subsystem = kVolumeNqn) {
  return std::string("NVMe0R0") + (sha384 ? "2 " : "1 ") + kHostNqn + " " + subsystem;
}

TlsClientOptions client_key(bool sha384, const std::string& subsystem = kVolumeNqn) {
  TlsClientOptions options;
  options.identity = identity_of(sha384, subsystem);
  options.sha384 = sha384;
  options.secret.assign(sha384 ? 48 : 32, static_cast<unsigned char>(sha384 ? 0x38 : 0x25));
  return options;
}

/// The host's keys for both volumes and for discovery, with both hashes.
void give_keys(TargetThread& target) {
  target.on_reactor([&](nvme::Target&) {
    for (const bool sha384 : {false, true}) {
      for (const char* subsystem : {kVolumeNqn, kOtherNqn, nvme::kDiscoveryNqn}) {
        const TlsClientOptions key = client_key(sha384, subsystem);
        TlsKey made;
        made.identity = key.identity;
        made.sha384 = sha384;
        for (const unsigned char byte : key.secret) made.secret.push_back(std::byte{byte});
        made.host_nqn = kHostNqn;
        made.subsystem_nqn = subsystem;
        target.exports.tls_keys.push_back(made);
      }
    }
  });
}

bool refused_with(TargetThread& target, const std::string& reason) {
  return target.eventually([&](nvme::Target&) {
    for (const auto& each : target.exports.refusals) {
      if (each.find(reason) != std::string::npos) return true;
    }
    return false;
  });
}

/// Both queues over TLS.
struct SecureSession {
  explicit SecureSession(uint16_t port, const TlsClientOptions& key, Digests digests = {})
      : admin(port), io(port) {
    REQUIRE(admin.secure(key) && admin.initialize(digests));
    const Outcome connected = admin.connect(kVolumeNqn, 0);
    REQUIRE(connected.ok());
    controller_id = static_cast<uint16_t>(connected.result);
    REQUIRE(admin.enable());
    REQUIRE(io.secure(key) && io.initialize(digests));
    REQUIRE(io.connect(kVolumeNqn, 1, controller_id, kHostNqn, 0, 128).ok());
  }

  Host admin;
  Host io;
  uint16_t controller_id = 0;
};

void test_data_moves() {
  for (const bool sha384 : {false, true}) {
    for (const bool digests : {false, true}) {
      TargetThread target;
      give_keys(target);
      SecureSession session(target.port(), client_key(sha384), {digests, digests});
      for (const uint32_t blocks : {1u, 2u, 4u, 32u, 256u}) {
        const Bytes data = pattern(blocks * size_t{4096}, blocks);
        CHECK(session.io.write(blocks, data, blocks <= 4).ok());
        const Outcome read = session.io.read(blocks, blocks);
        CHECK(read.ok() && read.data == data);
      }
      target.on_reactor([](nvme::Target& self) {
        const auto sessions = self.sessions();
        CHECK(sessions.size() == 1 && sessions[0].secure && !sessions[0].authenticated);
      });
    }
  }
}

/// Replies that come together share records; each is whole.
void test_many_at_once() {
  TargetThread target;
  give_keys(target);
  SecureSession session(target.port(), client_key(true));
  const Bytes data = pattern(64 * 4096, 9);
  REQUIRE(session.io.write(0, data, false).ok());
  constexpr uint16_t kAtOnce = 100;
  Bytes capsules;
  for (uint16_t i = 0; i < kAtOnce; ++i) {
    nvme::Sqe sqe = Host::io(IoOpcode::kRead, i % 64, 1);
    sqe.cid = static_cast<uint16_t>(1000 + i);
    const Bytes capsule = session.io.capsule(Host::describe(sqe, 4096, false), {});
    capsules.insert(capsules.end(), capsule.begin(), capsule.end());
  }
  REQUIRE(session.io.send_bytes(capsules.data(), capsules.size()));
  std::set<uint16_t> answered;
  HostPdu pdu;
  uint32_t read = 0;
  while (answered.size() < kAtOnce && session.io.receive(pdu)) {
    if (pdu.header.type == static_cast<uint8_t>(nvme::PduType::kCapsuleResp)) {
      nvme::CapsuleRespPdu response;
      std::memcpy(&response, pdu.header_bytes.data(), sizeof(response));
      answered.insert(response.cqe.cid);
      continue;
    }
    nvme::DataPdu header;
    std::memcpy(&header, pdu.header_bytes.data(), sizeof(header));
    const size_t block = (header.cid - 1000u) % 64;
    CHECK(std::memcmp(pdu.data.data(), data.data() + block * 4096, 4096) == 0);
    if ((pdu.header.flags & nvme::kPduSuccess) != 0) answered.insert(header.cid);
    ++read;
  }
  CHECK(answered.size() == kAtOnce && read == kAtOnce);
}

/// Thousands of records with one byte each, and capsules that are cut anywhere.
void test_small_records() {
  TargetThread target;
  give_keys(target);
  SecureSession session(target.port(), client_key(false));
  const Bytes data = pattern(4096, 3);
  nvme::Sqe sqe = Host::io(IoOpcode::kWrite, 5, 1);
  sqe.cid = 77;
  const Bytes capsule = session.io.capsule(Host::describe(sqe, data.size(), true), data);
  for (const std::byte& each : capsule) REQUIRE(session.io.send_bytes(&each, 1));
  CHECK(session.io.await(77).ok());
  const Outcome read = session.io.read(5, 1);
  CHECK(read.ok() && read.data == data);
}

void test_only_the_right_key() {
  TargetThread target;
  give_keys(target);
  {
    TlsClientOptions wrong = client_key(false);
    wrong.secret[0] ^= 1;
    Host host(target.port());
    CHECK(!host.secure(wrong));
    CHECK(refused_with(target, "binder does not verify"));
  }
  {
    TlsClientOptions unknown = client_key(false);
    unknown.identity = "NVMe0R01 nqn.2014-08.org.nvmexpress:uuid:nobody " + std::string(kVolumeNqn);
    Host host(target.port());
    CHECK(!host.secure(unknown));
    CHECK(refused_with(target, "there is no key for it"));
  }
  {
    TlsClientOptions none = client_key(false);
    none.identity.clear();  // certificates only
    Host host(target.port());
    CHECK(!host.secure(none));
  }
  {
    // The identity is there, but not as the key's: the binder of another hash does not pass.
    TlsClientOptions crossed = client_key(true);
    crossed.identity = identity_of(false);
    Host host(target.port());
    CHECK(!host.secure(crossed));
  }
  CHECK(target.open_volumes() == 0);
}

void test_only_what_the_specification_asks_for() {
  TargetThread target;
  give_keys(target);
  const auto refuses = [&](TlsClientOptions options) {
    Host host(target.port());
    return !host.secure(options);
  };
  TlsClientOptions options = client_key(false);
  options.version = TLS1_2_VERSION;
  CHECK(refuses(options));
  options = client_key(false);
  options.suites = "TLS_CHACHA20_POLY1305_SHA256";
  CHECK(refuses(options));
  CHECK(refused_with(target, "no shared cipher"));
  options = client_key(false);
  options.groups = "X448";
  CHECK(refuses(options));

  // A host that offers more gets the suite that fits its key.
  for (const bool sha384 : {false, true}) {
    options = client_key(sha384);
    options.suites = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256";
    Host host(target.port());
    CHECK(host.secure(options));
    const char* name = SSL_get_cipher_name(host.tls().ssl());
    CHECK(std::string(name) == (sha384 ? "TLS_AES_256_GCM_SHA384" : "TLS_AES_128_GCM_SHA256"));
    CHECK(SSL_session_reused(host.tls().ssl()) == 1);
  }
  // The key share is not one of ours at first: one more round.
  options = client_key(true);
  options.groups = "P-521:P-384";
  Host host(target.port());
  CHECK(host.secure(options) && host.initialize() && host.connect(kVolumeNqn, 0).ok());
}

void test_identity_is_that_of_connect() {
  TargetThread target;
  give_keys(target);
  {
    Host host(target.port());
    REQUIRE(host.secure(client_key(true)) && host.initialize());
    const Outcome other = host.connect(kVolumeNqn, 0, 0xFFFF, kOtherHost);
    CHECK(other.failed_with(Status::kConnectInvalidHost) && other.do_not_retry);
    CHECK(host.connect(kOtherNqn, 0).failed_with(Status::kConnectInvalidParameters));
    CHECK(host.connect(nvme::kDiscoveryNqn, 0).failed_with(Status::kConnectInvalidParameters));
    CHECK(host.connect(kVolumeNqn, 0).ok());
  }
  // An I/O queue is as secure as its controller.
  SecureSession session(target.port(), client_key(true));
  Host plain(target.port());
  REQUIRE(plain.initialize());
  CHECK(
      plain.connect(kVolumeNqn, 2, session.controller_id).failed_with(Status::kConnectInvalidHost));
  Session open(target.port());
  Host secure(target.port());
  REQUIRE(secure.secure(client_key(false)) && secure.initialize());
  CHECK(secure.connect(kVolumeNqn, 2, open.controller_id).failed_with(Status::kConnectInvalidHost));
}

void test_modes() {
  {
    TargetThread target(with_mode(TlsMode::kOff));
    give_keys(target);
    Host host(target.port());
    CHECK(!host.secure(client_key(false)));
    CHECK(refused_with(target, "TLS, which is off"));
    Session plain(target.port());
    CHECK(plain.io.read(0, 1).ok());
  }
  {
    TargetThread target(with_mode(TlsMode::kRequired));
    give_keys(target);
    Host plain(target.port());
    CHECK(!plain.initialize());
    CHECK(refused_with(target, "without TLS, which is required"));
    SecureSession session(target.port(), client_key(false));
    CHECK(session.io.read(0, 1).ok());
  }
  {
    // What a plain host is told: an end, with a reason.
    TargetThread target(with_mode(TlsMode::kRequired));
    Host plain(target.port());
    const nvme::IcPdu request = Host::ic_request({});
    REQUIRE(plain.send_bytes(&request, sizeof(request)));
    uint16_t error = 0;
    CHECK(plain.closed_by_target(&error));
    CHECK(error == static_cast<uint16_t>(nvme::FatalError::kInvalidHeaderField));
  }
  // A host that has to use TLS, where others need not.
  TargetThread target;
  give_keys(target);
  target.on_reactor([&](nvme::Target&) { target.exports.secure_hosts.insert(kHostNqn); });
  Host plain(target.port());
  REQUIRE(plain.initialize());
  CHECK(plain.connect(kVolumeNqn, 0).failed_with(Status::kConnectInvalidHost));
  CHECK(plain.connect(kVolumeNqn, 0, 0xFFFF, kOtherHost).ok());
  SecureSession session(target.port(), client_key(false));
  CHECK(session.io.read(0, 1).ok());
}

nvme::DiscoveryEntry first_entry(Host& host) {
  nvme::DiscoveryEntry entry{};
  const Outcome log = host.log_page(nvme::LogPage::kDiscovery, 2048);
  if (CHECK(log.ok() && log.data.size() == 2048)) {
    std::memcpy(&entry, log.data.data() + 1024, sizeof(entry));
  }
  return entry;
}

void test_discovery_tells() {
  const auto look = [](TargetThread& target, const char* host_nqn, bool secure) {
    Host host(target.port());
    if (secure) REQUIRE(host.secure(client_key(true, nvme::kDiscoveryNqn)));
    REQUIRE(host.initialize() && host.connect(nvme::kDiscoveryNqn, 0, 0xFFFF, host_nqn).ok());
    REQUIRE(host.enable());
    return first_entry(host);
  };
  {
    TargetThread target;
    give_keys(target);
    target.on_reactor([&](nvme::Target&) { target.exports.secure_hosts.insert(kHostNqn); });
    const nvme::DiscoveryEntry own = look(target, kHostNqn, false);
    CHECK((own.requirements & 3) == 1 && own.transport_specific[0] == 2);
    const nvme::DiscoveryEntry other = look(target, kOtherHost, false);
    CHECK((other.requirements & 3) == 0 && other.transport_specific[0] == 0);
  }
  TargetThread target(with_mode(TlsMode::kRequired));
  give_keys(target);
  const nvme::DiscoveryEntry entry = look(target, kHostNqn, true);
  CHECK((entry.requirements & 3) == 1 && entry.transport_specific[0] == 2);
}

/// Slow, silent, torn and endless handshakes end, and hold up nobody.
void test_bad_handshakes() {
  nvme::TargetOptions options = any_port();
  options.connect_timeout_ms = 200;
  TargetThread target(options);
  give_keys(target);
  const Bytes hello = TlsClient(-1, client_key(false)).hello();
  for (const size_t size : {size_t{1}, size_t{5}, size_t{60}, hello.size() - 1, hello.size()}) {
    Host host(target.port());
    REQUIRE(host.send_bytes(hello.data(), size));
    std::byte byte;
    while (host.receive_bytes(&byte, 1)) {
    }
    CHECK(errno != EAGAIN);  // closed, not our own time limit
  }
  {
    // Records that promise more and more of one ClientHello.
    Host host(target.port());
    Bytes record(5 + 4096, std::byte{0});
    const unsigned char head[] = {22, 3, 1, 0x10, 0x00, 1, 1, 0xFF, 0xFF};
    std::memcpy(record.data(), head, sizeof(head));
    bool sent = host.send_bytes(record.data(), record.size());
    std::memset(record.data() + 5, 0, 4);
    for (int i = 0; i < 8 && sent; ++i) sent = host.send_bytes(record.data(), record.size());
    std::byte byte;
    while (host.receive_bytes(&byte, 1)) {
    }
    CHECK(refused_with(target, "the handshake is too long"));
  }
  {
    // A record larger than a record may be, instead of a Finished and later.
    Host host(target.port());
    const unsigned char giant[] = {22, 3, 3, 0x48, 0x01, 0};
    REQUIRE(host.send_bytes(giant, sizeof(giant)));
    std::byte byte;
    while (host.receive_bytes(&byte, 1)) {
    }
    CHECK(errno != EAGAIN);
  }
  {
    // The answer about the key comes when its connection has long been gone.
    target.on_reactor([&](nvme::Target&) { target.exports.tls_key_delay_ms = 400; });
    Host host(target.port());
    CHECK(!host.secure(client_key(false)));
    target.on_reactor([&](nvme::Target&) { target.exports.tls_key_delay_ms = 20; });
  }
  SecureSession session(target.port(), client_key(true));
  CHECK(session.io.read(0, 1).ok());
  {
    SecureSession torn(target.port(), client_key(true));
    const unsigned char giant[] = {23, 3, 3, 0x48, 0x01, 0};
    CHECK(::send(torn.io.fd(), giant, sizeof(giant), MSG_NOSIGNAL) == sizeof(giant));
    CHECK(torn.io.closed_by_target());
    CHECK(refused_with(target, "packet length too long"));
  }
  {
    SecureSession forged(target.port(), client_key(true));
    unsigned char record[5 + 64] = {23, 3, 3, 0, 64};
    RAND_bytes(record + 5, 64);
    CHECK(::send(forged.io.fd(), record, sizeof(record), MSG_NOSIGNAL) == sizeof(record));
    CHECK(forged.io.closed_by_target());
    CHECK(refused_with(target, "bad record mac"));
  }
  CHECK(session.io.read(0, 1).ok());
  CHECK(target.eventually([](nvme::Target& self) { return self.sessions().size() == 1; }));
}

void test_key_updates() {
  TargetThread target;
  give_keys(target);
  SecureSession session(target.port(), client_key(true));
  const Bytes data = pattern(16 * 4096, 21);
  for (int i = 0; i < 8; ++i) {
    // Both ways: the target answers with one of its own.
    CHECK(SSL_key_update(session.io.tls().ssl(), SSL_KEY_UPDATE_REQUESTED) == 1);
    CHECK(session.io.write(16, data, false).ok());
    const Outcome read = session.io.read(16, 16);
    CHECK(read.ok() && read.data == data);
  }
  for (int i = 0; i < 64; ++i) {
    if (SSL_key_update(session.admin.tls().ssl(), SSL_KEY_UPDATE_NOT_REQUESTED) != 1 ||
        SSL_do_handshake(session.admin.tls().ssl()) != 1) {
      break;
    }
  }
  CHECK(session.admin.closed_by_target());
  CHECK(refused_with(target, "renews its keys without end"));
}

/// The peer ends the stream, also in the middle of a PDU; ours ends with a word too.
void test_ends() {
  TargetThread target;
  give_keys(target);
  {
    SecureSession session(target.port(), client_key(true));
    const Bytes data = pattern(4096, 1);
    const Bytes capsule = session.io.capsule(
        Host::describe(Host::io(IoOpcode::kWrite, 1, 1), data.size(), true), data);
    REQUIRE(session.io.send_bytes(capsule.data(), 1000));
    SSL_shutdown(session.io.tls().ssl());
    CHECK(session.io.closed_by_target());
    CHECK(session.admin.property_get(nvme::Property::kStatus).ok());
  }
  CHECK(target.eventually([&](nvme::Target&) { return target.exports.open_count == 0; }));
  SecureSession session(target.port(), client_key(true));
  target.stop();
  CHECK(session.admin.closed_by_target() && session.admin.tls().told_goodbye());
}

/// Each connection's share is charged to its host, whose other connections live on.
void test_memory_is_charged() {
  nvme::TargetOptions options = any_port();
  options.tls_bytes = 1 << 20;
  options.tls_host_bytes = 1 << 20;
  TargetThread target(options);
  give_keys(target);
  {
    std::vector<std::unique_ptr<Host>> hosts;
    size_t served = 0;
    for (int i = 0; i < 20; ++i) {
      hosts.push_back(std::make_unique<Host>(target.port()));
      if (hosts.back()->secure(client_key(false)) && hosts.back()->initialize()) ++served;
    }
    CHECK(served == 16);
    CHECK(refused_with(target, "the host has too many connections"));
    CHECK(hosts[0]->connect(kVolumeNqn, 0).ok());
  }
  CHECK(target.eventually([](nvme::Target& self) { return self.tls_budget().used_bytes() == 0; }));
}

}  // namespace
}  // namespace pando::test

int main() {
  using namespace pando::test;
  test_data_moves();
  test_many_at_once();
  test_small_records();
  test_only_the_right_key();
  test_only_what_the_specification_asks_for();
  test_identity_is_that_of_connect();
  test_modes();
  test_discovery_tells();
  test_bad_handshakes();
  test_key_updates();
  test_ends();
  test_memory_is_charged();
  return finish("nvme_tls_test");
}
