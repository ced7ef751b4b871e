// An NBD client for tests: speaks bytes, so that it can also speak wrongly.
//
// NbdFixture runs the server and its reactor on the test's own thread: whatever the client waits
// for turns the reactor, so a test is one sequence of steps with no second thread in it.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "memory_exports.h"
#include "memory_volume.h"
#include "nbd_server.h"
#include "nbd_spec.h"

namespace pando::test {

using Bytes = std::vector<std::byte>;

class NbdFixture {
 public:
  explicit NbdFixture(MemoryVolume::Options options = {}, NbdLimits limits = {})
      : path_("/tmp/pando-nbd-test-" + std::to_string(::getpid()) + ".sock"),
        volume_(with_reactor(std::move(options))),
        server_(reactor_, exports_, path_, limits) {
    exports_.add(&volume_);
    server_.start();
  }
  ~NbdFixture() {
    bool stopped = false;
    server_.stop([&] { stopped = true; });
    REQUIRE(turn_until([&] { return stopped; }));
    CHECK(exports_.open_count(&volume_) == 0);
    CHECK(reactor_.buffers().in_use_bytes() == 0);
    CHECK(::access(path_.c_str(), F_OK) != 0);
  }

  /// Turns the reactor until `reached`; false if that takes longer than any test should.
  bool turn_until(const std::function<bool()>& reached) {
    const uint64_t end_ms = reactor_.now_ms() + 10000;
    while (!reached()) {
      if (reactor_.now_ms() > end_ms) return false;
      reactor_.turn(200);
    }
    return true;
  }
  /// Lets the server do whatever it can do now.
  void settle() {
    for (int i = 0; i < 20; ++i) reactor_.turn(500);
  }

  Reactor& reactor() { return reactor_; }
  MemoryExports& exports() { return exports_; }
  MemoryVolume& volume() { return volume_; }
  NbdServer& server() { return server_; }
  const std::string& path() const { return path_; }

 private:
  /// A volume that completes later needs the reactor, unless the test completes by hand (delay_ms
  /// is then UINT64_MAX).
  MemoryVolume::Options with_reactor(MemoryVolume::Options options) {
    if (options.delay_ms != UINT64_MAX) options.reactor = &reactor_;
    return options;
  }

  const std::string path_;
  Reactor reactor_;
  MemoryExports exports_;
  MemoryVolume volume_;
  NbdServer server_;
};

class NbdClient {
 public:
  struct OptionAnswer {
    uint32_t type = 0;
    Bytes data;
    std::string text() const { return {reinterpret_cast<const char*>(data.data()), data.size()}; }
  };
  struct Reply {
    bool structured = false;
    uint32_t error = 0;
    uint64_t cookie = 0;
    uint16_t chunk_type = 0;
    Bytes data;  // of a structured reply: after the chunk's header
  };

  explicit NbdClient(NbdFixture& fixture) : NbdClient(fixture, fixture.path()) {}
  NbdClient(NbdFixture& fixture, const std::string& path) : fixture_(fixture) {
    fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path.c_str());
    REQUIRE(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    REQUIRE(::fcntl(fd_, F_SETFL, O_NONBLOCK) == 0);
  }
  /// The kernel's end of a device: past the handshake. Takes over `fd`.
  NbdClient(NbdFixture& fixture, int fd) : fixture_(fixture), fd_(fd) {
    REQUIRE(::fcntl(fd_, F_SETFL, O_NONBLOCK) == 0);
  }
  NbdClient(const NbdClient&) = delete;
  NbdClient& operator=(const NbdClient&) = delete;
  ~NbdClient() { close(); }

  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  void shut_down_writing() { ::shutdown(fd_, SHUT_WR); }

  /// False if the server has gone.
  bool send(const void* data, size_t size) {
    const auto* bytes = static_cast<const std::byte*>(data);
    return fixture_.turn_until([&] {
      const ssize_t sent = ::send(fd_, bytes, size, MSG_NOSIGNAL);
      if (sent < 0) return gone_ = errno != EAGAIN;
      bytes += sent;
      size -= static_cast<size_t>(sent);
      return size == 0;
    }) && !gone_;
  }
  template <typename Head>
  bool send(const Head& head) {
    return send(&head, sizeof(head));
  }
  bool send(const Bytes& bytes) { return send(bytes.data(), bytes.size()); }

