// Prints what a load costs per request, as a line of JSON:
//   path_cost volume|clone|target FILE PATTERN BLOCK_BYTES DEPTH OPS [QUEUES]
// Under `valgrind --tool=callgrind` its instructions can be counted: of two runs with different
// OPS, the difference.
#include "path_cost.h"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

namespace {

using namespace pando;
using namespace pando::test;

constexpr uint64_t kVolumeBytes = 64 << 20;

LoadPattern pattern_of(const std::string& name) {
  if (name == "read") return LoadPattern::kRead;
  if (name == "write") return LoadPattern::kWrite;
  return name == "randwrite" ? LoadPattern::kRandomWrite : LoadPattern::kRandomRead;
}

PathCost run(char** argv, int argc) {
  const std::string subject = argv[1];
  const LoadPattern pattern = pattern_of(argv[3]);
  const auto block_bytes = static_cast<uint32_t>(std::atoi(argv[4]));
  const auto depth = static_cast<uint32_t>(std::atoi(argv[5]));
  const uint64_t ops = std::strtoull(argv[6], nullptr, 10);
  if (subject == "target") {
    TargetThread target(any_port(), kVolumeBytes);
    nvme::NvmeLoadOptions load;
    load.place = {"127.0.0.1", target.port()};
    load.identity = {kVolumeNqn, kHostNqn};
    load.pattern = pattern;
    load.block_bytes = block_bytes;
    load.depth = depth;
    load.queues = argc > 7 ? static_cast<uint32_t>(std::atoi(argv[7])) : 1;
    load.op_count = ops;
    return target_cost(target, load);
  }
  FilePool pool(argv[2], kVolumeBytes);
  LoadOptions fill;
  fill.pattern = LoadPattern::kWrite;
  fill.block_bytes = 1 << 20;
  fill.depth = 4;
  fill.op_count = kVolumeBytes / fill.block_bytes;
  volume_cost(pool, fill);
  if (subject == "clone") pool.branch();
  LoadOptions load;
  load.pattern = pattern;
  load.block_bytes = block_bytes;
  load.depth = depth;
  load.op_count = ops;
  return volume_cost(pool, load);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 7) {
    std::fprintf(stderr, "usage: %s volume|clone|target FILE PATTERN BLOCK_BYTES DEPTH OPS [QUEUES]\n",
                 argv[0]);
    return EXIT_FAILURE;
  }
  try {
    const PathCost cost = run(argv, argc);
    std::printf("{\"ops\": %llu, \"allocations\": %llu, \"enters\": %llu, \"fixed\": %llu}\n",
                static_cast<unsigned long long>(cost.ops),
                static_cast<unsigned long long>(cost.allocations),
                static_cast<unsigned long long>(cost.enters),
                static_cast<unsigned long long>(cost.fixed_ops));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return EXIT_FAILURE;
  }
  return pando::test::failed_checks == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
