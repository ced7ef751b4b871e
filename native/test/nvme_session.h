// What most tests of the target begin with: a host that is connected, and data to move.
#pragma once

#include "nvme_host.h"

namespace pando::test {

/// A controller that is enabled, with one I/O queue.
struct Session {
  explicit Session(uint16_t port, Digests digests = {}, const std::string& subsystem = kVolumeNqn,
                   uint8_t attributes = 0, uint16_t entries = 128, uint8_t alignment = 0,
                   const std::string& host = kHostNqn)
      : admin(port), io(port) {
    REQUIRE(admin.initialize(digests, alignment));
    const Outcome connected = admin.connect(subsystem, 0, 0xFFFF, host);
    REQUIRE(connected.ok());
    controller_id = static_cast<uint16_t>(connected.result);
    REQUIRE(admin.enable());
    REQUIRE(io.initialize(digests, alignment));
    REQUIRE(io.connect(subsystem, 1, controller_id, host, 0, entries, attributes).ok());
  }

  Host admin;
  Host io;
  uint16_t controller_id = 0;
};

inline Bytes pattern(size_t bytes, uint32_t seed) {
  Bytes data(bytes);
  uint32_t state = seed * 2654435761u + 1;
  for (auto& byte : data) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<std::byte>(state >> 24);
  }
  return data;
}

template <typename T>
T as(const Outcome& outcome) {
  T value{};
  if (CHECK(outcome.data.size() >= sizeof(T))) {
    std::memcpy(&value, outcome.data.data(), sizeof(T));
  }
  return value;
}

}  // namespace pando::test