  /// False if the socket is full.
  template <typename Head>
  bool send_now(const Head& head) {
    return ::send(fd_, &head, sizeof(head), MSG_NOSIGNAL) == sizeof(head);
  }
  /// In pieces, throwing away what comes back, until all is sent or the server has gone.
  void send_while_reading(const Bytes& bytes, size_t piece) {
    size_t at = 0;
    REQUIRE(fixture_.turn_until([&] {
      std::byte scratch[65536];
      while (::recv(fd_, scratch, sizeof(scratch), 0) > 0) {
      }
      const ssize_t sent =
          ::send(fd_, bytes.data() + at, std::min(piece, bytes.size() - at), MSG_NOSIGNAL);
      if (sent < 0) return errno != EAGAIN;
      at += static_cast<size_t>(sent);
      return at == bytes.size();
    }));
  }

  bool receive(void* data, size_t size) {
    auto* bytes = static_cast<std::byte*>(data);
    if (size == 0) return true;
    return fixture_.turn_until([&] {
      const ssize_t got = ::recv(fd_, bytes, size, 0);
      if (got == 0 || (got < 0 && errno != EAGAIN)) return gone_ = true;
      if (got < 0) return false;
      bytes += got;
      size -= static_cast<size_t>(got);
      return size == 0;
    }) && !gone_;
  }
  /// The same, but the bytes stay to be received.
  bool peek(void* data, size_t size) {
    return fixture_.turn_until(
        [&] { return ::recv(fd_, data, size, MSG_PEEK) == static_cast<ssize_t>(size); });
  }
  template <typename Head>
  Head receive() {
    Head head{};
    REQUIRE(receive(&head, sizeof(head)));
    return head;
  }
  Bytes receive_bytes(size_t size) {
    Bytes bytes(size);
    REQUIRE(receive(bytes.data(), size));
    return bytes;
  }
  /// True once the server has ended the connection; whatever it sent before is thrown away.
  bool ended() {
    return fixture_.turn_until([&] {
      std::byte scratch[4096];
      const ssize_t got = ::recv(fd_, scratch, sizeof(scratch), 0);
      return got == 0 || (got < 0 && errno != EAGAIN);
    });
  }
  /// Nothing has been sent that is not received, and the connection lives.
  bool quiet() {
    fixture_.settle();
    std::byte scratch;
    return ::recv(fd_, &scratch, 1, MSG_PEEK) < 0 && errno == EAGAIN;
  }

  // The handshake.

  void greet(uint32_t flags = nbd::kClientFixedNewstyle | nbd::kClientNoZeroes) {
    const auto greeting = receive<nbd::Greeting>();
    CHECK(greeting.magic == nbd::kMagic && greeting.option_magic == nbd::kOptionMagic);
    CHECK(greeting.handshake_flags == (nbd::kFlagFixedNewstyle | nbd::kFlagNoZeroes));
    REQUIRE(send(nbd::Be32(flags)));
  }
  void send_option(uint32_t option, const Bytes& data) {
    REQUIRE(send(nbd::OptionHeader{nbd::kOptionMagic, option, static_cast<uint32_t>(data.size())}));
    if (!data.empty()) REQUIRE(send(data));
  }
  OptionAnswer option_answer(uint32_t option) {
    const auto reply = receive<nbd::OptionReply>();
    CHECK(reply.magic == nbd::kOptionReplyMagic && reply.option == option);
    REQUIRE(reply.length < 1 << 20);
    return {reply.type, receive_bytes(reply.length)};
  }
  /// All answers up to the acknowledgement or error, which is the last.
  std::vector<OptionAnswer> ask(uint32_t option, const Bytes& data = {}) {
    send_option(option, data);
    std::vector<OptionAnswer> answers;
    do {
      answers.push_back(option_answer(option));
    } while (answers.back().type != nbd::kRepAck && answers.back().type < 0x80000000);
    return answers;
  }
  /// The data of NBD_OPT_INFO and NBD_OPT_GO.
  static Bytes choice(const std::string& name, const std::vector<uint16_t>& infos = {}) {
    Bytes data = string(name);
    append(data, nbd::Be16(static_cast<uint16_t>(infos.size())));
    for (const uint16_t info : infos) append(data, nbd::Be16(info));
    return data;
  }
  /// The data of the NBD_OPT_*_META_CONTEXTs.
  static Bytes contexts(const std::string& name, const std::vector<std::string>& queries) {
    Bytes data = string(name);
    append(data, nbd::Be32(static_cast<uint32_t>(queries.size())));
    for (const auto& query : queries) append_bytes(data, string(query));
    return data;
  }
  /// Through the whole handshake.
  void go(bool structured, const std::string& name = "volume") {
    greet();
    if (structured) {
      CHECK(ask(nbd::kOptStructuredReply).back().type == nbd::kRepAck);
      CHECK(ask(nbd::kOptSetMetaContext, contexts(name, {nbd::kBaseAllocation})).size() == 2);
    }
    CHECK(ask(nbd::kOptGo, choice(name)).back().type == nbd::kRepAck);
  }

