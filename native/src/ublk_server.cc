#include "ublk_server.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "assert.h"
#include "ublk_control.h"
#include "ublk_device.h"
#include "ublk_spec.h"

namespace pando {
namespace {

constexpr uint64_t kReleaseTimeoutMs = 30'000;

/// /dev/ublkcN, open, with its descriptors mapped.
class CharacterDevice final : public UblkChannel {
 public:
  /// Throws std::system_error.
  CharacterDevice(Ring& ring, uint32_t id) : ring_(ring) {
    const std::string path = ublk::kDevicePath + std::to_string(id);
    fd_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (fd_ < 0) throw std::system_error(errno, std::generic_category(), path);
    void* memory = ::mmap(nullptr, kMapBytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd_, 0);
    if (memory == MAP_FAILED) {
      const int error = errno;
      ::close(fd_);
      throw std::system_error(error, std::generic_category(), path);
    }
    descriptors_ = static_cast<const ublk::Descriptor*>(memory);
  }
  CharacterDevice(const CharacterDevice&) = delete;
  CharacterDevice& operator=(const CharacterDevice&) = delete;
  ~CharacterDevice() override {
    ::munmap(const_cast<ublk::Descriptor*>(descriptors_), kMapBytes);
    ::close(fd_);
  }

  const ublk::Descriptor& descriptor(uint16_t tag) const override { return descriptors_[tag]; }

  // A copy between memories, which does not block.
  bool copy_in(uint16_t tag, std::byte* data, size_t size) override {
    const auto offset = static_cast<off_t>(ublk::data_offset(tag));
    return ::pread(fd_, data, size, offset) == static_cast<ssize_t>(size);
  }
  bool copy_out(uint16_t tag, const std::byte* data, size_t size) override {
    const auto offset = static_cast<off_t>(ublk::data_offset(tag));
    return ::pwrite(fd_, data, size, offset) == static_cast<ssize_t>(size);
  }

  void fetch(RingOp* op, uint16_t tag) override {
    const ublk::IoCommand command{0, tag, 0, 0};
    ring_.command(op, fd_, ublk::kFetch, &command);
  }
  void commit_and_fetch(RingOp* op, uint16_t tag, int32_t result) override {
    const ublk::IoCommand command{0, tag, result, 0};
    ring_.command(op, fd_, ublk::kCommitAndFetch, &command);
  }

 private:
  static constexpr size_t kPageBytes = 4096;
  static constexpr size_t kMapBytes =
      (ublk::kQueueDepth * sizeof(ublk::Descriptor) + kPageBytes - 1) / kPageBytes * kPageBytes;

  Ring& ring_;
  int fd_ = -1;
  const ublk::Descriptor* descriptors_ = nullptr;
};

}  // namespace

class UblkServer::Served {
 public:
  Served(Reactor& reactor, uint32_t id, BlockVolume* opened)
      : volume(opened),
        channel(reactor.ring(), id),
        device(channel, reactor.buffers(), *opened, ublk::kQueueDepth) {}

  BlockVolume* volume;
  CharacterDevice channel;
  UblkDevice device;
  bool releasing = false;
};

UblkServer::UblkServer(Reactor& reactor, Exports& exports) : reactor_(reactor), exports_(exports) {}

UblkServer::~UblkServer() {
  PANDO_ASSERT(left_ || (served_.empty() && opening_ == 0));
}

void UblkServer::serve(uint32_t device, std::string volume, Done done) {
  if (leaving_) return done(ESHUTDOWN);
  if (served_.contains(device)) return done(EBUSY);
  ++opening_;
  OpenRequest request{FrontEnd::kUblk, std::move(volume), "", "ublk " + std::to_string(device)};
  exports_.open(std::move(request),
                [this, device, done = std::move(done)](const OpenResult& result) {
                  --opening_;
                  on_opened(device, result, done);
                  check_left();
                });
}

void UblkServer::on_opened(uint32_t device, OpenResult result, const Done& done) {
  if (result.status != OpenStatus::kOk) return done(errno_of(result.status));
  int error = leaving_ ? ESHUTDOWN : 0;
  if (error == 0) {
    try {
      auto served = std::make_unique<Served>(reactor_, device, result.volume);
      served->device.start();
      served_.emplace(device, std::move(served));
    } catch (const std::system_error& failure) {
      error = failure.code().value();
    }
  }
  if (error != 0) exports_.close(FrontEnd::kUblk, result.volume, "");
  done(error);
}

void UblkServer::release(uint32_t device, Done done) {
  const auto found = served_.find(device);
  if (found == served_.end()) return done(0);
  Served* served = found->second.get();
  if (leaving_ || std::exchange(served->releasing, true)) return done(EBUSY);
  auto answer = std::make_shared<Done>(std::move(done));
  const TimerId timer = reactor_.add_timer(kReleaseTimeoutMs, [answer] {
    if (*answer) std::exchange(*answer, nullptr)(ETIMEDOUT);
  });
  served->device.when_stopped([this, device, timer, answer] {
    reactor_.cancel_timer(timer);
    // Posted, since the device is still on the stack.
    reactor_.post([this, device, answer] {
      const auto stopped = served_.extract(device);
      let_go(*stopped.mapped());
      if (*answer) std::exchange(*answer, nullptr)(0);
    });
  });
}

void UblkServer::leave(std::function<void()> done) {
  PANDO_ASSERT(!leaving_);
  leaving_ = true;
  on_left_ = std::move(done);
  for (const auto& [id, served] : served_) {
    ++busy_;
    served->device.leave([this, each = served.get()] {
      let_go(*each);
      --busy_;
      check_left();
    });
  }
  check_left();
}

void UblkServer::let_go(Served& served) {
  if (served.volume == nullptr) return;
  exports_.close(FrontEnd::kUblk, std::exchange(served.volume, nullptr), "");
}

void UblkServer::check_left() {
  if (!leaving_ || left_ || busy_ > 0 || opening_ > 0) return;
  left_ = true;
  std::exchange(on_left_, nullptr)();
}

}  // namespace pando
