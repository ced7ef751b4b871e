#include "nvme_listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "assert.h"

namespace pando::nvme {
namespace {

constexpr int kBacklog = 256;
constexpr uint64_t kAcceptRetryMs = 100;

struct SocketName {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

SocketName parse_place(const Place& place) {
  SocketName name;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&name.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&name.storage);
  if (inet_pton(AF_INET, place.address.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(place.port);
    name.size = sizeof(*v4);
  } else if (inet_pton(AF_INET6, place.address.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(place.port);
    name.size = sizeof(*v6);
  }
  return name;
}

Place place_of(const sockaddr_storage& name) {
  char text[INET6_ADDRSTRLEN] = "";
  if (name.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(name);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
    return {text, ntohs(v4.sin_port)};
  }
  if (name.ss_family != AF_INET6) return {};
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(name);
  if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
    inet_ntop(AF_INET, v6.sin6_addr.s6_addr + 12, text, sizeof(text));
  } else {
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
  }
  return {text, ntohs(v6.sin6_port)};
}

}  // namespace

Listener::Listener(Reactor& reactor, Place place, std::function<void(int fd)> accepted)
    : reactor_(reactor), place_(std::move(place)), accepted_(std::move(accepted)) {
  accept_op_.context = this;
  accept_op_.done = [](RingOp* op, int32_t result) {
    static_cast<Listener*>(op->context)->on_accepted(result);
  };
}

Listener::~Listener() {
  PANDO_ASSERT(!accepting_ && retry_timer_ == 0);
  if (fd_ >= 0) ::close(fd_);
}

void Listener::bind() {
  PANDO_ASSERT(fd_ < 0 && !stopping_);
  const SocketName name = parse_place(place_);
  if (name.size == 0) {
    throw std::system_error(EINVAL, std::generic_category(),
                            "NVMe/TCP target: not a numeric address: " + place_.address);
  }
  const int fd = socket(name.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  // An IPv6 wildcard beside an IPv4 one on the same port: each takes its own.
  const bool both = name.storage.ss_family == AF_INET6;
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) != 0 ||
      (both && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof(yes)) != 0) ||
      ::bind(fd, reinterpret_cast<const sockaddr*>(&name.storage), name.size) != 0 ||
      ::listen(fd, kBacklog) != 0) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    throw std::system_error(error, std::generic_category(),
                            "NVMe/TCP target: cannot listen on " + place_.address + " port " +
                                std::to_string(place_.port));
  }
  fd_ = fd;
  place_.port = local_place(fd).port;
}

void Listener::start() {
  PANDO_ASSERT(fd_ >= 0 && !accepting_);
  accept_next();
}

void Listener::accept_next() {
  accepting_ = true;
  reactor_.ring().accept(&accept_op_, fd_);
}

void Listener::on_accepted(int32_t result) {
  accepting_ = false;
  if (stopping_) {
    if (result >= 0) ::close(result);
    return std::exchange(stopped_, nullptr)();
  }
  if (result < 0) {
    retry_timer_ = reactor_.add_timer(kAcceptRetryMs, [this] {
      retry_timer_ = 0;
      accept_next();
    });
    return;
  }
  accept_next();
  accepted_(result);
}

void Listener::stop(std::function<void()> stopped) {
  PANDO_ASSERT(!stopping_);
  stopping_ = true;
  reactor_.cancel_timer(retry_timer_);
  retry_timer_ = 0;
  if (!accepting_) return stopped();
  stopped_ = std::move(stopped);
  ::shutdown(fd_, SHUT_RDWR);
  reactor_.ring().cancel(&accept_op_);
}

std::string peer_of(int fd) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) return "unknown";
  const Place place = place_of(name);
  const bool v6 = place.address.find(':') != std::string::npos;
  return (v6 ? "[" + place.address + "]" : place.address) + ":" + std::to_string(place.port);
}

Place local_place(int fd) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  (void)getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size);
  return place_of(name);
}

}  // namespace pando::nvme
