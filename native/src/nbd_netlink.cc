#include "nbd_netlink.h"

#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <system_error>
#include <thread>
#include <vector>

namespace pando::nbd {
namespace {

constexpr time_t kTimeoutSeconds = 30;
constexpr size_t kAnswerBytes = 8192;
constexpr auto kRetry = std::chrono::milliseconds(50);
constexpr int kRetries = 600;

[[noreturn]] void fail(int error, const char* what) {
  throw std::system_error(error, std::generic_category(), what);
}

constexpr size_t aligned(size_t size) {
  return (size + 3) & ~size_t{3};
}

/// A request being written: attributes, which may have attributes in them.
class Request {
 public:
  Request(uint16_t family, uint8_t command, uint8_t version) {
    nlmsghdr header{};
    header.nlmsg_type = family;
    header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    append(&header, sizeof(header));
    genlmsghdr generic{};
    generic.cmd = command;
    generic.version = version;
    append(&generic, sizeof(generic));
  }

  template <typename Value>
  void put(uint16_t type, Value value) {
    put(type, &value, sizeof(value));
  }
  /// With its end, as the kernel compares it.
  void put_text(uint16_t type, const std::string& text) {
    put(type, text.c_str(), text.size() + 1);
  }
  /// What is put until end() is in it.
  size_t begin(uint16_t type) {
    const size_t at = bytes_.size();
    put(type | NLA_F_NESTED, nullptr, 0);
    return at;
  }
  void end(size_t at) { set_length(at); }

  std::span<const std::byte> finished() {
    const auto length = static_cast<uint32_t>(bytes_.size());
    std::memcpy(bytes_.data() + offsetof(nlmsghdr, nlmsg_len), &length, sizeof(length));
    return bytes_;
  }

 private:
  void put(uint16_t type, const void* data, size_t size) {
    const size_t at = bytes_.size();
    const nlattr attribute{0, type};
    append(&attribute, sizeof(attribute));
    append(data, size);
    set_length(at);
    bytes_.resize(aligned(bytes_.size()));
  }
  void append(const void* data, size_t size) {
    const auto* bytes = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), bytes, bytes + size);
  }
  void set_length(size_t at) {
    const auto length = static_cast<uint16_t>(bytes_.size() - at);
    std::memcpy(bytes_.data() + at + offsetof(nlattr, nla_len), &length, sizeof(length));
  }

  std::vector<std::byte> bytes_;
};

class Netlink {
 public:
  Netlink() : fd_(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC)) {
    if (fd_ < 0) fail(errno, "netlink");
    const timeval timeout{kTimeoutSeconds, 0};
    if (::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) == 0) return;
    const int error = errno;
    ::close(fd_);
    fail(error, "netlink");
  }
  Netlink(const Netlink&) = delete;
  Netlink& operator=(const Netlink&) = delete;
  ~Netlink() { ::close(fd_); }

  /// 0 or an errno. `value`: where the attribute `type` of the answer goes, if it has one.
  template <typename Value>
  int ask(Request& request, uint16_t type, std::optional<Value>* value) {
    const auto bytes = request.finished();
    if (::send(fd_, bytes.data(), bytes.size(), 0) < 0) return errno;
    alignas(nlmsghdr) std::array<std::byte, kAnswerBytes> answer;
    for (;;) {
      const ssize_t received = ::recv(fd_, answer.data(), answer.size(), 0);
      if (received < 0 && errno == EINTR) continue;
      if (received < 0) return errno == EAGAIN ? ETIMEDOUT : errno;
      std::span<const std::byte> left(answer.data(), static_cast<size_t>(received));
      while (left.size() >= sizeof(nlmsghdr)) {
        nlmsghdr header;
        std::memcpy(&header, left.data(), sizeof(header));
        if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > left.size()) return EBADMSG;
        const auto body = left.subspan(sizeof(header), header.nlmsg_len - sizeof(header));
        if (header.nlmsg_type == NLMSG_ERROR) {
          int error = 0;
          if (body.size() < sizeof(error)) return EBADMSG;
          std::memcpy(&error, body.data(), sizeof(error));
          return -error;
        }
        if (value != nullptr && body.size() > GENL_HDRLEN) {
          find(body.subspan(GENL_HDRLEN), type, value);
        }
        left = left.subspan(std::min(left.size(), aligned(header.nlmsg_len)));
      }
    }
  }

 private:
  template <typename Value>
  static void find(std::span<const std::byte> attributes, uint16_t type,
                   std::optional<Value>* value) {
    while (attributes.size() >= sizeof(nlattr)) {
      nlattr attribute;
      std::memcpy(&attribute, attributes.data(), sizeof(attribute));
      if (attribute.nla_len < sizeof(attribute) || attribute.nla_len > attributes.size()) return;
      if ((attribute.nla_type & NLA_TYPE_MASK) == type &&
          attribute.nla_len >= sizeof(attribute) + sizeof(Value)) {
        value->emplace();
        std::memcpy(&**value, attributes.data() + sizeof(attribute), sizeof(Value));
      }
      attributes = attributes.subspan(std::min(attributes.size(), aligned(attribute.nla_len)));
    }
  }

  int fd_;
};

