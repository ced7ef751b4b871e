// What a request costs the data path, where it can be counted: steady reads and writes in place
// allocate nothing, requests that come together go to the kernel together, and their buffers are
// the registered ones.
#include "path_cost.h"

#include <sys/mman.h>

#include <cstdlib>
#include <string>

#include "check.h"

namespace {

using namespace pando;
using namespace pando::test;

constexpr uint64_t kVolumeBytes = 16 << 20;
constexpr uint64_t kOps = 2000;

LoadOptions load(LoadPattern pattern, uint32_t block_bytes, uint32_t depth, uint64_t ops) {
  LoadOptions options;
  options.pattern = pattern;
  options.block_bytes = block_bytes;
  options.depth = depth;
  options.op_count = ops;
  return options;
}

/// Registered memory is not used under every sanitizer, nor where locked memory is scarce.
bool fixes_memory(FilePool& pool) {
  const Buffer buffer = pool.reactor.buffers().take(4096);
  return pool.reactor.fixed_memory().contains(buffer.data());
}

void run(FilePool& pool) {
  const bool fixed = fixes_memory(pool);
  if (!fixed) std::printf("without registered memory\n");
  volume_cost(pool, load(LoadPattern::kWrite, 1 << 20, 4, kVolumeBytes >> 20));
  for (const LoadPattern pattern : {LoadPattern::kRandomRead, LoadPattern::kRandomWrite}) {
    for (const uint32_t depth : {1u, 32u}) {
      volume_cost(pool, load(pattern, 8192, depth, kOps));
      const PathCost few = volume_cost(pool, load(pattern, 8192, depth, kOps));
      const PathCost many = volume_cost(pool, load(pattern, 8192, depth, 2 * kOps));
      CHECK(many.ops == 2 * kOps);
      // What starting and ending a load takes is the same for both.
      CHECK(many.allocations <= few.allocations + kOps / 100);
      CHECK(many.enters <= few.enters + kOps + kOps / 10);
      if (fixed) CHECK(many.fixed_ops >= 2 * kOps);
    }
  }
}

void a_new_block_allocates_little(FilePool& pool) {
  pool.branch();
  const PathCost first = volume_cost(pool, load(LoadPattern::kWrite, 8192, 8, kOps));
  CHECK(first.ops == kOps && first.allocations < 20 * kOps);
}

}  // namespace

int main() {
  const char* directory = std::getenv("TMPDIR");
  std::string path = std::string(directory != nullptr ? directory : "/tmp") + "/path_cost_XXXXXX";
  const int fd = mkstemp(path.data());
  REQUIRE(fd >= 0);
  close(fd);
  {
    FilePool pool(path, kVolumeBytes);
    run(pool);
    a_new_block_allocates_little(pool);
  }
  unlink(path.c_str());
  return finish("path_cost_test");
}
