// What the tests of the NVMe/TCP target run against: volumes in memory, exports that a test
// controls, and a target on its own reactor thread.
#pragma once

#include <sys/mman.h>

#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "nvme_target.h"
#include "reactor.h"

namespace pando::test {

inline constexpr char kVolumeNqn[] =
    "nqn.2026-01.io.pando:volume:8f14e45f-ceea-467f-9b1a-000000000001";
inline constexpr char kOtherNqn[] =
    "nqn.2026-01.io.pando:volume:8f14e45f-ceea-467f-9b1a-000000000002";
inline constexpr char kHostNqn[] =
    "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";

/// Address space only: what is not written takes no memory, so a volume grows at once.
inline constexpr uint64_t kMaxRamVolumeBytes = 8ull << 30;

/// A volume in memory. Everything in it belongs to the reactor thread.
class RamVolume final : public BlockVolume {
 public:
  RamVolume(Reactor& reactor, std::string name, uint8_t number, uint64_t size)
      : reactor_(reactor), name_(std::move(name)), size_(size) {
    void* memory = mmap(nullptr, kMaxRamVolumeBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || size > kMaxRamVolumeBytes) std::abort();
    memory_ = static_cast<std::byte*>(memory);
    uuid_ = {0x8f, 0x14, 0xe4, 0x5f, 0xce, 0xea, 0x46, 0x7f, 0x9b, 0x1a, 0, 0, 0, 0, 0, number};
  }

  ~RamVolume() override { munmap(memory_, kMaxRamVolumeBytes); }

  void submit(BlockIo* io) override {
    ++submitted;
    if (io->fua) ++fua_requests;
    if (delay_ms == 0) return finish(io);
    reactor_.add_timer(delay_ms, [this, io] { finish(io); });
  }
  uint64_t size_bytes() const override { return size_; }
  uint32_t block_size() const override { return 4096; }
  uint32_t atomic_unit() const override { return 512; }
  bool read_only() const override { return read_only_volume; }
  const std::array<uint8_t, 16>& uuid() const override { return uuid_; }
  const std::string& name() const override { return name_; }

  void resize(uint64_t size) { size_ = size <= kMaxRamVolumeBytes ? size : kMaxRamVolumeBytes; }

  uint64_t delay_ms = 0;
  bool read_only_volume = false;
  IoStatus fail_with = IoStatus::kOk;
  uint64_t submitted = 0;
  uint64_t finished = 0;
  uint64_t fua_requests = 0;
  uint64_t flushes = 0;
  uint64_t discarded_bytes = 0;

 private:
  void finish(BlockIo* io) {
    ++finished;
    io->status = fail_with != IoStatus::kOk ? fail_with : run(*io);
    io->done(io);
  }

  IoStatus run(const BlockIo& io) {
    if (io.op == IoOp::kFlush) {
      ++flushes;
      return IoStatus::kOk;
    }
    if (io.offset_bytes % kSectorSize != 0 || io.length_bytes % kSectorSize != 0) {
      return IoStatus::kInvalid;
    }
    if (io.offset_bytes > size_ || io.length_bytes > size_ - io.offset_bytes) {
      return IoStatus::kOutOfRange;
    }
    std::byte* at = memory_ + io.offset_bytes;
    switch (io.op) {
      case IoOp::kRead:
        std::memcpy(io.data, at, io.length_bytes);
        break;
      case IoOp::kWrite:
        std::memcpy(at, io.data, io.length_bytes);
        break;
      case IoOp::kDiscard:
        discarded_bytes += io.length_bytes;
        [[fallthrough]];
      case IoOp::kWriteZeroes:
        std::memset(at, 0, io.length_bytes);
        break;
      default:
        return IoStatus::kInvalid;
    }
    return IoStatus::kOk;
  }

  Reactor& reactor_;
  std::string name_;
  std::array<uint8_t, 16> uuid_{};
  std::byte* memory_ = nullptr;
  uint64_t size_;
};

/// Answers from a list; every host but the denied ones is allowed.
class FakeExports final : public Exports {
 public:
  explicit FakeExports(Reactor& reactor) : reactor_(reactor) {}

  void open(OpenRequest request, std::function<void(OpenResult)> done) override {
    OpenResult result;
    const auto found = volumes.find(request.name);
    if (found == volumes.end()) {
      result.status = OpenStatus::kNotFound;
    } else if (denied_hosts.contains(request.host_nqn) ||
               (secure_hosts.contains(request.host_nqn) && !request.secure)) {
      result.status = OpenStatus::kDenied;
    } else if (busy) {
      result.status = OpenStatus::kBusy;
    } else if (broken) {
      result.status = OpenStatus::kError;
    } else {
      result = {OpenStatus::kOk, found->second.get(),
                authenticate_hosts || guarded_hosts.contains(request.host_nqn)};
      ++open_count;
    }
    if (open_delay_ms == 0) return done(result);
    reactor_.add_timer(open_delay_ms, [done = std::move(done), result] { done(result); });
  }

  void close(FrontEnd, BlockVolume*, const std::string&) override { --open_count; }

  void list(FrontEnd, std::string host_nqn,
            std::function<void(std::vector<ExportEntry>)> done) override {
    std::vector<ExportEntry> entries;
    if (!denied_hosts.contains(host_nqn)) {
      for (const auto& [name, volume] : volumes) {
        entries.push_back({name, secure_hosts.contains(host_nqn)});
      }
      for (size_t i = 0; i < listed_besides; ++i) {
        entries.push_back({"nqn.2026-01.io.pando:volume:besides-" + std::to_string(i), false});
      }
    }
    reactor_.add_timer(0, [done = std::move(done), entries] { done(entries); });
  }