/// The number that the kernel gave the driver; none while it is not loaded.
std::optional<uint16_t> find_family(Netlink& netlink) {
  Request request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1);
  request.put_text(CTRL_ATTR_FAMILY_NAME, NBD_GENL_FAMILY_NAME);
  std::optional<uint16_t> family;
  const int error = netlink.ask(request, CTRL_ATTR_FAMILY_ID, &family);
  if (error == ENOENT) return std::nullopt;
  if (error != 0) fail(error, "find the kernel's NBD driver");
  return family;
}

uint16_t family_of(Netlink& netlink) {
  const auto family = find_family(netlink);
  if (!family) fail(ENOENT, "the kernel's NBD driver is not loaded");
  return *family;
}

/// To a device that there is, of that owner.
Request reconfigure(uint16_t family, uint32_t device, const std::string& owner,
                    uint64_t size_bytes) {
  Request request(family, NBD_CMD_RECONFIGURE, NBD_GENL_VERSION);
  request.put<uint32_t>(NBD_ATTR_INDEX, device);
  request.put_text(NBD_ATTR_BACKEND_IDENTIFIER, owner);
  request.put<uint64_t>(NBD_ATTR_SIZE_BYTES, size_bytes);
  return request;
}

void put_socket(Request& request, int socket) {
  const size_t sockets = request.begin(NBD_ATTR_SOCKETS);
  const size_t item = request.begin(NBD_SOCK_ITEM);
  request.put<uint32_t>(NBD_SOCK_FD, static_cast<uint32_t>(socket));
  request.end(item);
  request.end(sockets);
}

}  // namespace

bool driver_is_loaded() {
  Netlink netlink;
  return find_family(netlink).has_value();
}

uint32_t connect_device(const NewDevice& device, int socket) {
  Netlink netlink;
  Request request(family_of(netlink), NBD_CMD_CONNECT, NBD_GENL_VERSION);
  request.put<uint64_t>(NBD_ATTR_SIZE_BYTES, device.size_bytes);
  request.put<uint64_t>(NBD_ATTR_BLOCK_SIZE_BYTES, device.block_bytes);
  request.put<uint64_t>(NBD_ATTR_SERVER_FLAGS, device.transmission_flags);
  request.put<uint64_t>(NBD_ATTR_TIMEOUT, kRequestSeconds);
  request.put<uint64_t>(NBD_ATTR_DEAD_CONN_TIMEOUT, kDeadSeconds);
  request.put_text(NBD_ATTR_BACKEND_IDENTIFIER, device.owner);
  put_socket(request, socket);
  std::optional<uint32_t> number;
  const int error = netlink.ask(request, NBD_ATTR_INDEX, &number);
  if (error != 0) fail(error, "make an nbd device");
  if (!number) fail(EBADMSG, "make an nbd device");
  return *number;
}

void reconnect_device(uint32_t device, const std::string& owner, uint64_t size_bytes, int socket) {
  Netlink netlink;
  const uint16_t family = family_of(netlink);
  for (int tries = 1;; ++tries) {
    Request request = reconfigure(family, device, owner, size_bytes);
    put_socket(request, socket);
    const int error = netlink.ask<uint32_t>(request, 0, nullptr);
    if (error == 0) return;
    // No socket of the device is known to be dead.
    if (error != ENOSPC || tries == kRetries) fail(error, "give an nbd device its next socket");
    std::this_thread::sleep_for(kRetry);
  }
}

void resize_device(uint32_t device, const std::string& owner, uint64_t size_bytes) {
  Netlink netlink;
  Request request = reconfigure(family_of(netlink), device, owner, size_bytes);
  const int error = netlink.ask<uint32_t>(request, 0, nullptr);
  if (error != 0) fail(error, "resize an nbd device");
}

void disconnect_device(uint32_t device) {
  Netlink netlink;
  Request request(family_of(netlink), NBD_CMD_DISCONNECT, NBD_GENL_VERSION);
  request.put<uint32_t>(NBD_ATTR_INDEX, device);
  const int error = netlink.ask<uint32_t>(request, 0, nullptr);
  // It has been disconnected already, or is nobody's.
  if (error != 0 && error != EINVAL && error != ENOENT) fail(error, "disconnect an nbd device");
}

}  // namespace pando::nbd
