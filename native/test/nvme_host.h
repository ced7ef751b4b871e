// A small NVMe/TCP host over a blocking socket: one object is one queue. It checks every PDU that
// it gets as strictly as it can, so that a target that is wrong does not pass by luck.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "crc32c.h"
#include "nvme_fixture.h"
#include "nvme_identify_data.h"
#include "nvme_pdu.h"
#include "nvme_spec.h"
#include "tls_client.h"

namespace pando::test {

using Bytes = std::vector<std::byte>;

struct Digests {
  bool header = false;
  bool data = false;
};

struct HostPdu {
  nvme::PduHeader header{};
  Bytes header_bytes;
  Bytes data;
};

struct Outcome {
  bool answered = false;
  nvme::Status status = nvme::Status::kInternalError;
  bool do_not_retry = false;
  uint64_t result = 0;
  uint16_t sq_head = 0;
  Bytes data;
  bool by_success_flag = false;
  uint32_t requests = 0;  // R2Ts

  bool ok() const { return answered && status == nvme::Status::kSuccess; }
  bool failed_with(nvme::Status expected) const { return answered && status == expected; }
};

class Host {
 public:
  explicit Host(uint16_t port, bool v6 = false) {
    fd_ = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(fd_ >= 0);
    const int yes = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    const timeval timeout{5, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    sockaddr_in v4_address{};
    v4_address.sin_family = AF_INET;
    v4_address.sin_port = htons(port);
    v4_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sockaddr_in6 v6_address{};
    v6_address.sin6_family = AF_INET6;
    v6_address.sin6_port = htons(port);
    v6_address.sin6_addr = in6addr_loopback;
    const int result =
        v6 ? ::connect(fd_, reinterpret_cast<sockaddr*>(&v6_address), sizeof(v6_address))
           : ::connect(fd_, reinterpret_cast<sockaddr*>(&v4_address), sizeof(v4_address));
    REQUIRE(result == 0 || (errno == EINTR && finish_connecting()));
  }
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;
  ~Host() {
    if (fd_ >= 0) ::close(fd_);
  }

  int fd() const { return fd_; }

  /// From here on all that is said goes through TLS. False: the handshake failed.
  bool secure(const TlsClientOptions& options) {
    tls_ = std::make_unique<TlsClient>(fd_, options);
    return tls_->handshake();
  }
  TlsClient& tls() { return *tls_; }

  bool send_bytes(const void* data, size_t size) {
    if (tls_ != nullptr) return tls_->send(data, size);
    const auto* at = static_cast<const std::byte*>(data);
    while (size > 0) {
      const ssize_t sent = ::send(fd_, at, size, MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0 && errno == EINTR) continue;
      if (sent <= 0) return false;
      at += sent;
      size -= static_cast<size_t>(sent);
    }
    return true;
  }

  bool receive_bytes(void* data, size_t size) {
    if (tls_ != nullptr) return tls_->receive(data, size);
    auto* at = static_cast<std::byte*>(data);
    while (size > 0) {
      const ssize_t got = ::recv(fd_, at, size, 0);
      // With a time limit it is not restarted by itself, and io_uring interrupts this thread for
      // what it has submitted.
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      at += got;
      size -= static_cast<size_t>(got);
    }
    return true;
  }

  static nvme::IcPdu ic_request(Digests digests, uint8_t alignment = 0) {
    nvme::IcPdu pdu{};
    pdu.header = {static_cast<uint8_t>(nvme::PduType::kIcReq), 0, sizeof(pdu), 0, sizeof(pdu)};
    pdu.data_alignment = alignment;
    pdu.digests = static_cast<uint8_t>((digests.header ? nvme::kDigestHeader : 0) |
                                       (digests.data ? nvme::kDigestData : 0));
    return pdu;
  }

  bool initialize(Digests digests = {}, uint8_t alignment = 0) {
    const nvme::IcPdu request = ic_request(digests, alignment);
    nvme::IcPdu response{};
    if (!send_bytes(&request, sizeof(request)) || !receive_bytes(&response, sizeof(response))) {
      return false;
    }
    CHECK(response.header.type == static_cast<uint8_t>(nvme::PduType::kIcResp));
    CHECK(response.header.length == 128 && response.header.header_length == 128);
    CHECK(response.format == 0 && response.data_alignment == 0);
    CHECK(response.digests == request.digests);
    CHECK(response.limit >= 4096);
    digests_ = digests;
    alignment_ = (alignment + 1u) * 4;
    max_h2c_bytes_ = response.limit;
    return true;
  }

  /// A capsule as bytes, with digests as negotiated.
  Bytes capsule(const nvme::Sqe& sqe, const Bytes& data = {}) const {
    nvme::CapsuleCmdPdu pdu{};
    pdu.header.type = static_cast<uint8_t>(nvme::PduType::kCapsuleCmd);
    pdu.header.header_length = sizeof(pdu);
    pdu.sqe = sqe;
    return assemble(&pdu, sizeof(pdu), data);
  }

  Bytes h2c_data(uint16_t cid, uint16_t tag, uint32_t offset, const Bytes& data, bool last) const {
    nvme::DataPdu pdu{};
    pdu.header.type = static_cast<uint8_t>(nvme::PduType::kH2cData);
    pdu.header.header_length = sizeof(pdu);
    pdu.header.flags = last ? nvme::kPduLastData : 0;
    pdu.cid = cid;
    pdu.tag = tag;
    pdu.offset = offset;
    pdu.length = static_cast<uint32_t>(data.size());
    return assemble(&pdu, sizeof(pdu), data);
  }

  bool send(const Bytes& bytes) { return send_bytes(bytes.data(), bytes.size()); }

  bool receive(HostPdu& pdu) {
    pdu = {};
    if (!receive_bytes(&pdu.header, sizeof(pdu.header))) return false;
    if (!CHECK(pdu.header.length >= pdu.header.header_length && pdu.header.header_length >= 24 &&
               pdu.header.length <= (4u << 20))) {
      return false;
    }
    Bytes whole(pdu.header.length);
    std::memcpy(whole.data(), &pdu.header, sizeof(pdu.header));
    if (!receive_bytes(whole.data() + 8, whole.size() - 8)) return false;
    pdu.header_bytes.assign(whole.begin(), whole.begin() + pdu.header.header_length);
    if (pdu.header.type == static_cast<uint8_t>(nvme::PduType::kC2hTermReq)) return true;

    size_t at = pdu.header.header_length;
    CHECK(((pdu.header.flags & nvme::kPduHeaderDigest) != 0) == digests_.header);
    if (digests_.header) {
      CHECK(read_u32(whole, at) == crc32c(whole.data(), at));
      at += 4;
    }
    if (pdu.header.type != static_cast<uint8_t>(nvme::PduType::kC2hData)) {
      CHECK(at == whole.size());
      return true;
    }
    CHECK(pdu.header.data_offset >= at && pdu.header.data_offset % alignment_ == 0);
    CHECK(((pdu.header.flags & nvme::kPduDataDigest) != 0) == digests_.data);
    const size_t end = whole.size() - (digests_.data ? 4 : 0);
    if (!CHECK(end > pdu.header.data_offset)) return false;
    pdu.data.assign(whole.begin() + pdu.header.data_offset,
                    whole.begin() + static_cast<ptrdiff_t>(end));
    if (digests_.data) CHECK(read_u32(whole, end) == crc32c(pdu.data.data(), pdu.data.size()));
    return true;
  }

  /// An SQE that describes `bytes` of data; in the capsule or not.
  static nvme::Sqe describe(nvme::Sqe sqe, size_t bytes, bool in_capsule) {
    sqe.flags = nvme::kFlagsPsdtSgl;
    sqe.sgl = {};
    sqe.sgl.length = static_cast<uint32_t>(bytes);
    sqe.sgl.type = in_capsule ? nvme::kSglInCapsule : nvme::kSglTransport;
    return sqe;
  }

  /// Sends data in the capsule when it is told to, by R2T otherwise, and waits for the answer.
  Outcome run(nvme::Sqe sqe, size_t read_bytes = 0, const Bytes& write = {},
              bool in_capsule = false) {
    sqe.cid = next_cid_++;
    sqe = describe(sqe, write.empty() ? read_bytes : write.size(), in_capsule && !write.empty());
    if (!send(capsule(sqe, in_capsule ? write : Bytes{}))) return {};
    return await(sqe.cid, read_bytes, write);
  }

  Outcome await(uint16_t cid, size_t read_bytes = 0, const Bytes& write = {}) {
    Outcome outcome;
    HostPdu pdu;
    while (receive(pdu)) {
      switch (static_cast<nvme::PduType>(pdu.header.type)) {
        case nvme::PduType::kR2t:
          if (!answer_r2t(pdu, cid, write)) return {};
          ++outcome.requests;
          break;
        case nvme::PduType::kC2hData: {
          nvme::DataPdu header;
          std::memcpy(&header, pdu.header_bytes.data(), sizeof(header));
          CHECK(header.cid == cid && header.length == pdu.data.size());
          CHECK(header.offset == outcome.data.size());
          outcome.data.insert(outcome.data.end(), pdu.data.begin(), pdu.data.end());
          CHECK(outcome.data.size() <= read_bytes);
          if ((pdu.header.flags & nvme::kPduSuccess) != 0) {
            CHECK((pdu.header.flags & nvme::kPduLastData) != 0);
            outcome.answered = true;
            outcome.status = nvme::Status::kSuccess;
            outcome.by_success_flag = true;
            return outcome;
          }
          break;
        }
        case nvme::PduType::kCapsuleResp: {
          nvme::CapsuleRespPdu response;
          std::memcpy(&response, pdu.header_bytes.data(), sizeof(response));
          CHECK(response.cqe.cid == cid);
          outcome.answered = true;
          outcome.status = static_cast<nvme::Status>((response.cqe.status >> 1) & 0x7FF);
          outcome.do_not_retry = (response.cqe.status & nvme::kStatusDoNotRetry) != 0;
          outcome.result = response.cqe.result;
          outcome.sq_head = response.cqe.sq_head;
          return outcome;
        }
        default:
          last_term_ = pdu;
          return {};
      }
    }
    return {};
  }

  Outcome connect(const std::string& subsystem, uint16_t queue_id, uint16_t controller_id = 0xFFFF,
                  const std::string& host = kHostNqn, uint32_t keep_alive_ms = 0,
                  uint16_t entries = 32, uint8_t attributes = 0) {
    nvme::ConnectData data{};
    data.host_id.fill(7);
    data.controller_id = controller_id;
    std::memcpy(data.subsystem_nqn, subsystem.data(), std::min<size_t>(subsystem.size(), 256));
    std::memcpy(data.host_nqn, host.data(), std::min<size_t>(host.size(), 256));
    return connect_with(data, queue_id, keep_alive_ms, entries, attributes);
  }

  Outcome connect_with(const nvme::ConnectData& data, uint16_t queue_id, uint32_t keep_alive_ms,
                       uint16_t entries, uint8_t attributes) {
    nvme::Sqe sqe{};
    sqe.opcode = nvme::kFabricsOpcode;
    sqe.nsid = static_cast<uint8_t>(nvme::FabricsType::kConnect);
    sqe.cdw10 = static_cast<uint32_t>(queue_id) << 16;
    sqe.cdw11 = (entries - 1u) | static_cast<uint32_t>(attributes) << 16;
    sqe.cdw12 = keep_alive_ms;
    Bytes bytes(sizeof(data));
    std::memcpy(bytes.data(), &data, sizeof(data));
    return run(sqe, 0, bytes, true);
  }

  Outcome property_get(nvme::Property property, bool eight = false) {
    nvme::Sqe sqe{};
    sqe.opcode = nvme::kFabricsOpcode;
    sqe.nsid = static_cast<uint8_t>(nvme::FabricsType::kPropertyGet);
    sqe.cdw10 = eight ? 1 : 0;
    sqe.cdw11 = static_cast<uint32_t>(property);
    return run(sqe);
  }

  Outcome property_set(nvme::Property property, uint32_t value) {
    nvme::Sqe sqe{};
    sqe.opcode = nvme::kFabricsOpcode;
    sqe.nsid = static_cast<uint8_t>(nvme::FabricsType::kPropertySet);
    sqe.cdw11 = static_cast<uint32_t>(property);
    sqe.cdw12 = value;
    return run(sqe);
  }

  static constexpr uint32_t kEnable = 1 | 6 << 16 | 4 << 20;

  bool enable() {
    return property_set(nvme::Property::kConfiguration, kEnable).ok() &&
           (property_get(nvme::Property::kStatus).result & 1) != 0;
  }

  Outcome admin(nvme::AdminOpcode opcode, uint32_t cdw10 = 0, uint32_t cdw11 = 0,
                size_t read_bytes = 0, uint32_t nsid = 0) {
    nvme::Sqe sqe{};
    sqe.opcode = static_cast<uint8_t>(opcode);
    sqe.nsid = nsid;
    sqe.cdw10 = cdw10;
    sqe.cdw11 = cdw11;
    return run(sqe, read_bytes);
  }

  Outcome identify(nvme::IdentifyCns cns, uint32_t nsid = 0, uint32_t cdw11 = 0) {
    return admin(nvme::AdminOpcode::kIdentify, static_cast<uint32_t>(cns), cdw11,
                 nvme::kIdentifyBytes, nsid);
  }

  Outcome log_page(nvme::LogPage page, uint32_t bytes, uint64_t offset = 0, bool retain = false) {
    nvme::Sqe sqe{};
    const uint32_t dwords = bytes / 4 - 1;
    sqe.opcode = static_cast<uint8_t>(nvme::AdminOpcode::kGetLogPage);
    sqe.nsid = 0xFFFFFFFF;
    sqe.cdw10 = static_cast<uint32_t>(page) | (retain ? 1u << 15 : 0) | dwords << 16;
    sqe.cdw11 = dwords >> 16;
    sqe.cdw12 = static_cast<uint32_t>(offset);
    sqe.cdw13 = static_cast<uint32_t>(offset >> 32);
    return run(sqe, bytes);
  }

  static nvme::Sqe io(nvme::IoOpcode opcode, uint64_t block, uint32_t blocks) {
    nvme::Sqe sqe{};
    sqe.opcode = static_cast<uint8_t>(opcode);
    sqe.nsid = 1;
    sqe.cdw10 = static_cast<uint32_t>(block);
    sqe.cdw11 = static_cast<uint32_t>(block >> 32);
    sqe.cdw12 = blocks - 1;
    return sqe;
  }

  Outcome read(uint64_t block, uint32_t blocks) {
    return run(io(nvme::IoOpcode::kRead, block, blocks), blocks * size_t{4096});
  }

  Outcome write(uint64_t block, const Bytes& data, bool in_capsule, bool fua = false) {
    nvme::Sqe sqe = io(nvme::IoOpcode::kWrite, block, static_cast<uint32_t>(data.size() / 4096));
    if (fua) sqe.cdw12 |= nvme::kForceUnitAccess;
    return run(sqe, 0, data, in_capsule);
  }

  /// Whether the target ends the connection, and with which error it says why (0: without a word).
  bool closed_by_target(uint16_t* error = nullptr) {
    if (error != nullptr) *error = 0;
    HostPdu pdu;
    while (receive(pdu)) {
      if (pdu.header.type != static_cast<uint8_t>(nvme::PduType::kC2hTermReq)) continue;
      nvme::TermReqPdu term;
      std::memcpy(&term, pdu.header_bytes.data(), sizeof(term));
      if (error != nullptr) *error = term.error;
    }
    return errno != EAGAIN && errno != EWOULDBLOCK;
  }

  uint16_t next_cid() { return next_cid_++; }
  Digests digests() const { return digests_; }

  /// A PDU with this header and this data: its length, offset, flags and digests are made to fit.
  Bytes assemble(const void* header, size_t size, const Bytes& data) const {
    Bytes bytes(size);
    std::memcpy(bytes.data(), header, size);
    auto* common = reinterpret_cast<nvme::PduHeader*>(bytes.data());
    const uint32_t prefix = static_cast<uint32_t>(size) + (digests_.header ? 4 : 0);
    common->length = prefix;
    if (digests_.header) common->flags |= nvme::kPduHeaderDigest;
    if (!data.empty()) {
      common->data_offset = static_cast<uint8_t>(prefix);
      common->length += static_cast<uint32_t>(data.size()) + (digests_.data ? 4 : 0);
      if (digests_.data) common->flags |= nvme::kPduDataDigest;
    }
    if (digests_.header) append_u32(bytes, crc32c(bytes.data(), size));
    if (data.empty()) return bytes;
    bytes.insert(bytes.end(), data.begin(), data.end());
    if (digests_.data) append_u32(bytes, crc32c(data.data(), data.size()));
    return bytes;
  }

 private:
  // The kernel interrupts a thread whose io_uring of before is being torn down.
  bool finish_connecting() const {
    pollfd waiting{fd_, POLLOUT, 0};
    while (poll(&waiting, 1, 5000) < 0 && errno == EINTR) {
    }
    int error = -1;
    socklen_t size = sizeof(error);
    return getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
  }

  static uint32_t read_u32(const Bytes& bytes, size_t at) {
    uint32_t value;
    std::memcpy(&value, bytes.data() + at, sizeof(value));
    return value;
  }

  static void append_u32(Bytes& bytes, uint32_t value) {
    const auto* raw = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), raw, raw + sizeof(value));
  }

  bool answer_r2t(const HostPdu& pdu, uint16_t cid, const Bytes& write) {
    nvme::R2tPdu r2t;
    std::memcpy(&r2t, pdu.header_bytes.data(), sizeof(r2t));
    if (!CHECK(r2t.cid == cid && r2t.offset + r2t.length <= write.size() && r2t.length > 0)) {
      return false;
    }
    for (uint32_t sent = 0; sent < r2t.length;) {
      const uint32_t size = std::min(r2t.length - sent, max_h2c_bytes_);
      const auto begin = write.begin() + r2t.offset + sent;
      const Bytes part(begin, begin + size);
      if (!send(h2c_data(cid, r2t.tag, r2t.offset + sent, part, sent + size == r2t.length))) {
        return false;
      }
      sent += size;
    }
    return true;
  }

  int fd_ = -1;
  std::unique_ptr<TlsClient> tls_;
  Digests digests_;
  uint32_t alignment_ = 4;
  uint32_t max_h2c_bytes_ = 0;
  uint16_t next_cid_ = 1;
  HostPdu last_term_;
};

}  // namespace pando::test
