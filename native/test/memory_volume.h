// A BlockVolume in memory, for tests of whatever serves or drives volumes.
//
// It checks each request as strictly as the contract in block_io.h allows, and completes it when
// the test says: at once (inside submit()), later in order, or later in a seeded random order; by
// itself through a reactor, or by hand through complete(). Errors can be injected per operation.
// Allocation is tracked block by block, so kMap tells holes from data as a real volume does.
//
// Durability is modelled as far as a front end is concerned: `durable()` is what would survive a
// power cut now. A flush makes durable whatever had completed when it was submitted.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "assert.h"
#include "block_io.h"
#include "reactor.h"

namespace pando::test {

class MemoryVolume final : public BlockVolume {
 public:
  enum class Completion : uint8_t {
    kInline,    // before submit() returns
    kInOrder,   // in a later turn of the reactor, or by complete()
    kShuffled,  // the same, in an order that the seed decides
  };

  struct Options {
    std::string name = "volume";
    uint64_t size_bytes = 64 << 20;
    uint32_t block_size = 4096;
    uint32_t atomic_unit = 4096;
    bool read_only = false;
    Completion completion = Completion::kInline;
    uint64_t seed = 1;
    /// Completes requests by itself when set; else complete() does.
    Reactor* reactor = nullptr;
    /// With a reactor: how long a request takes.
    uint64_t delay_ms = 0;
  };

  /// What a request looked like when it was submitted.
  struct Seen {
    IoOp op;
    bool fua;
    uint64_t offset_bytes;
    uint64_t length_bytes;
  };

  explicit MemoryVolume(Options options)
      : options_(std::move(options)),
        random_(options_.seed),
        data_(options_.size_bytes),
        durable_(options_.size_bytes),
        allocated_(options_.size_bytes / options_.block_size) {
    PANDO_ASSERT(options_.size_bytes % options_.block_size == 0);
    for (size_t i = 0; i < uuid_.size(); ++i) uuid_[i] = static_cast<uint8_t>(random_());
  }
  MemoryVolume(const MemoryVolume&) = delete;
  MemoryVolume& operator=(const MemoryVolume&) = delete;
  ~MemoryVolume() override { PANDO_ASSERT(pending_.empty()); }

  void submit(BlockIo* io) override {
    PANDO_ASSERT(io->done != nullptr);
    seen_.push_back({io->op, io->fua, io->offset_bytes, io->length_bytes});
    most_in_flight_ = std::max(most_in_flight_, pending_.size() + 1);
    // What a flush has to make durable is fixed now: later completions are not its business.
    std::vector<std::byte> flushed;
    if (io->op == IoOp::kFlush && track_durable_) flushed = data_;
    if (options_.completion == Completion::kInline) return finish(io, flushed);
    pending_.push_back({io, std::move(flushed)});
    if (options_.reactor != nullptr && !scheduled_) schedule();
  }

  uint64_t size_bytes() const override { return data_.size(); }
  uint32_t block_size() const override { return options_.block_size; }
  uint32_t atomic_unit() const override { return options_.atomic_unit; }
  bool read_only() const override { return options_.read_only; }
  const std::array<uint8_t, 16>& uuid() const override { return uuid_; }
  const std::string& name() const override { return options_.name; }

  /// Completes up to `count` of the requests that wait. Those submitted meanwhile are not counted.
  void complete(size_t count = SIZE_MAX) {
    count = std::min(count, pending_.size());
    for (; count > 0 && !pending_.empty(); --count) {
      size_t pick = 0;
      if (options_.completion == Completion::kShuffled) pick = random_() % pending_.size();
      Pending pending = std::move(pending_[pick]);
      pending_.erase(pending_.begin() + static_cast<ptrdiff_t>(pick));
      finish(pending.io, pending.flushed);
    }
  }

  /// The next `count` requests of kind `op`, after `skip` good ones, end with `status` and change
  /// nothing.
  void fail(IoOp op, IoStatus status, size_t count = 1, size_t skip = 0) {
    faults_.push_back({op, status, count, skip});
  }
  /// The write after the next `skip` ones is acknowledged and forgotten.
  void lose_write(size_t skip) { writes_until_loss_ = skip + 1; }
  /// From now on every request ends with kClosed.
  void close() { closed_ = true; }
  void grow(uint64_t size_bytes) {
    PANDO_ASSERT(size_bytes >= data_.size() && size_bytes % options_.block_size == 0);
    data_.resize(size_bytes);
    durable_.resize(size_bytes);
    allocated_.resize(size_bytes / options_.block_size);
  }
  void set_read_only(bool read_only) { options_.read_only = read_only; }
  void set_completion(Completion completion) { options_.completion = completion; }
  /// Keeping the durable image costs a copy of the volume per flush, so it is off at first.
  void track_durable() { track_durable_ = true; }

  std::vector<std::byte>& data() { return data_; }
  const std::vector<std::byte>& durable() const { return durable_; }
  bool allocated(uint64_t offset_bytes) const {
    return allocated_[offset_bytes / options_.block_size];
  }
  size_t in_flight() const { return pending_.size(); }
  size_t most_in_flight() const { return most_in_flight_; }
  std::vector<Seen>& seen() { return seen_; }

