// Drives a volume at its own interface, without a front end: what the engine alone can do, and what
// it adds to the device.
//
// Keeps `depth` requests in flight, on the volume's reactor, until the time or the number of
// operations is over, then waits for those in flight. Nothing is allocated between start and end.
//
// With `verify`, each written block says where and as the how manieth write it was written; reads
// of blocks that this run wrote check that, and when the run is over all of those are read back. No
// two requests then touch one block at a time.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "block_io.h"
#include "buffer.h"
#include "latency_histogram.h"
#include "reactor.h"

namespace pando {

enum class LoadPattern : uint8_t { kRead, kWrite, kRandomRead, kRandomWrite, kRandomReadWrite };

struct LoadOptions {
  LoadPattern pattern = LoadPattern::kRandomRead;
  uint32_t read_percent = 50;  // kRandomReadWrite only
  uint32_t block_bytes = 4096;
  uint32_t depth = 1;
  uint64_t region_bytes = 0;  // from the volume's start; 0: all of it
  uint64_t duration_ms = 0;   // whichever of the two is reached first; 0: no limit
  uint64_t op_count = 0;      // reads and writes
  uint64_t flush_every = 0;   // writes; 0: never
  uint64_t seed = 1;
  bool verify = false;
};

inline constexpr uint32_t kMaxLoadDepth = 1024;

struct LoadLane {
  uint64_t ops = 0;  // those that succeeded
  uint64_t bytes = 0;
  LatencyHistogram latency;
};

struct LoadResult {
  double seconds = 0;  // from the start to the end of the last request, without the read-back
  LoadLane reads;
  LoadLane writes;
  LoadLane flushes;
  /// Failed requests, by IoStatus; those of the final read-back included.
  std::array<uint64_t, static_cast<size_t>(IoStatus::kClosed) + 1> errors{};
  /// Blocks that held something else than what was written, and where the first one is.
  uint64_t verify_errors = 0;
  uint64_t first_verify_error_offset = 0;
  uint64_t verified_blocks = 0;

  uint64_t ops() const { return reads.ops + writes.ops; }
  double iops() const { return seconds > 0 ? static_cast<double>(ops()) / seconds : 0; }
};

/// What is wrong with the options, as half a sentence; null if nothing is.
const char* load_options_error(const LoadOptions& options, const BlockVolume& volume);

class LoadGenerator {
 public:
  /// The options must be without error, and the volume stay open until `done`.
  LoadGenerator(Reactor& reactor, BlockVolume& volume, const LoadOptions& options);
  LoadGenerator(const LoadGenerator&) = delete;
  LoadGenerator& operator=(const LoadGenerator&) = delete;
  /// Not between start() and `done`.
  ~LoadGenerator();

  /// Once. `done` runs on the reactor, later than start() returns, and may destroy the generator.
  /// Throws std::bad_alloc.
  void start(std::function<void(const LoadResult&)> done);
  /// Ends the run early; `done` follows, without the read-back of `verify`.
  void stop();

 private:
  struct Slot;
  enum class Phase : uint8_t { kNew, kRunning, kReadingBack, kDraining, kDone };

  void pump();
  bool prepare(Slot* slot);
  void prepare_block(Slot* slot, IoOp op, uint64_t block);
  void submit(Slot* slot);
  void on_done(Slot* slot);
  void account(Slot* slot, uint64_t now_ns);
  bool is_over() const;
  void pump_later();
  void finish();

  uint64_t random();
  uint64_t choose_block();
  void stamp(Slot* slot);
  bool intact(const Slot& slot) const;
  uint64_t pattern_word(uint64_t block, uint32_t version, size_t index) const;

  Reactor& reactor_;
  BlockVolume& volume_;
  const LoadOptions options_;
  const uint64_t blocks_;
  std::function<void(const LoadResult&)> done_;
  LoadResult result_;
  Phase phase_ = Phase::kNew;
  uint64_t start_ns_ = 0;

  std::vector<Slot> slots_;
  std::vector<Slot*> idle_;
  bool pumping_ = false;
  bool pump_posted_ = false;
  uint64_t issued_ = 0;
  uint64_t writes_until_flush_ = 0;
  uint64_t cursor_ = 0;  // the next block: of a sequential run, and of the read-back
  uint64_t random_state_;

  // Per block, with `verify` only. Version 0: not written by this run, or by a write that failed.
  std::vector<uint32_t> versions_;
  std::vector<bool> busy_;
};

}  // namespace pando
