// A disk in memory that fails the way disks fail, step by step, under the test's control.
//
// Every operation stays pending until complete() picks it, so a test decides the order of
// completions and can hold one back for as long as it likes. A completed write sits in a volatile
// cache until a flush that was issued after its completion is done. A power cut keeps, for each
// atomic unit, any one of: the durable contents, or any of the unflushed or still pending writes to
// it. So multi-unit writes tear.
//
// A discard overwrites what it discards with a pattern that nobody writes, and otherwise is a
// write: whoever discards what somebody still maps is found out.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "disk.h"

namespace pando {

/// Which of the unflushed atomic units survive a power cut.
enum class Survivors : uint8_t {
  kNone,       // only what was flushed
  kAll,        // everything that had completed or was pending
  kCompleted,  // what had completed, nothing that was pending
  kRandom,     // each unit: one of its candidates, by the seed
  kChosen,     // the set that has the seed as its number, from 0 to survivor_sets() - 1
};

/// xorshift64*: deterministic everywhere, unlike the distributions of <random>.
class Prng {
 public:
  explicit Prng(uint64_t seed) : state_(seed * 2 + 1) {}
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1DULL;
  }
  /// 0 … limit-1
  uint64_t below(uint64_t limit) { return (next() >> 11) % limit; }

 private:
  uint64_t state_;
};

class SimDisk final : public Disk {
 public:
  SimDisk(uint64_t size_bytes, uint32_t atomic_unit);

  void submit(DiskOp* op) override;
  bool volatile_cache() const override { return true; }
  uint32_t atomic_unit() const override { return atomic_unit_; }
  uint64_t size_bytes() const override { return size_bytes_; }

  size_t pending_count() const { return pending_.size(); }
  /// What is left of it: a short transfer has been less than it asked for.
  DiskOp pending(size_t index) const { return rest_of(pending_[index]); }
  /// Completes one pending operation, with `error` (a positive errno) if not 0; a failed write may
  /// have changed any unit it covers, by `seed`.
  void complete(size_t index, int error, uint64_t seed);
  /// A short transfer: `length` bytes of the operation, less than are left of it; the rest stays
  /// pending, as a disk goes on where a transfer stopped.
  void transfer(size_t index, uint32_t length);

  /// Loses power. Pending operations vanish without `done`. Afterwards everything that is left is
  /// durable.
  void cut_power(Survivors survivors, uint64_t seed);
  /// How many different contents a power cut could leave now; `limit` if there are more.
  uint64_t survivor_sets(uint64_t limit) const;
  /// The process dies: each pending write lands whole or not, by `seed`; the volatile cache stays.
  void kill(uint64_t seed);

  /// Synchronous access for recovery, which runs while nothing is pending.
  void read_now(uint64_t offset, uint32_t length, std::byte* data) const;
  void write_now(uint64_t offset, uint32_t length, const std::byte* data);
  void flush_now();

  /// The same contents and cache under a new name. What is pending stays its owner's: a fork can
  /// only lose it, by a power cut or a kill, before anything else is done with it.
  SimDisk fork() const;
  /// Everything that was done to it so far, in its order, as one number.
  uint32_t digest() const { return digest_; }

 private:
  static constexpr uint64_t kPageBytes = 4096;
  using Page = std::array<std::byte, kPageBytes>;
  /// Pages are shared until one side changes: forks and power cuts cost next to nothing.
  using Content = std::vector<std::shared_ptr<Page>>;
  using Unit = std::vector<std::byte>;
  struct Version {
    uint64_t write;  // number of the write, in the order of completion
    Unit data;
  };
  struct Pending {
    DiskOp* op;
    uint64_t writes_before;  // flush: the writes completed before it was issued
    uint32_t transferred;    // by short transfers
    Unit pattern;            // discard: what is there afterwards
  };

  static DiskOp rest_of(const Pending& pending);
  void apply(const DiskOp& op, bool durable);
  void make_durable(uint64_t write_limit);
  void put_unit(Content& content, uint64_t unit, const std::byte* data);
  void note(const DiskOp& op);

  uint64_t size_bytes_;
  uint32_t atomic_unit_;
  Content live_;                                        // what a read sees
  Content durable_;                                     // what a power cut cannot take away
  std::map<uint64_t, std::vector<Version>> unflushed_;  // by unit, oldest first
  std::vector<Pending> pending_;
  bool borrows_pending_ = false;  // a fork: `pending_` is another disk's
  uint64_t writes_ = 0;
  uint32_t digest_ = 0;
};

}  // namespace pando