 private:
  struct Pending {
    BlockIo* io;
    std::vector<std::byte> flushed;
  };
  struct Fault {
    IoOp op;
    IoStatus status;
    size_t count;
    size_t skip;
  };

  void schedule() {
    scheduled_ = true;
    auto due = [this] {
      scheduled_ = false;
      complete();
      if (!pending_.empty() && !scheduled_) schedule();
    };
    if (options_.delay_ms == 0) {
      options_.reactor->post(due);
    } else {
      options_.reactor->add_timer(options_.delay_ms, due);
    }
  }

  void finish(BlockIo* io, const std::vector<std::byte>& flushed) {
    io->status = check(*io);
    if (io->status == IoStatus::kOk) apply(io, flushed);
    io->done(io);
  }

  IoStatus check(const BlockIo& io) {
    if (closed_) return IoStatus::kClosed;
    const bool has_data = io.op == IoOp::kRead || io.op == IoOp::kWrite;
    if (io.op != IoOp::kFlush) {
      if (io.offset_bytes % kSectorSize != 0 || io.length_bytes % kSectorSize != 0 ||
          io.length_bytes == 0 || (has_data && io.length_bytes > kMaxIoBytes)) {
        return IoStatus::kInvalid;
      }
      if (io.offset_bytes > data_.size() || io.length_bytes > data_.size() - io.offset_bytes) {
        return IoStatus::kOutOfRange;
      }
    }
    PANDO_ASSERT(!has_data ||
                 (io.data != nullptr && reinterpret_cast<uintptr_t>(io.data) % 4096 == 0));
    PANDO_ASSERT(io.op != IoOp::kMap || io.extents != nullptr);
    PANDO_ASSERT(!io.fua || io.op == IoOp::kWrite || io.op == IoOp::kDiscard ||
                 io.op == IoOp::kWriteZeroes);
    if (options_.read_only && io.op != IoOp::kRead && io.op != IoOp::kMap &&
        io.op != IoOp::kFlush) {
      return IoStatus::kReadOnly;
    }
    for (Fault& fault : faults_) {
      if (fault.op != io.op || fault.count == 0) continue;
      if (fault.skip > 0) {
        --fault.skip;
        continue;
      }
      --fault.count;
      return fault.status;
    }
    return IoStatus::kOk;
  }

  void apply(BlockIo* io, const std::vector<std::byte>& flushed) {
    const uint64_t begin = io->offset_bytes;
    const uint64_t end = begin + io->length_bytes;
    const uint64_t block = options_.block_size;
    switch (io->op) {
      case IoOp::kRead:
        std::memcpy(io->data, data_.data() + begin, io->length_bytes);
        return;
      case IoOp::kWrite:
        if (writes_until_loss_ > 0 && --writes_until_loss_ == 0) return;
        std::memcpy(data_.data() + begin, io->data, io->length_bytes);
        for (uint64_t i = begin / block; i * block < end; ++i) allocated_[i] = true;
        break;
      case IoOp::kDiscard:
        for (uint64_t i = (begin + block - 1) / block; (i + 1) * block <= end; ++i) drop(i);
        break;
      case IoOp::kWriteZeroes:
        std::memset(data_.data() + begin, 0, io->length_bytes);
        for (uint64_t i = (begin + block - 1) / block; (i + 1) * block <= end; ++i) drop(i);
        break;
      case IoOp::kMap:
        return map(*io->extents, begin, end);
      case IoOp::kFlush:
        if (track_durable_) {
          std::memcpy(durable_.data(), flushed.data(), flushed.size());
        }
        return;
    }
    if (io->fua) std::memcpy(durable_.data() + begin, data_.data() + begin, io->length_bytes);
  }

  void drop(uint64_t index) {
    std::memset(data_.data() + index * options_.block_size, 0, options_.block_size);
    allocated_[index] = false;
  }

  void map(std::vector<MapExtent>& extents, uint64_t begin, uint64_t end) {
    while (begin < end) {
      const uint64_t block_end = (begin / options_.block_size + 1) * options_.block_size;
      const uint64_t length = std::min(block_end, end) - begin;
      const bool data = allocated(begin);
      if (!extents.empty() && extents.back().data == data) {
        extents.back().length_bytes += length;
      } else {
        extents.push_back({length, data});
      }
      begin += length;
    }
  }

  Options options_;
  std::mt19937_64 random_;
  std::array<uint8_t, 16> uuid_{};
  std::vector<std::byte> data_;
  std::vector<std::byte> durable_;
  std::vector<bool> allocated_;
  std::vector<Fault> faults_;
  std::deque<Pending> pending_;
  std::vector<Seen> seen_;
  size_t most_in_flight_ = 0;
  size_t writes_until_loss_ = 0;
  bool scheduled_ = false;
  bool closed_ = false;
  bool track_durable_ = false;
};

}  // namespace pando::test