  /// A host that has said "yes" is let in when it asks for our message; one that has said anything
  /// else is not.
  void authenticate(AuthStep step, std::function<void(AuthAnswer)> done) override {
    std::string& said = authentications[step.connection];
    AuthAnswer answer{AuthVerdict::kPending, {}};
    if (!step.message.empty()) {
      said.assign(reinterpret_cast<const char*>(step.message.data()), step.message.size());
    } else {
      const bool good = said == "yes";
      answer.verdict = good ? AuthVerdict::kAuthenticated : AuthVerdict::kFailed;
      answer.message.assign(8, good ? std::byte{'+'} : std::byte{'-'});
    }
    reactor_.add_timer(auth_delay_ms, [done = std::move(done), answer] { done(answer); });
  }
  void authentication_ended(uint64_t connection) override { authentications.erase(connection); }

  /// Takes it for one of these keys if their identity is anywhere in it.
  void tls_key(TlsHello hello, std::function<void(TlsKey)> done) override {
    last_hello = hello.hello;
    const std::string_view text(reinterpret_cast<const char*>(hello.hello.data()),
                                hello.hello.size());
    TlsKey found;
    for (const TlsKey& key : tls_keys) {
      if (text.find(key.identity) != std::string_view::npos) found = key;
    }
    if (tls_key_delay_ms == 0) return done(found);
    reactor_.add_timer(tls_key_delay_ms, [done = std::move(done), found] { done(found); });
  }
  void refused(std::string, std::string reason) override { refusals.push_back(reason); }

  std::vector<TlsKey> tls_keys;
  uint64_t tls_key_delay_ms = 0;
  std::vector<std::byte> last_hello;
  std::vector<std::string> refusals;
  std::map<std::string, std::unique_ptr<RamVolume>> volumes;
  bool authenticate_hosts = false;
  std::set<std::string> guarded_hosts;
  uint64_t auth_delay_ms = 0;
  std::map<uint64_t, std::string> authentications;  // what each connection said last
  std::set<std::string> denied_hosts;
  std::set<std::string> secure_hosts;  // have to use TLS
  bool busy = false;
  bool broken = false;  // knows no answer
  size_t listed_besides = 0;
  uint64_t open_delay_ms = 0;
  int64_t open_count = 0;

 private:
  Reactor& reactor_;
};

inline nvme::TargetOptions any_port() {
  nvme::TargetOptions options;
  options.listen = {{"127.0.0.1", 0}};
  return options;
}

/// A target with two volumes on a thread of its own. The destructor stops it and checks that every
/// volume was closed.
class TargetThread {
 public:
  explicit TargetThread(nvme::TargetOptions options = any_port(), uint64_t volume_bytes = 16 << 20)
      : exports(reactor_) {
    volume = add_volume(kVolumeNqn, 1, volume_bytes);
    other_volume = add_volume(kOtherNqn, 2, volume_bytes);
    target_ = std::make_unique<nvme::Target>(reactor_, exports, std::move(options));
    target_->start();
    thread_ = std::thread([this] { reactor_.run(); });
  }

  ~TargetThread() {
    stop();
    reactor_.stop();
    thread_.join();
    if (exports.open_count != 0) {
      std::fprintf(stderr, "volumes left open: %lld\n", static_cast<long long>(exports.open_count));
      std::abort();
    }
  }

  /// Waits until the last volume is closed.
  void stop() {
    if (std::exchange(stopped_, true)) return;
    std::mutex mutex;
    std::condition_variable changed;
    bool stopped = false;
    reactor_.post([&] {
      target_->stop([&] {
        std::lock_guard lock(mutex);
        stopped = true;
        changed.notify_one();
      });
    });
    {
      std::unique_lock lock(mutex);
      if (!changed.wait_for(lock, std::chrono::seconds(10), [&] { return stopped; })) {
        std::fprintf(stderr, "the target does not stop\n");
        std::abort();
      }
    }
  }

  uint16_t port() const { return target_->ports().front(); }
  std::vector<uint16_t> ports() const { return target_->ports(); }

  /// Runs `function` on the reactor thread and waits for it.
  void on_reactor(const std::function<void(nvme::Target&)>& function) {
    std::mutex mutex;
    std::condition_variable changed;
    bool ran = false;
    reactor_.post([&] {
      function(*target_);
      std::lock_guard lock(mutex);
      ran = true;
      changed.notify_one();
    });
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return ran; });
  }

  int64_t open_volumes() {
    int64_t count = 0;
    on_reactor([&](nvme::Target&) { count = exports.open_count; });
    return count;
  }

  size_t buffer_bytes() {
    size_t bytes = 0;
    on_reactor([&](nvme::Target& target) { bytes = target.reactor().buffers().in_use_bytes(); });
    return bytes;
  }

  /// Waits until `condition`, which runs on the reactor thread, holds; false after two seconds.
  bool eventually(const std::function<bool(nvme::Target&)>& condition) {
    for (int i = 0; i < 200; ++i) {
      bool holds = false;
      on_reactor([&](nvme::Target& target) { holds = condition(target); });
      if (holds) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

 private:
  Reactor reactor_;

 public:
  FakeExports exports;
  RamVolume* volume = nullptr;
  RamVolume* other_volume = nullptr;

 private:
  RamVolume* add_volume(const char* nqn, uint8_t number, uint64_t bytes) {
    auto made = std::make_unique<RamVolume>(reactor_, nqn, number, bytes);
    RamVolume* raw = made.get();
    exports.volumes.emplace(nqn, std::move(made));
    return raw;
  }

  std::unique_ptr<nvme::Target> target_;
  std::thread thread_;
  bool stopped_ = false;
};

}  // namespace pando::test