  // The requests.

  struct Request {
    uint16_t type;
    uint64_t offset = 0;
    uint32_t length = 0;
    uint16_t flags = 0;
    uint64_t cookie = 0;
    Bytes payload = {};
  };
  void post(const Request& request) {
    REQUIRE(send(nbd::Request{nbd::kRequestMagic, request.flags, request.type, request.cookie,
                              request.offset, request.length}));
    if (!request.payload.empty()) REQUIRE(send(request.payload));
  }
  /// `simple_data`: how much data follows if the reply is a simple one without an error.
  Reply reply(size_t simple_data = 0) {
    Reply reply;
    const auto magic = receive<nbd::Be32>();
    reply.structured = magic == nbd::kChunkMagic;
    if (!reply.structured) {
      REQUIRE(magic == nbd::kSimpleReplyMagic);
      reply.error = receive<nbd::Be32>();
      reply.cookie = receive<nbd::Be64>();
      if (reply.error == nbd::kOk) reply.data = receive_bytes(simple_data);
      return reply;
    }
    CHECK(receive<nbd::Be16>() == nbd::kChunkFlagDone);
    reply.chunk_type = receive<nbd::Be16>();
    reply.cookie = receive<nbd::Be64>();
    const uint32_t length = receive<nbd::Be32>();
    REQUIRE(length <= kMaxIoBytes + 8);
    reply.data = receive_bytes(length);
    if (reply.chunk_type == nbd::kChunkError) {
      nbd::Be32 error;
      REQUIRE(reply.data.size() == 6);
      std::memcpy(&error, reply.data.data(), sizeof(error));
      reply.error = error;
    }
    return reply;
  }
  /// One request and its reply.
  Reply run(const Request& request) {
    post(request);
    Reply result = reply(request.type == nbd::kCmdRead ? request.length : 0);
    CHECK(result.cookie == request.cookie);
    return result;
  }
  uint32_t write(uint64_t offset, Bytes payload, uint16_t flags = 0) {
    const auto length = static_cast<uint32_t>(payload.size());
    return run({nbd::kCmdWrite, offset, length, flags, 77, std::move(payload)}).error;
  }

  template <typename Value>
  static void append(Bytes& bytes, const Value& value) {
    const auto* begin = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), begin, begin + sizeof(value));
  }
  static void append_bytes(Bytes& bytes, const Bytes& more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
  static Bytes string(const std::string& text) {
    Bytes bytes;
    append(bytes, nbd::Be32(static_cast<uint32_t>(text.size())));
    const auto* begin = reinterpret_cast<const std::byte*>(text.data());
    bytes.insert(bytes.end(), begin, begin + text.size());
    return bytes;
  }

 private:
  NbdFixture& fixture_;
  int fd_ = -1;
  bool gone_ = false;
};

/// `size` bytes that differ from place to place and from seed to seed.
inline Bytes pattern(size_t size, uint32_t seed) {
  Bytes bytes(size);
  uint32_t state = seed * 2654435761U + 1;
  for (auto& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<std::byte>(state >> 24);
  }
  return bytes;
}

}  // namespace pando::test
