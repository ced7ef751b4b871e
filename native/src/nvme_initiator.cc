#include "nvme_initiator.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

namespace pando::nvme {
namespace {

constexpr int kPatienceSeconds = 10;
constexpr uint32_t kIoEntrySizes = 6 << 16 | 4 << 20;  // Base 3.1.3.5: CC.IOSQES, CC.IOCQES
constexpr uint32_t kMaxAnswerBytes = 2 << 20;
constexpr uint32_t kLeastH2cBytes = 4096;  // TCP 3.6.2.3

struct Addresses {
  addrinfo* list = nullptr;
  ~Addresses() {
    if (list != nullptr) freeaddrinfo(list);
  }
};

std::string text_of(const Place& place) {
  const bool v6 = place.address.find(':') != std::string::npos;
  return (v6 ? "[" + place.address + "]" : place.address) + ":" + std::to_string(place.port);
}

Sqe fabrics(FabricsType type) {
  Sqe sqe{};
  sqe.opcode = kFabricsOpcode;
  sqe.nsid = static_cast<uint8_t>(type);
  return sqe;
}

void put_name(char (&field)[256], const std::string& name) {
  if (name.empty() || name.size() > kNqnMaxLength) {
    throw std::runtime_error("an NQN has 1 to " + std::to_string(kNqnMaxLength) + " bytes");
  }
  std::memcpy(field, name.data(), name.size());
}

}  // namespace

std::string status_text(Status status) {
  std::array<char, 8> number{};
  std::snprintf(number.data(), number.size(), "0x%x", static_cast<unsigned>(status));
  const std::string code = number.data();
  switch (status) {
    case Status::kConnectInvalidHost:
      return code + ": this host is not on the volume's list, or there is no such volume";
    case Status::kConnectControllerBusy:
      return code + ": the volume is busy";
    case Status::kConnectInvalidParameters:
      return code + ": there is no such volume, or not for this host";
    case Status::kAuthenticationRequired:
      return code + ": the target wants this host to authenticate";
    case Status::kNamespaceWriteProtected:
      return code + ": the volume is read-only";
    case Status::kCapacityExceeded:
      return code + ": the pool is full";
    default:
      return code;
  }
}

Initiator::Initiator(const Place& place) : name_(text_of(place)) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  Addresses addresses;
  const std::string port = std::to_string(place.port);
  if (getaddrinfo(place.address.c_str(), port.c_str(), &hints, &addresses.list) != 0) {
    throw std::runtime_error(name_ + " is not a numeric address with a port");
  }
  const addrinfo& address = *addresses.list;
  fd_ = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd_ < 0) throw std::runtime_error(name_ + ": no socket: " + std::strerror(errno));
  const int yes = 1;
  const timeval patience{kPatienceSeconds, 0};
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  try {
    // Work that a ring of this thread has to do interrupts it; called again, it waits on.
    int result = 0;
    do {
      result = ::connect(fd_, address.ai_addr, address.ai_addrlen);
    } while (result != 0 && errno == EINTR);
    if (result != 0) {
      throw std::runtime_error(name_ + " takes no connection: " + std::strerror(errno));
    }
    IcPdu request{};
    request.header = {static_cast<uint8_t>(PduType::kIcReq), 0, sizeof(request), 0,
                      sizeof(request)};
    send(std::as_bytes(std::span(&request, 1)));
    IcPdu response;
    receive(&response, sizeof(response));
    const bool fits = response.header.type == static_cast<uint8_t>(PduType::kIcResp) &&
                      response.header.length == sizeof(response) && response.digests == 0 &&
                      response.limit >= kLeastH2cBytes;
    if (!fits) throw std::runtime_error(name_ + " does not speak NVMe/TCP as we do");
    max_h2c_bytes_ = response.limit;
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

Initiator::~Initiator() {
  ::close(fd_);
}

void Initiator::send(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) throw std::runtime_error(name_ + " has closed the connection");
    bytes = bytes.subspan(static_cast<size_t>(sent));
  }
}

void Initiator::receive(void* data, size_t size) {
  auto* at = static_cast<std::byte*>(data);
  while (size > 0) {
    const ssize_t got = ::recv(fd_, at, size, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      throw std::runtime_error(name_ + " has not answered for " + std::to_string(kPatienceSeconds) +
                               " s");
    }
    if (got <= 0) throw std::runtime_error(name_ + " has closed the connection");
    at += got;
    size -= static_cast<size_t>(got);
  }
}

