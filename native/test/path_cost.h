// What a load costs the data path, in figures that no neighbour changes: allocations and system
// calls per request.
#pragma once

#include <thread>

#include "allocations.h"
#include "file_pool.h"
#include "load_generator.h"
#include "nvme_fixture.h"
#include "nvme_load.h"

namespace pando::test {

struct PathCost {
  uint64_t ops = 0;
  uint64_t allocations = 0;
  uint64_t enters = 0;
  uint64_t fixed_ops = 0;
};

/// At the volume's own interface; generator and engine on this thread.
inline PathCost volume_cost(FilePool& pool, const LoadOptions& options) {
  REQUIRE(load_options_error(options, *pool.volume) == nullptr);
  LoadGenerator generator(pool.reactor, *pool.volume, options);
  PathCost cost;
  bool done = false;
  const Ring& ring = pool.reactor.ring();
  generator.start([&](const LoadResult& result) {
    for (const uint64_t errors : result.errors) CHECK(errors == 0);
    cost.ops = result.ops();
    done = true;
    pool.reactor.post([] {});  // so that this turn ends
  });
  const uint64_t allocated = allocations;
  const uint64_t entered = ring.enters();
  const uint64_t fixed = ring.fixed_ops();
  while (!done) pool.reactor.turn(UINT64_MAX);
  cost.allocations = allocations - allocated;
  cost.enters = ring.enters() - entered;
  cost.fixed_ops = ring.fixed_ops() - fixed;
  return cost;
}

/// The target's thread, over a volume in memory.
inline PathCost target_cost(TargetThread& target, const nvme::NvmeLoadOptions& options) {
  PathCost before;
  PathCost after;
  const auto read = [&](PathCost& cost) {
    target.on_reactor([&](nvme::Target& running) {
      cost.allocations = allocations;
      cost.enters = running.reactor().ring().enters();
      cost.fixed_ops = running.reactor().ring().fixed_ops();
    });
  };
  read(before);
  const nvme::NvmeLoadResult result = nvme::run_nvme_load(options);
  read(after);
  CHECK(result.errors == 0);
  return {result.reads.ops + result.writes.ops, after.allocations - before.allocations,
          after.enters - before.enters, after.fixed_ops - before.fixed_ops};
}

}  // namespace pando::test
