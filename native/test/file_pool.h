// A pool on a file with one volume, its control plane as small as it can be: blocks are lent from a
// counter, freed ones lent again, and a checkpoint puts nothing anywhere. For what is counted in
// the data path itself. Everything in it belongs to the thread that turns the reactor.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "pool.h"
#include "reactor.h"
#include "uring_disk.h"
#include "volume.h"

namespace pando::test {

class FilePool final : private PoolHost {
 public:
  /// The file at `path` is made anew, sparse.
  FilePool(const std::string& path, uint64_t volume_bytes)
      : file_(make_file(path, kDataOffset + kJournalBytes + 4 * volume_bytes)),
        disk_(reactor.ring(), file_),
        shared_(UnflushedLog::kHeaderBytes + (4 << 20)) {
    const uint64_t blocks = 3 * volume_bytes / kBlock;
    PoolOptions options{};
    options.block_size = kBlock;
    options.data_offset_bytes = kDataOffset + kJournalBytes;
    options.data_blocks = blocks;
    options.index_cache_bytes = 256 << 20;
    options.dirty_limit = 10'000;
    options.extents_low_blocks = 4096;
    options.journal = {kDataOffset, kJournalBytes / kBlock, 1, 1, {}};
    pool_ = std::make_unique<Pool>(disk_, reactor.buffers(), static_cast<PoolHost&>(*this), options, shared_);
    free_.push_back({1, static_cast<uint32_t>(blocks)});
    volume = pool_->open_volume({1, "volume", {}, volume_bytes, false, {1}, true});
  }

  ~FilePool() override {
    while (reactor.ring().in_flight() > 1) reactor.turn(1000);
  }

  /// Makes its volume the child of what it was: none of it is its own any more.
  void branch() {
    bool done = false;
    pool_->freeze({1}, [&](int error) {
      CHECK(error == 0);
      pool_->thaw(1, ++layer_);
      done = true;
    });
    while (!done) reactor.turn(1000);
  }

  Reactor reactor;
  Volume* volume = nullptr;

 private:
  static constexpr uint32_t kBlock = 4096;
  static constexpr uint64_t kDataOffset = 1 << 20;
  static constexpr uint64_t kJournalBytes = 64 << 20;

  static std::string make_file(const std::string& path, uint64_t bytes) {
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0 && ftruncate(fd, static_cast<off_t>(bytes)) == 0);
    close(fd);
    return path;
  }

  void index_wanted(uint64_t token, uint64_t, uint32_t) override {
    defer([this, token] { pool_->index_answer(token, 0, nullptr, false); });
  }
  void extents_wanted(bool) override {
    defer([this] {
      std::vector<BlockRun> lent;
      if (!free_.empty()) {
        lent.push_back(free_.back());
        free_.pop_back();
      }
      pool_->lend(lent, free_.empty());
    });
  }
  void checkpoint_wanted(const char*) override {
    defer([this] {
      pool_->checkpoint_begin([this](const Pool::CheckpointStart& start) {
        CHECK(start.error == 0);
        take_copies();
      });
    });
  }
  void take_copies() {
    pool_->checkpoint_take(256, [this](int error, const std::vector<DirtyCopy>& copies) {
      CHECK(error == 0);
      pool_->checkpoint_stored();
      defer([this, last = copies.empty()] { last ? pool_->checkpoint_end(true) : take_copies(); });
    });
  }
  void blocks_freed(std::vector<BlockRun> runs) override {
    free_.insert(free_.begin(), runs.begin(), runs.end());
  }
  void pool_failed(int, const std::string&) override { CHECK(false); }
  void defer(std::function<void()> function) override { reactor.post(std::move(function)); }
  void later(uint64_t delay_ms, std::function<void()> function) override {
    reactor.add_timer(delay_ms, std::move(function));
  }
  uint64_t now_ns() override {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
  }

  DeviceFile file_;
  UringDisk disk_;
  std::vector<std::byte> shared_;
  std::vector<BlockRun> free_;
  std::unique_ptr<Pool> pool_;
  uint64_t layer_ = 1;
};

}  // namespace pando::test