Initiator::Answer Initiator::run(Sqe sqe, std::span<const std::byte> out, std::span<std::byte> in) {
  sqe.cid = next_cid_++;
  sqe.flags = kFlagsPsdtSgl;
  sqe.sgl = {};
  sqe.sgl.length = static_cast<uint32_t>(out.empty() ? in.size() : out.size());
  sqe.sgl.type = out.empty() ? kSglTransport : kSglInCapsule;
  CapsuleCmdPdu capsule{};
  capsule.header = {static_cast<uint8_t>(PduType::kCapsuleCmd), 0, sizeof(capsule),
                    out.empty() ? uint8_t{0} : static_cast<uint8_t>(sizeof(capsule)),
                    static_cast<uint32_t>(sizeof(capsule) + out.size())};
  capsule.sqe = sqe;
  std::vector<std::byte> bytes(sizeof(capsule) + out.size());
  std::memcpy(bytes.data(), &capsule, sizeof(capsule));
  if (!out.empty()) std::memcpy(bytes.data() + sizeof(capsule), out.data(), out.size());
  send(bytes);

  for (;;) {
    PduHeader header;
    receive(&header, sizeof(header));
    if (header.length < sizeof(header) || header.length > kMaxAnswerBytes) break;
    std::vector<std::byte> rest(header.length - sizeof(header));
    receive(rest.data(), rest.size());
    if (header.type == static_cast<uint8_t>(PduType::kCapsuleResp)) {
      if (rest.size() < sizeof(Cqe)) break;
      Cqe cqe;
      std::memcpy(&cqe, rest.data(), sizeof(cqe));
      if (cqe.cid != sqe.cid) break;
      return {static_cast<Status>((cqe.status >> 1) & 0x7FF), cqe.result};
    }
    if (header.type != static_cast<uint8_t>(PduType::kC2hData) ||
        rest.size() < sizeof(DataPdu) - sizeof(header)) {
      break;
    }
    DataPdu pdu;
    std::memcpy(reinterpret_cast<std::byte*>(&pdu) + sizeof(header), rest.data(),
                sizeof(pdu) - sizeof(header));
    const size_t begin = header.data_offset - sizeof(header);
    const bool fits = header.data_offset >= sizeof(pdu) && pdu.cid == sqe.cid &&
                      begin + pdu.length == rest.size() && pdu.offset <= in.size() &&
                      pdu.length <= in.size() - pdu.offset;
    if (!fits) break;
    std::memcpy(in.data() + pdu.offset, rest.data() + begin, pdu.length);
    if ((header.flags & kPduSuccess) != 0) return {Status::kSuccess, 0};
  }
  throw std::runtime_error(name_ + " has sent what was not asked for");
}

uint16_t Initiator::connect(const HostIdentity& identity, uint16_t queue_id, uint16_t controller_id,
                            uint16_t entries) {
  ConnectData data{};
  data.host_id.fill(0x70);
  data.controller_id = controller_id;
  put_name(data.subsystem_nqn, identity.subsystem_nqn);
  put_name(data.host_nqn, identity.host_nqn);
  Sqe sqe = fabrics(FabricsType::kConnect);
  sqe.cdw10 = static_cast<uint32_t>(queue_id) << 16;
  sqe.cdw11 = entries - 1u;
  const Answer answer = run(sqe, std::as_bytes(std::span(&data, 1)), {});
  if (answer.status != Status::kSuccess) {
    throw std::runtime_error(name_ + " refuses the connection with " + status_text(answer.status));
  }
  if ((answer.result & kAuthenticationRequested) != 0) {
    throw std::runtime_error(name_ + " wants this host to authenticate, which is not done here");
  }
  return static_cast<uint16_t>(answer.result);
}

uint64_t Initiator::property(Property property, bool eight_bytes) {
  Sqe sqe = fabrics(FabricsType::kPropertyGet);
  sqe.cdw10 = eight_bytes ? 1 : 0;
  sqe.cdw11 = static_cast<uint32_t>(property);
  const Answer answer = run(sqe, {}, {});
  if (answer.status == Status::kSuccess) return answer.result;
  throw std::runtime_error(name_ + " gives no property: " + status_text(answer.status));
}

void Initiator::set_property(Property property, uint32_t value) {
  Sqe sqe = fabrics(FabricsType::kPropertySet);
  sqe.cdw11 = static_cast<uint32_t>(property);
  sqe.cdw12 = value;
  const Answer answer = run(sqe, {}, {});
  if (answer.status == Status::kSuccess) return;
  throw std::runtime_error(name_ + " takes no property: " + status_text(answer.status));
}

void Initiator::enable() {
  set_property(Property::kConfiguration, kConfigEnable | kIoEntrySizes);
  constexpr int kTries = 1000;
  for (int i = 0; i < kTries; ++i) {
    if ((property(Property::kStatus, false) & kStatusReady) != 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  throw std::runtime_error(name_ + ": the controller does not become ready");
}

}  // namespace pando::nvme
