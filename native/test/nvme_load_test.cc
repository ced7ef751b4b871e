// The load over NVMe/TCP: as many requests as it was told, all of them to the volume, and an end
// with a sentence when the target says no or goes away. And what a request costs the target's
// thread.
#include "nvme_load.h"

#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>

#include "allocations.h"
#include "check.h"
#include "nvme_fixture.h"

namespace {

using namespace pando;
using namespace pando::test;
using nvme::NvmeLoadOptions;
using nvme::NvmeLoadResult;

NvmeLoadOptions load_of(const TargetThread& target) {
  NvmeLoadOptions options;
  options.place = {"127.0.0.1", target.port()};
  options.identity = {kVolumeNqn, kHostNqn};
  options.queues = 3;
  options.depth = 8;
  options.op_count = 1000;
  return options;
}

std::string refusal(const NvmeLoadOptions& options) {
  try {
    nvme::run_nvme_load(options);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

bool says(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

void every_request_reaches_the_volume() {
  TargetThread target;
  for (const uint32_t block : {4096u, 16384u, 65536u, 1u << 20}) {
    for (const LoadPattern pattern :
         {LoadPattern::kRead, LoadPattern::kWrite, LoadPattern::kRandomReadWrite}) {
      NvmeLoadOptions options = load_of(target);
      options.block_bytes = block;
      options.pattern = pattern;
      options.op_count = block > 65536 ? 50 : 300;
      uint64_t before = 0;
      uint64_t after = 0;
      target.on_reactor([&](nvme::Target&) { before = target.volume->submitted; });
      const NvmeLoadResult result = nvme::run_nvme_load(options);
      target.on_reactor([&](nvme::Target&) { after = target.volume->submitted; });
      CHECK(result.errors == 0 && result.volume_bytes == 16 << 20 && result.seconds > 0);
      CHECK(result.reads.ops + result.writes.ops == options.op_count);
      CHECK(after - before == options.op_count);
      CHECK((result.writes.ops == 0) == (pattern == LoadPattern::kRead));
      CHECK((result.reads.ops == 0) == (pattern == LoadPattern::kWrite));
      CHECK(result.reads.bytes + result.writes.bytes == options.op_count * block);
      CHECK(result.reads.latency.count() == result.reads.ops);
    }
  }
}

void what_the_volume_refuses_is_counted() {
  TargetThread target;
  NvmeLoadOptions options = load_of(target);
  options.pattern = LoadPattern::kRandomWrite;
  target.on_reactor([&](auto&) { target.volume->read_only_volume = true; });
  const NvmeLoadResult result = nvme::run_nvme_load(options);
  CHECK(result.errors == options.op_count && result.writes.ops == 0);
  CHECK(result.first_error == nvme::Status::kNamespaceWriteProtected);
}

void what_cannot_be_is_refused() {
  TargetThread target;
  target.on_reactor([&](auto&) {
    target.exports.denied_hosts.insert("nqn.2014-08.org.nvmexpress:uuid:stranger");
  });
  const auto with = [&](const auto& change) {
    NvmeLoadOptions options = load_of(target);
    change(options);
    return refusal(options);
  };
  CHECK(
      says(with([](auto& o) { o.identity.host_nqn = "nqn.2014-08.org.nvmexpress:uuid:stranger"; }),
           "refuses the connection"));
  CHECK(says(with([](auto& o) { o.identity.subsystem_nqn = ""; }), "an NQN has"));
  CHECK(says(with([](auto& o) { o.queues = 0; }), "queues are"));
  CHECK(says(with([](auto& o) { o.queues = 60; }), "gives a host"));
  CHECK(says(with([](auto& o) { o.depth = 500; }), "requests on a queue"));
  CHECK(says(with([](auto& o) { o.block_bytes = 1000; }), "block size"));
  CHECK(says(with([](auto& o) { o.region_bytes = 1 << 30; }), "larger than the volume"));
  CHECK(says(with([](auto& o) { o.op_count = 0; }), "must be given"));
  CHECK(says(with([](auto& o) { o.place.address = "nowhere"; }), "numeric address"));
  CHECK(says(with([](auto& o) { o.place.port = 1; }), "takes no connection"));
}

void a_target_that_goes_away_ends_it() {
  TargetThread target;
  NvmeLoadOptions options = load_of(target);
  options.op_count = 0;
  options.duration_ms = 60'000;
  std::thread stopper([&] {
    CHECK(target.eventually([&](nvme::Target&) { return target.volume->finished > 100; }));
    target.stop();
  });
  CHECK(says(refusal(options), "closed a queue"));
  stopper.join();
}

/// By the target's thread.
uint64_t allocated_during(TargetThread& target, const NvmeLoadOptions& options) {
  uint64_t before = 0;
  uint64_t after = 0;
  target.on_reactor([&](nvme::Target&) { before = allocations; });
  CHECK(nvme::run_nvme_load(options).errors == 0);
  target.on_reactor([&](nvme::Target&) { after = allocations; });
  return after - before;
}

// The first requests of a queue make what the others use again.
void steady_requests_allocate_nothing() {
  for (const LoadPattern pattern : {LoadPattern::kRandomRead, LoadPattern::kRandomWrite}) {
    TargetThread target;
    NvmeLoadOptions options = load_of(target);
    options.pattern = pattern;
    options.block_bytes = 8192;
    options.queues = 1;
    options.op_count = 100;
    const uint64_t few = allocated_during(target, options);
    options.op_count = 5100;
    const uint64_t many = allocated_during(target, options);
    // A timer that watches the connection is set again now and then.
    if (!CHECK(many < few + 100)) {
      std::fprintf(stderr, "%llu allocations for 100 requests, %llu for 5100\n",
                   static_cast<unsigned long long>(few), static_cast<unsigned long long>(many));
    }
  }
}

}  // namespace

int main() {
  every_request_reaches_the_volume();
  what_the_volume_refuses_is_counted();
  what_cannot_be_is_refused();
  a_target_that_goes_away_ends_it();
  steady_requests_allocate_nothing();
  return finish("nvme_load_test");
}
