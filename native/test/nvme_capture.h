// What a real Linux host sent, as recorded by test/system/record-host.ts: the start of the fuzzer's
// mutations. Every PDU is taken apart, so that it can be sent again with other digests, to another
// subsystem, in another controller.
#pragma once

#include <cctype>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "nvme_host.h"

namespace pando::test {

struct CapturedPdu {
  nvme::PduType type = nvme::PduType::kIcReq;
  Bytes header;  // without its digest
  Bytes data;

  nvme::Sqe sqe() const {
    nvme::CapsuleCmdPdu pdu{};
    std::memcpy(&pdu, header.data(), std::min(sizeof(pdu), header.size()));
    return pdu.sqe;
  }
};

using CapturedConnection = std::vector<CapturedPdu>;

inline Bytes from_hex(const std::string& text) {
  Bytes bytes;
  for (size_t at = 0; at + 1 < text.size(); at += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(text.substr(at, 2), nullptr, 16)));
  }
  return bytes;
}

/// The connections of a recording, in the order in which they were made. Its host uses no digests.
inline std::vector<CapturedConnection> read_capture(const std::string& path) {
  std::ifstream file(path);
  std::map<int, CapturedConnection> connections;
  int number = 0;
  std::string hex;
  while (file >> number >> hex) {
    const Bytes bytes = from_hex(hex);
    nvme::PduHeader common;
    if (!CHECK(bytes.size() >= sizeof(common))) continue;
    std::memcpy(&common, bytes.data(), sizeof(common));
    if (!CHECK(common.length == bytes.size() && common.header_length <= bytes.size())) continue;
    CapturedPdu pdu;
    pdu.type = static_cast<nvme::PduType>(common.type);
    pdu.header.assign(bytes.begin(), bytes.begin() + common.header_length);
    if (common.data_offset > 0) {
      pdu.data.assign(bytes.begin() + common.data_offset, bytes.end());
    }
    connections[number].push_back(std::move(pdu));
  }
  std::vector<CapturedConnection> result;
  for (auto& [id, connection] : connections) result.push_back(std::move(connection));
  return result;
}

}  // namespace pando::test
