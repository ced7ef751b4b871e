// What a request costs the engine's thread: nothing is allocated for it, once there has been as
// much under way. Only what an index block needs that nobody had before is new memory.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "allocations.h"
#include "check.h"
#include "engine_alone.h"

namespace {

using namespace pando;
using namespace pando::test;

constexpr uint64_t kVolumeBytes = 32 << 20;
constexpr uint64_t kBlocks = kVolumeBytes / EngineAlone::kBlockSize;

/// Sparse, and gone with the process.
class DataFile {
 public:
  DataFile() {
    const int fd = mkstemp(path_.data());
    CHECK(fd >= 0 && ftruncate(fd, EngineAlone::kDataOffset + 2 * kVolumeBytes) == 0);
    close(fd);
  }
  ~DataFile() { unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_ = "/tmp/pando-volume-cost-XXXXXX";
};

uint64_t allocated_by(EngineAlone& engine, LoadPattern pattern, uint64_t requests) {
  LoadOptions options;
  options.pattern = pattern;
  options.depth = 32;
  options.op_count = requests;
  options.seed = requests;
  const uint64_t before = allocations;
  const LoadResult result = engine.run(options);
  CHECK(result.ops() == requests);
  return allocations - before;
}

void first_writes_allocate_for_index_blocks_only() {
  DataFile file;
  EngineAlone engine(file.path(), kVolumeBytes);
  allocated_by(engine, LoadPattern::kWrite, kBlocks / 4);
  const uint64_t writes_before = engine.counters().allocating_writes;
  LoadOptions options;
  options.pattern = LoadPattern::kWrite;
  options.depth = 32;
  options.op_count = kBlocks;
  const uint64_t before = allocations;
  engine.run(options);
  const uint64_t allocated = allocations - before;
  const uint64_t first_writes = engine.counters().allocating_writes - writes_before;
  CHECK(first_writes == kBlocks - kBlocks / 4);
  // The rest is chunks of queues, which hold many records each.
  CHECK(allocated < first_writes / 3);
}

void steady_requests_allocate_nothing() {
  DataFile file;
  EngineAlone engine(file.path(), kVolumeBytes);
  allocated_by(engine, LoadPattern::kWrite, kBlocks);
  engine.settle();
  // In order: of two writes to one block at a time the second would wait, in a list.
  for (const LoadPattern pattern : {LoadPattern::kRandomRead, LoadPattern::kWrite}) {
    allocated_by(engine, pattern, 500);
    const uint64_t few = allocated_by(engine, pattern, 100);
    const uint64_t many = allocated_by(engine, pattern, 3100);
    if (!CHECK(many <= few + 10)) {
      std::fprintf(stderr, "%llu allocations for 100 requests, %llu for 3100\n",
                   static_cast<unsigned long long>(few), static_cast<unsigned long long>(many));
    }
  }
}

}  // namespace

int main() {
  first_writes_allocate_for_index_blocks_only();
  steady_requests_allocate_nothing();
  return finish("volume_cost");
}
