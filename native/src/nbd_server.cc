#include "nbd_server.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "assert.h"

namespace pando {
namespace {

constexpr int kBacklog = 128;
constexpr uint64_t kAcceptRetryMs = 100;

std::system_error error(int number, const std::string& path) {
  return std::system_error(number, std::generic_category(), "NBD socket " + path);
}

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) throw error(ENAMETOOLONG, path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

/// A file descriptor until it is released.
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

/// Removes the socket of a server that is gone, and nothing else.
void remove_stale(const sockaddr_un& address, const std::string& path) {
  struct stat status;
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return;
    throw error(errno, path);
  }
  if (!S_ISSOCK(status.st_mode)) throw error(EEXIST, path);
  const Fd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (probe.get() < 0) throw error(errno, path);
  const auto* raw = reinterpret_cast<const sockaddr*>(&address);
  if (::connect(probe.get(), raw, sizeof(address)) == 0 || errno == EAGAIN) {
    throw error(EADDRINUSE, path);
  }
  if (errno != ECONNREFUSED) throw error(errno, path);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw error(errno, path);
}

}  // namespace

NbdServer::NbdServer(Reactor& reactor, Exports& exports, std::string path, NbdLimits limits)
    : reactor_(reactor), exports_(exports), path_(std::move(path)), limits_(limits) {
  accept_op_.context = this;
  accept_op_.done = [](RingOp* op, int32_t result) {
    static_cast<NbdServer*>(op->context)->on_accepted(result);
  };
}

NbdServer::~NbdServer() {
  PANDO_ASSERT(fd_ < 0 && !accepting_ && connections_.empty());
}

void NbdServer::start() {
  PANDO_ASSERT(fd_ < 0 && !stopping_);
  const sockaddr_un address = address_of(path_);
  remove_stale(address, path_);
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // The mode of the socket before bind() becomes the file's, so that it is never open to others.
  if (fd.get() < 0 || ::fchmod(fd.get(), 0600) != 0 ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    throw error(errno, path_);
  }
  if (::listen(fd.get(), kBacklog) != 0) {
    const int number = errno;
    ::unlink(path_.c_str());
    throw error(number, path_);
  }
  fd_ = fd.release();
  accept();
}

void NbdServer::accept() {
  accepting_ = true;
  reactor_.ring().accept(&accept_op_, fd_);
}

void NbdServer::on_accepted(int32_t result) {
  accepting_ = false;
  if (stopping_) {
    if (result >= 0) ::close(result);
    return check_stopped();
  }
  if (result < 0) {
    // Out of descriptors or memory, most likely: somebody has to leave first.
    retry_timer_ = reactor_.add_timer(kAcceptRetryMs, [this] { accept(); });
    return;
  }
  if (connections_.size() >= limits_.connections) {
    ::close(result);
  } else {
    NbdConnection::Options options{
        .fd = result,
        .negotiation_timeout_ms = limits_.negotiation_timeout_ms,
        // Posted, since the connection is still on the stack.
        .finished = [this](NbdConnection* gone) { reactor_.post([this, gone] { remove(gone); }); },
    };
    connections_.push_back(std::make_unique<NbdConnection>(reactor_, exports_, std::move(options)));
    connections_.back()->start();
  }
  accept();
}

void NbdServer::remove(NbdConnection* connection) {
  const auto found = std::find_if(connections_.begin(), connections_.end(),
                                  [=](const auto& each) { return each.get() == connection; });
  PANDO_ASSERT(found != connections_.end());
  // Out of the list before it is destroyed, which calls Exports.
  std::unique_ptr<NbdConnection> gone = std::move(*found);
  connections_.erase(found);
  gone.reset();
  check_stopped();
}

void NbdServer::disconnect(const std::string& volume_name) {
  for (const auto& connection : connections_) {
    const BlockVolume* volume = connection->volume();
    if (volume != nullptr && volume->name() == volume_name) connection->close();
  }
}

void NbdServer::stop(std::function<void()> stopped) {
  PANDO_ASSERT(fd_ >= 0 && !stopping_);
  stopping_ = true;
  stopped_ = std::move(stopped);
  ::unlink(path_.c_str());
  reactor_.cancel_timer(retry_timer_);
  if (accepting_) reactor_.ring().cancel(&accept_op_);
  for (const auto& connection : connections_) connection->close();
  // Else the last of those calls it: exactly one call finds nothing left, as it may destroy this.
  if (!accepting_ && connections_.empty()) reactor_.post([this] { check_stopped(); });
}

void NbdServer::check_stopped() {
  if (!stopping_ || accepting_ || !connections_.empty()) return;
  ::close(std::exchange(fd_, -1));
  // Moved out: it may destroy this server.
  const auto stopped = std::move(stopped_);
  stopped();
}

}  // namespace pando
