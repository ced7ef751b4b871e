#include "load_generator.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <utility>

#include "assert.h"

namespace pando {
namespace {

/// Requests that complete inside submit() are started before the reactor gets a turn.
constexpr uint32_t kOpsPerRound = 64;

uint64_t clock_ns() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

/// A bijection of 64-bit numbers whose values look random (splitmix64's finalizer).
uint64_t mix(uint64_t value) {
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
  value = (value ^ value >> 27) * 0x94d049bb133111eb;
  return value ^ value >> 31;
}

uint64_t region_blocks(const LoadOptions& options, const BlockVolume& volume) {
  const uint64_t bytes = options.region_bytes == 0 ? volume.size_bytes() : options.region_bytes;
  return bytes / options.block_bytes;
}

}  // namespace

struct LoadGenerator::Slot {
  LoadGenerator* owner = nullptr;
  BlockIo io;
  Buffer buffer;
  uint64_t block = 0;
  uint64_t submitted_ns = 0;
  bool reading_back = false;
};

const char* load_options_error(const LoadOptions& options, const BlockVolume& volume) {
  const uint32_t block_bytes = options.block_bytes;
  if (block_bytes == 0 || block_bytes % kSectorSize != 0 || block_bytes > kMaxIoBytes) {
    return "the block size must be a multiple of 4 KiB, to 1 MiB";
  }
  if (options.depth == 0 || options.depth > kMaxLoadDepth) return "the depth must be 1 to 1024";
  if (options.read_percent > 100) return "the read percentage must be 0 to 100";
  if (options.duration_ms == 0 && options.op_count == 0) {
    return "a duration or a number of operations must be given";
  }
  if (options.region_bytes > volume.size_bytes()) return "the region is larger than the volume";
  const uint64_t blocks = region_blocks(options, volume);
  if (blocks == 0) return "the region is smaller than a block";
  if (options.verify && blocks < 2 * uint64_t{options.depth}) {
    return "verification needs a region of at least two blocks per request in flight";
  }
  const bool reads =
      options.pattern == LoadPattern::kRead || options.pattern == LoadPattern::kRandomRead ||
      (options.pattern == LoadPattern::kRandomReadWrite && options.read_percent == 100);
  if (!reads && volume.read_only()) return "the volume is read-only";
  return nullptr;
}

LoadGenerator::LoadGenerator(Reactor& reactor, BlockVolume& volume, const LoadOptions& options)
    : reactor_(reactor),
      volume_(volume),
      options_(options),
      blocks_(region_blocks(options, volume)),
      random_state_(mix(options.seed)) {
  PANDO_ASSERT(load_options_error(options, volume) == nullptr);
}

LoadGenerator::~LoadGenerator() {
  PANDO_ASSERT(phase_ == Phase::kNew || phase_ == Phase::kDone);
}

void LoadGenerator::start(std::function<void(const LoadResult&)> done) {
  PANDO_ASSERT(phase_ == Phase::kNew);
  slots_.resize(options_.depth);
  idle_.reserve(options_.depth);
  for (Slot& slot : slots_) {
    slot.owner = this;
    slot.buffer = reactor_.buffers().take(options_.block_bytes);
    if (!slot.buffer) throw std::bad_alloc();
    for (size_t i = 0; i < options_.block_bytes / sizeof(uint64_t); ++i) {
      const uint64_t word = random();
      std::memcpy(slot.buffer.data() + i * sizeof(word), &word, sizeof(word));
    }
    slot.io.context = &slot;
    slot.io.done = [](BlockIo* io) {
      auto* finished = static_cast<Slot*>(io->context);
      finished->owner->on_done(finished);
    };
    idle_.push_back(&slot);
  }
  if (options_.verify) {
    versions_.resize(blocks_);
    busy_.resize(blocks_);
  }
  writes_until_flush_ = options_.flush_every;
  done_ = std::move(done);
  phase_ = Phase::kRunning;
  start_ns_ = clock_ns();
  pump_later();
}

void LoadGenerator::stop() {
  if (phase_ != Phase::kRunning && phase_ != Phase::kReadingBack) return;
  phase_ = Phase::kDraining;
  pump_later();
}

/// Fills the idle slots. Requests may complete inside submit() and so make it run for ever: it
/// gives way to the reactor after a round.
void LoadGenerator::pump() {
  if (pumping_) return;
  pumping_ = true;
  bool nothing_to_do = false;
  const uint32_t most = std::max(options_.depth, kOpsPerRound);
  for (uint32_t round = 0; round < most && !idle_.empty(); ++round) {
    Slot* slot = idle_.back();
    nothing_to_do = !prepare(slot);
    if (nothing_to_do) break;
    idle_.pop_back();
    submit(slot);
  }
  pumping_ = false;
  if (phase_ == Phase::kDraining) {
    if (idle_.size() == slots_.size() && !pump_posted_) finish();
  } else if (!nothing_to_do && !idle_.empty()) {
    pump_later();
  }
}

void LoadGenerator::finish() {
  phase_ = Phase::kDone;
  reactor_.post([this] {
    slots_.clear();
    const auto done = std::move(done_);
    const LoadResult result = result_;  // `done` may destroy this
    done(result);
  });
}

void LoadGenerator::pump_later() {
  if (pump_posted_) return;
  pump_posted_ = true;
  reactor_.post([this] {
    pump_posted_ = false;
    pump();
  });
}

/// Decides what `slot` does next; false if nothing is to be done now.
bool LoadGenerator::prepare(Slot* slot) {
  if (phase_ == Phase::kRunning) {
    if (is_over()) {
      if (idle_.size() < slots_.size())
        return false;  // the read-back begins after the last request
      phase_ = options_.verify ? Phase::kReadingBack : Phase::kDraining;
      cursor_ = 0;
      return prepare(slot);
    }
    if (options_.flush_every > 0 && writes_until_flush_ == 0) {
      writes_until_flush_ = options_.flush_every;
      slot->io.op = IoOp::kFlush;
      slot->io.offset_bytes = slot->io.length_bytes = 0;
      slot->io.data = nullptr;
      return true;
    }
    bool reads =
        options_.pattern == LoadPattern::kRead || options_.pattern == LoadPattern::kRandomRead;
    if (options_.pattern == LoadPattern::kRandomReadWrite) {
      reads = random() % 100 < options_.read_percent;
    }
    ++issued_;
    if (!reads && options_.flush_every > 0) --writes_until_flush_;
    prepare_block(slot, reads ? IoOp::kRead : IoOp::kWrite, choose_block());
    return true;
  }
  if (phase_ == Phase::kReadingBack) {
    while (cursor_ < blocks_ && versions_[cursor_] == 0) ++cursor_;
    if (cursor_ < blocks_) {
      slot->reading_back = true;
      prepare_block(slot, IoOp::kRead, cursor_++);
      return true;
    }
    phase_ = Phase::kDraining;
  }
  return false;
}

void LoadGenerator::prepare_block(Slot* slot, IoOp op, uint64_t block) {
  slot->io.op = op;
  slot->io.offset_bytes = block * options_.block_bytes;
  slot->io.length_bytes = options_.block_bytes;
  slot->io.data = slot->buffer.data();
  slot->block = block;
  if (!options_.verify) return;
  busy_[block] = true;
  if (op == IoOp::kWrite) stamp(slot);
}

void LoadGenerator::submit(Slot* slot) {
  slot->io.status = IoStatus::kOk;
  slot->submitted_ns = clock_ns();
  volume_.submit(&slot->io);
}

void LoadGenerator::on_done(Slot* slot) {
  const uint64_t now_ns = clock_ns();
  account(slot, now_ns);
  slot->reading_back = false;
  idle_.push_back(slot);
  if (slot->io.status == IoStatus::kClosed) phase_ = Phase::kDraining;  // no request will succeed
  pump();
}

bool LoadGenerator::is_over() const {
  if (options_.op_count > 0 && issued_ == options_.op_count) return true;
  return options_.duration_ms > 0 && clock_ns() - start_ns_ >= options_.duration_ms * 1'000'000;
}

void LoadGenerator::account(Slot* slot, uint64_t now_ns) {
  const BlockIo& io = slot->io;
  const bool ok = io.status == IoStatus::kOk;
  if (!ok) ++result_.errors[static_cast<size_t>(io.status)];
  if (io.op != IoOp::kFlush && options_.verify) {
    busy_[slot->block] = false;
    if (!ok && io.op == IoOp::kWrite) versions_[slot->block] = 0;
    if (ok && io.op == IoOp::kRead && versions_[slot->block] != 0) {
      ++result_.verified_blocks;
      if (!intact(*slot) && result_.verify_errors++ == 0) {
        result_.first_verify_error_offset = io.offset_bytes;
      }
    }
  }
  if (slot->reading_back) return;
  result_.seconds = static_cast<double>(now_ns - start_ns_) / 1e9;
  if (!ok) return;
  LoadLane& lane = io.op == IoOp::kRead    ? result_.reads
                   : io.op == IoOp::kWrite ? result_.writes
                                           : result_.flushes;
  ++lane.ops;
  lane.bytes += io.length_bytes;
  lane.latency.record(now_ns - slot->submitted_ns);
}

uint64_t LoadGenerator::random() {
  random_state_ += 0x9e3779b97f4a7c15;
  return mix(random_state_);
}

uint64_t LoadGenerator::choose_block() {
  uint64_t block;
  if (options_.pattern == LoadPattern::kRead || options_.pattern == LoadPattern::kWrite) {
    block = cursor_;
  } else {
    // The high half of the product: as even as the random number, without a division.
    block = static_cast<uint64_t>(static_cast<unsigned __int128>(random()) * blocks_ >> 64);
  }
  // At least half of the blocks are free, so this ends soon.
  while (options_.verify && busy_[block]) block = (block + 1) % blocks_;
  cursor_ = (block + 1) % blocks_;
  return block;
}

uint64_t LoadGenerator::pattern_word(uint64_t block, uint32_t version, size_t index) const {
  return mix(options_.seed ^ block << 20 ^ uint64_t{version} << 40) + index * 0x9e3779b97f4a7c15;
}

/// Makes the block's next version of the slot's buffer.
void LoadGenerator::stamp(Slot* slot) {
  const uint32_t version = ++versions_[slot->block];
  for (size_t i = 0; i < options_.block_bytes / sizeof(uint64_t); ++i) {
    const uint64_t word = pattern_word(slot->block, version, i);
    std::memcpy(slot->buffer.data() + i * sizeof(word), &word, sizeof(word));
  }
}

bool LoadGenerator::intact(const Slot& slot) const {
  const uint32_t version = versions_[slot.block];
  for (size_t i = 0; i < options_.block_bytes / sizeof(uint64_t); ++i) {
    const uint64_t word = pattern_word(slot.block, version, i);
    if (std::memcmp(slot.buffer.data() + i * sizeof(word), &word, sizeof(word)) != 0) return false;
  }
  return true;
}

}  // namespace pando
