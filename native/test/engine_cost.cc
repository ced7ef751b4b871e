// What a request costs the engine in what no neighbour disturbs: it runs a load of so many requests
// and ends, for whoever counts its instructions (callgrind) or its system calls (strace). The
// difference between two runs, of which one has more requests, is that of the requests alone.
//
//   engine_cost FILE KIND BLOCK_BYTES DEPTH REQUESTS
//
// KIND: read, write, randread, randwrite: of a volume of kRegionBytes that is written in full;
// firstwrite: at random in a volume that has nothing. Prints the allocations of the thread.
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>

#include "allocations.h"
#include "engine_alone.h"

namespace {

using namespace pando;
using namespace pando::test;

constexpr uint64_t kRegionBytes = 64 << 20;
constexpr uint64_t kSparseBytes = uint64_t{4} << 30;
constexpr uint64_t kWarmUp = 2000;

int run(char** argv) {
  const std::string kind = argv[2];
  LoadOptions load;
  load.block_bytes = static_cast<uint32_t>(std::strtoul(argv[3], nullptr, 10));
  load.depth = static_cast<uint32_t>(std::strtoul(argv[4], nullptr, 10));
  const uint64_t requests = std::strtoull(argv[5], nullptr, 10);
  const bool first = kind == "firstwrite";
  const std::string names[] = {"read", "write", "randread", "randwrite"};
  load.pattern = LoadPattern::kRandomWrite;
  for (size_t i = 0; i < std::size(names); ++i) {
    if (kind == names[i]) load.pattern = static_cast<LoadPattern>(i);
  }

  EngineAlone engine(argv[1], first ? kSparseBytes : kRegionBytes);
  if (!first) {
    LoadOptions fill;
    fill.pattern = LoadPattern::kWrite;
    fill.block_bytes = 128 << 10;
    fill.depth = 8;
    fill.op_count = kRegionBytes / fill.block_bytes;
    engine.run(fill);
  }
  load.op_count = kWarmUp;
  engine.run(load);
  engine.settle();

  load.op_count = requests;
  load.seed = 2;
  const uint64_t before = allocations;
  const LoadResult result = engine.run(load);
  const uint64_t after = allocations;
  std::printf("{\"requests\": %llu, \"allocations\": %llu}\n",
              static_cast<unsigned long long>(result.ops()),
              static_cast<unsigned long long>(after - before));
  return result.ops() == requests ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: %s FILE KIND BLOCK_BYTES DEPTH REQUESTS\n", argv[0]);
    return EXIT_FAILURE;
  }
  try {
    return run(argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return EXIT_FAILURE;
  }
}
