#include "nbd_device_server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "assert.h"
#include "nbd_negotiation.h"
#include "nbd_socket.h"
#include "nbd_transmission.h"

namespace pando {

class NbdDeviceServer::Served final : private NbdSocket::User, private NbdTransmission::User {
 public:
  /// `finished`: may be destroyed, but not before this function has returned. Called once.
  Served(Reactor& reactor, BlockVolume* volume, int socket, std::function<void()> finished)
      : volume_(volume),
        finished_(std::move(finished)),
        socket_(reactor, socket, *this),
        transmission_(socket_, reactor.buffers(), {volume}, *this) {}

  void start() { transmission_.pump(); }
  void close() {
    meant_ = true;
    socket_.close();
  }

  BlockVolume* volume() const { return volume_; }
  bool lost() const { return !meant_; }
  std::vector<Ended> waiting;

 private:
  void on_received() override { transmission_.on_received(); }
  void on_settled() override { finish_if_over(); }
  void on_transmission_idle() override { finish_if_over(); }
  void on_disconnected() override { socket_.close(); }
  void finish_if_over() {
    if (finished_ == nullptr || !socket_.settled() || !transmission_.idle()) return;
    std::exchange(finished_, nullptr)();
  }

  BlockVolume* volume_;
  std::function<void()> finished_;
  bool meant_ = false;
  NbdSocket socket_;
  NbdTransmission transmission_;
};

NbdDeviceServer::NbdDeviceServer(Reactor& reactor, Exports& exports)
    : reactor_(reactor), exports_(exports) {}

NbdDeviceServer::~NbdDeviceServer() {
  PANDO_ASSERT(served_.empty() && opening_ == 0);
}

void NbdDeviceServer::serve(std::string volume, Done done) {
  if (leaving_) return done(ESHUTDOWN, -1, 0);
  if (served_.contains(volume)) return done(EBUSY, -1, 0);
  ++opening_;
  OpenRequest request{FrontEnd::kNbdDevice, volume, "", "nbd device"};
  exports_.open(std::move(request), [this, volume = std::move(volume),
                                     done = std::move(done)](const OpenResult& result) {
    --opening_;
    on_opened(volume, result, done);
    check_left();
  });
}

void NbdDeviceServer::on_opened(const std::string& name, OpenResult result, const Done& done) {
  if (result.status != OpenStatus::kOk) return done(errno_of(result.status), -1, 0);
  std::array<int, 2> sockets{-1, -1};
  int error = leaving_ ? ESHUTDOWN : 0;
  if (error == 0 && served_.contains(name)) error = EBUSY;
  if (error == 0 && ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0) {
    error = errno;
  }
  if (error != 0) {
    exports_.close(FrontEnd::kNbdDevice, result.volume, "");
    return done(error, -1, 0);
  }
  // Posted, since what is served is still on the stack.
  auto finished = [this, name] { reactor_.post([this, name] { remove(name); }); };
  auto served = std::make_unique<Served>(reactor_, result.volume, sockets[0], std::move(finished));
  Served* begun = served_.emplace(name, std::move(served)).first->second.get();
  begun->start();
  done(0, sockets[1], nbd_transmission_flags(*result.volume, false));
}

void NbdDeviceServer::when_ended(const std::string& volume, Ended ended) {
  const auto found = served_.find(volume);
  if (found == served_.end()) return ended(false);
  found->second->waiting.push_back(std::move(ended));
}

void NbdDeviceServer::release(const std::string& volume) {
  const auto found = served_.find(volume);
  if (found != served_.end()) found->second->close();
}

void NbdDeviceServer::leave(std::function<void()> done) {
  PANDO_ASSERT(!leaving_);
  leaving_ = true;
  on_left_ = std::move(done);
  for (const auto& [name, served] : served_) served->close();
  // Else the last that goes calls it: it may destroy this.
  if (served_.empty() && opening_ == 0) reactor_.post([this] { check_left(); });
}

void NbdDeviceServer::remove(const std::string& volume) {
  const auto over = served_.extract(volume);
  PANDO_ASSERT(!over.empty());
  std::unique_ptr<Served> served = std::move(over.mapped());
  BlockVolume* opened = served->volume();
  const std::vector<Ended> waiting = std::move(served->waiting);
  const bool lost = served->lost();
  served.reset();
  exports_.close(FrontEnd::kNbdDevice, opened, "");
  for (const Ended& ended : waiting) ended(lost);
  check_left();
}

void NbdDeviceServer::check_left() {
  if (on_left_ == nullptr || !served_.empty() || opening_ > 0) return;
  // Moved out: it may destroy this server.
  const auto left = std::exchange(on_left_, nullptr);
  left();
}

}  // namespace pando
