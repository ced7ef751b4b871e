// CRC32C against the vectors of RFC 3720, appendix B.4, whole and in pieces, with the CPU's help
// and without.
#include "crc32c.h"

#include <array>
#include <cstring>
#include <numeric>
#include <vector>

#include "check.h"

namespace {

using Function = uint32_t (*)(const void* data, size_t size, uint32_t crc);

void check_published_vectors(Function crc32c) {
  std::array<uint8_t, 32> data{};
  CHECK(crc32c(data.data(), data.size(), 0) == 0x8A9136AA);  // 32 bytes of zeroes
  data.fill(0xFF);
  CHECK(crc32c(data.data(), data.size(), 0) == 0x62A8AB43);
  std::iota(data.begin(), data.end(), uint8_t{0});
  CHECK(crc32c(data.data(), data.size(), 0) == 0x46DD794E);
  std::iota(data.rbegin(), data.rend(), uint8_t{0});
  CHECK(crc32c(data.data(), data.size(), 0) == 0x113FDB5C);
  CHECK(crc32c("123456789", 9, 0) == 0xE3069283);
  CHECK(crc32c("", 0, 0) == 0);
}

/// Every length and every offset into a word: the wide loop and its tail meet at all of them.
void check_pieces(Function crc32c) {
  std::vector<uint8_t> data(100);
  std::iota(data.begin(), data.end(), uint8_t{7});
  const uint32_t whole = crc32c(data.data(), data.size(), 0);
  for (size_t cut = 0; cut <= data.size(); ++cut) {
    const uint32_t head = crc32c(data.data(), cut, 0);
    CHECK(crc32c(data.data() + cut, data.size() - cut, head) == whole);
  }
}

void check_against_each_other() {
  std::vector<uint8_t> data(4096);
  uint32_t state = 1;
  for (uint8_t& byte : data) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<uint8_t>(state >> 24);
  }
  CHECK(pando::crc32c(data.data(), data.size()) ==
        pando::crc32c_portable(data.data(), data.size()));
}

}  // namespace

int main() {
  for (const Function function : {pando::crc32c, pando::crc32c_portable}) {
    check_published_vectors(function);
    check_pieces(function);
  }
  check_against_each_other();
  return pando::test::finish("crc32c_test");
}
