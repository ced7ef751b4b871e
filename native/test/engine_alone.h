// The engine without JavaScript: a pool on a file, with a volume that is new, on the thread that
// drives it. What the control plane would answer is answered here: all blocks of the pool are lent
// at once, a checkpoint stores its index blocks nowhere.
//
// Nothing of it is ever opened again, and no index block is evicted: the cache has room for all.
#pragma once

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "load_generator.h"
#include "pool.h"
#include "reactor.h"
#include "unflushed_log.h"
#include "uring_disk.h"
#include "volume.h"

namespace pando::test {

class EngineAlone final : private PoolHost {
 public:
  static constexpr uint32_t kBlockSize = 4096;
  static constexpr uint64_t kJournalBlocks = 16384;  // 64 MiB
  static constexpr uint64_t kDataOffset = (1 << 20) + kJournalBlocks * 4096;

  /// `path`: a file of at least kDataOffset and the data's bytes. Throws std::system_error.
  EngineAlone(const std::string& path, uint64_t volume_bytes)
      : file_(path),
        disk_(reactor_.ring(), file_),
        shared_(UnflushedLog::kHeaderBytes + (4 << 20)),
        pool_(disk_, reactor_.buffers(), *this, pool_options(), shared_) {
    const uint64_t blocks = (file_.size_bytes() - kDataOffset) / kBlockSize;
    pool_.lend({{.first = 1, .count = static_cast<uint32_t>(blocks)}}, false);
    VolumeOptions options{};
    options.id = 1;
    options.name = "alone";
    options.size_bytes = volume_bytes;
    options.lineage = {1};
    options.born_here = true;
    volume_ = pool_.open_volume(options);
  }

  ~EngineAlone() override {
    until([this](std::function<void()> done) { pool_.close_volume(1, std::move(done)); });
  }

  LoadResult run(const LoadOptions& options) {
    CHECK(load_options_error(options, *volume_) == nullptr);
    LoadGenerator generator(reactor_, *volume_, options);
    LoadResult result;
    until([&](std::function<void()> done) {
      generator.start([&result, done = std::move(done)](const LoadResult& given) {
        result = given;
        done();
      });
    });
    return result;
  }

  /// Everything is durable, and clean.
  void settle() {
    until([this](std::function<void()> done) { checkpoint(std::move(done)); });
  }

  const PoolCounters& counters() const { return pool_.counters(); }

 private:
  static PoolOptions pool_options() {
    PoolOptions options{};
    options.block_size = kBlockSize;
    options.data_offset_bytes = kDataOffset;
    options.index_cache_bytes = 256 << 20;
    options.dirty_limit = 16384;
    options.extents_low_blocks = 1;
    options.journal = {.offset_bytes = 1 << 20,
                       .block_count = kJournalBlocks,
                       .next_sequence = 1,
                       .epoch = 1,
                       .pool_uuid = {}};
    options.boot_id = "alone";
    return options;
  }

  void until(const std::function<void(std::function<void()>)>& start) {
    bool done = false;
    start([&done] { done = true; });
    while (!done) reactor_.turn(1000);
  }

  void checkpoint(std::function<void()> done) {
    pool_.checkpoint_begin([this, done = std::move(done)](const Pool::CheckpointStart& start) {
      CHECK(start.error == 0);
      take(done);
    });
  }

  void take(std::function<void()> done) {
    pool_.checkpoint_take(64, [this, done](int error, const std::vector<DirtyCopy>& copies) {
      CHECK(error == 0);
      if (copies.empty()) {
        pool_.checkpoint_end(true);
        done();
        return;
      }
      defer([this, done] {
        pool_.checkpoint_stored();
        take(done);
      });
    });
  }

  // PoolHost
  void index_wanted(uint64_t, uint64_t, uint32_t) override { std::abort(); }
  void extents_wanted(bool) override {
    defer([this] { pool_.lend({}, true); });
  }
  void checkpoint_wanted(const char*) override {
    defer([this] { checkpoint([] {}); });
  }
  void blocks_freed(std::vector<BlockRun> runs) override {
    defer([this, runs = std::move(runs)] { pool_.lend(runs, false); });
  }
  void pool_failed(int, const std::string&) override { std::abort(); }
  void defer(std::function<void()> function) override { reactor_.post(std::move(function)); }
  void later(uint64_t delay_ms, std::function<void()> function) override {
    reactor_.add_timer(delay_ms, std::move(function));
  }
  uint64_t now_ns() override { return reactor_.now_ms() * 1'000'000; }

  DeviceFile file_;
  Reactor reactor_;
  UringDisk disk_;
  std::vector<std::byte> shared_;
  Pool pool_;
  Volume* volume_ = nullptr;
};

}  // namespace pando::test
