// The histogram's arithmetic, and the load generator against a volume whose every request is seen:
// the mix it was asked for, never more in flight than asked, and corruption found when there is
// some.
#include "load_generator.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>

#include "check.h"
#include "memory_volume.h"

namespace {

using namespace pando;
using namespace pando::test;
using Completion = MemoryVolume::Completion;

constexpr uint64_t kVolumeBytes = 8 << 20;

void histogram() {
  // Buckets touch each other, and none is wider than a 64th of where it begins.
  uint64_t previous = LatencyHistogram::upper_end_ns(0);
  CHECK(previous == 0);
  for (size_t bucket = 1; bucket < 2000; ++bucket) {
    const uint64_t end = LatencyHistogram::upper_end_ns(bucket);
    CHECK(LatencyHistogram::bucket_of(previous + 1) == bucket);
    CHECK(LatencyHistogram::bucket_of(end) == bucket);
    CHECK(end - previous <= std::max<uint64_t>(1, (previous + 1) / 64));
    previous = end;
  }
  LatencyHistogram none;
  CHECK(none.percentile_ns(50) == 0 && none.mean_ns() == 0);

  LatencyHistogram few;
  for (const uint64_t value : {30, 10, 20}) few.record(value);
  CHECK(few.percentile_ns(33) == 10 && few.percentile_ns(34) == 20);
  CHECK(few.percentile_ns(0) == 10 && few.percentile_ns(67) == 30 && few.mean_ns() == 20);

  std::mt19937_64 random(3);
  std::vector<uint64_t> values;
  LatencyHistogram all, half;
  for (int i = 0; i < 20000; ++i) {
    const auto value =
        static_cast<uint64_t>(std::exp(std::uniform_real_distribution<>(0, 20)(random)));
    values.push_back(value);
    (i % 2 == 0 ? all : half).record(value);
  }
  all.add(half);
  std::sort(values.begin(), values.end());
  CHECK(all.count() == values.size() && all.max_ns() == values.back());
  for (const double percent : {1.0, 50.0, 90.0, 99.0, 99.9, 100.0}) {
    const auto rank = static_cast<size_t>(std::ceil(percent / 100 * 20000)) - 1;
    const uint64_t exact = values[rank];
    CHECK(all.percentile_ns(percent) >= exact);
    CHECK(static_cast<double>(all.percentile_ns(percent)) <=
          static_cast<double>(exact) * (1 + 1.0 / 64));
  }
  LatencyHistogram eternal;
  eternal.record(UINT64_MAX);
  CHECK(eternal.count() == 1 && eternal.max_ns() == UINT64_MAX);
}

struct Run {
  LoadResult result;
  std::vector<MemoryVolume::Seen> seen;
  size_t most_in_flight = 0;
};

/// Runs to the end on a fresh volume; `before` may spoil it.
Run run(const LoadOptions& options, Completion completion,
        const std::function<void(MemoryVolume&, LoadGenerator&, Reactor&)>& before = {}) {
  Reactor reactor;
  MemoryVolume volume({.size_bytes = kVolumeBytes, .completion = completion, .reactor = &reactor});
  CHECK(load_options_error(options, volume) == nullptr);
  auto generator = std::make_unique<LoadGenerator>(reactor, volume, options);
  if (before) before(volume, *generator, reactor);
  std::optional<LoadResult> result;
  generator->start([&](const LoadResult& finished) {
    result = finished;
    generator.reset();
  });
  CHECK(!result);
  for (int turn = 0; turn < 100000 && !result; ++turn) reactor.turn(1000);
  REQUIRE(result.has_value());
  CHECK(volume.in_flight() == 0 && reactor.buffers().in_use_bytes() == 0);
  return {*result, volume.seen(), volume.most_in_flight()};
}

size_t count(const Run& run, IoOp op) {
  return static_cast<size_t>(std::count_if(run.seen.begin(), run.seen.end(),
                                           [=](const auto& seen) { return seen.op == op; }));
}

void does_what_it_was_asked(Completion completion) {
  const Run reads =
      run({.pattern = LoadPattern::kRandomRead, .depth = 7, .op_count = 5000}, completion);
  CHECK(reads.result.reads.ops == 5000 && reads.result.writes.ops == 0);
  CHECK(reads.result.reads.bytes == 5000 * 4096 && reads.result.reads.latency.count() == 5000);
  CHECK(reads.seen.size() == 5000);
  CHECK(reads.most_in_flight == (completion == Completion::kInline ? 1 : 7));
  CHECK(reads.result.seconds > 0 && reads.result.iops() > 0);
  std::set<uint64_t> offsets;
  for (const auto& seen : reads.seen) offsets.insert(seen.offset_bytes);
  CHECK(offsets.size() > 1600 && *offsets.rbegin() < kVolumeBytes);  // of 2048 blocks

  const Run mixed = run({.pattern = LoadPattern::kRandomReadWrite,
                         .read_percent = 70,
                         .block_bytes = 8192,
                         .depth = 16,
                         .region_bytes = 1 << 20,
                         .op_count = 4000,
                         .flush_every = 10},
                        completion);
  CHECK(mixed.result.ops() == 4000);
  CHECK(mixed.result.reads.ops > 2600 && mixed.result.reads.ops < 3000);
  CHECK(count(mixed, IoOp::kWrite) == mixed.result.writes.ops);
  const uint64_t due = mixed.result.writes.ops / 10;
  CHECK(mixed.result.flushes.ops == due || mixed.result.flushes.ops + 1 == due);
  CHECK(std::all_of(mixed.seen.begin(), mixed.seen.end(), [](const auto& seen) {
    return seen.offset_bytes + seen.length_bytes <= 1 << 20;
  }));

  const Run sequential =
      run({.pattern = LoadPattern::kWrite, .block_bytes = 65536, .depth = 4, .op_count = 130},
          completion);
  for (size_t i = 0; i < sequential.seen.size(); ++i) {
    CHECK(sequential.seen[i].op == IoOp::kWrite);
    CHECK(sequential.seen[i].offset_bytes == i % 128 * 65536);  // round the volume's end
  }

  const LoadOptions options{.pattern = LoadPattern::kRandomWrite, .op_count = 100, .seed = 5};
  const auto same = [](const Run& one, const Run& two) {
    return std::equal(
        one.seen.begin(), one.seen.end(), two.seen.begin(), two.seen.end(),
        [](const auto& a, const auto& b) { return a.offset_bytes == b.offset_bytes; });
  };
  LoadOptions other = options;
  other.seed = 6;
  CHECK(same(run(options, completion), run(options, completion)));
  CHECK(!same(run(options, completion), run(other, completion)));
}

void time_ends_it(Completion completion) {
  const auto begin = std::chrono::steady_clock::now();
  const Run timed = run({.depth = 4, .duration_ms = 60}, completion);
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin;
  CHECK(wall.count() >= 0.06);
  CHECK(timed.result.seconds > 0 && timed.result.seconds < wall.count());
  CHECK(timed.result.reads.ops == timed.seen.size() && timed.result.reads.ops > 4);
}

void stop_ends_it() {
  const auto stop = [](MemoryVolume&, LoadGenerator& generator, Reactor& reactor) {
    reactor.add_timer(20, [&] { generator.stop(); });
  };
  for (const auto completion : {Completion::kInline, Completion::kShuffled}) {
    const Run stopped = run({.pattern = LoadPattern::kWrite, .duration_ms = 60000, .verify = true},
                            completion, stop);
    CHECK(stopped.result.seconds < 10 && stopped.result.writes.ops > 0);
  }
}

void errors_are_counted_by_status() {
  const Run failing = run({.pattern = LoadPattern::kRandomReadWrite, .depth = 8, .op_count = 1000},
                          Completion::kShuffled, [](MemoryVolume& volume, auto&, auto&) {
                            volume.fail(IoOp::kRead, IoStatus::kIoError, 3, 10);
                            volume.fail(IoOp::kWrite, IoStatus::kNoSpace, 5, 10);
                          });
  const auto& errors = failing.result.errors;
  CHECK(errors[static_cast<size_t>(IoStatus::kIoError)] == 3);
  CHECK(errors[static_cast<size_t>(IoStatus::kNoSpace)] == 5);
  CHECK(failing.result.ops() == 992);

  const Run closed = run({.depth = 8, .duration_ms = 60000}, Completion::kShuffled,
                         [](MemoryVolume& volume, auto&, Reactor& reactor) {
                           reactor.add_timer(20, [&] { volume.close(); });
                         });
  CHECK(closed.result.seconds < 10);
  CHECK(closed.result.errors[static_cast<size_t>(IoStatus::kClosed)] > 0);
}

void verify_finds_what_is_wrong(Completion completion) {
  const LoadOptions options{.pattern = LoadPattern::kRandomReadWrite,
                            .depth = 32,
                            .region_bytes = 1 << 20,
                            .op_count = 3000,
                            .verify = true};
  const Run good = run(options, completion);
  CHECK(good.result.verify_errors == 0 && good.result.ops() == 3000);
  CHECK(good.result.verified_blocks > 1000);

  // Written over and over, no block is in flight twice: else shuffling would show as corruption.
  LoadOptions writes = options;
  writes.pattern = LoadPattern::kRandomWrite;
  const Run rewritten = run(writes, completion);
  CHECK(rewritten.result.verify_errors == 0 && rewritten.result.verified_blocks == 256);

  // A failed write leaves the block unknown, not wrong.
  const Run failed = run(writes, completion, [](MemoryVolume& volume, auto&, auto&) {
    volume.fail(IoOp::kWrite, IoStatus::kNoSpace, 1, 2999);
  });
  CHECK(failed.result.verify_errors == 0 && failed.result.verified_blocks == 255);

  // A write that is acknowledged and lost: the read-back finds an older version there.
  LoadOptions twice = options;
  twice.pattern = LoadPattern::kWrite;
  twice.depth = 1;
  twice.op_count = 512;  // the region, two times
  const Run lost =
      run(twice, completion, [](MemoryVolume& volume, auto&, Reactor&) { volume.lose_write(300); });
  CHECK(lost.result.verify_errors == 1);
  CHECK(lost.result.first_verify_error_offset == (300 - 256) * 4096);
}

void wrong_options_are_named() {
  Reactor reactor;
  MemoryVolume volume({.size_bytes = kVolumeBytes});
  MemoryVolume frozen({.size_bytes = kVolumeBytes, .read_only = true});
  const auto error = [&](LoadOptions options) {
    options.op_count = options.op_count == 0 ? 1 : 0;
    const char* text = load_options_error(options, volume);
    return std::string(text == nullptr ? "" : text);
  };
  CHECK(error({}).empty());
  CHECK(error({.block_bytes = 512}).starts_with("the block size"));
  CHECK(error({.block_bytes = 2 << 20}).starts_with("the block size"));
  CHECK(error({.block_bytes = 0}).starts_with("the block size"));
  CHECK(error({.depth = 0}).starts_with("the depth"));
  CHECK(error({.depth = kMaxLoadDepth + 1}).starts_with("the depth"));
  CHECK(error({.read_percent = 101}).starts_with("the read percentage"));
  CHECK(error({.op_count = 1}).starts_with("a duration or a number"));
  CHECK(error({.region_bytes = kVolumeBytes + 4096}) == "the region is larger than the volume");
  CHECK(error({.block_bytes = 8192, .region_bytes = 4096}).starts_with("the region is smaller"));
  CHECK(error({.depth = 8, .region_bytes = 65536 - 4096, .verify = true}).starts_with("verif"));
  CHECK(error({.depth = 8, .region_bytes = 65536, .verify = true}).empty());
  const LoadOptions writes{.pattern = LoadPattern::kWrite, .op_count = 1};
  CHECK(std::string(load_options_error(writes, frozen)) == "the volume is read-only");
  CHECK(load_options_error({.op_count = 1}, frozen) == nullptr);
}

}  // namespace

int main() {
  histogram();
  wrong_options_are_named();
  for (const auto completion : {Completion::kInline, Completion::kInOrder, Completion::kShuffled}) {
    does_what_it_was_asked(completion);
    time_ends_it(completion);
    verify_finds_what_is_wrong(completion);
  }
  stop_ends_it();
  errors_are_counted_by_status();
  return finish("load_generator_test");
}
