#include "sim_disk.h"

#include <cerrno>
#include <cstring>

#include "assert.h"

namespace pando {

SimDisk::SimDisk(uint64_t size_bytes, uint32_t atomic_unit)
    : atomic_unit_(atomic_unit), live_(size_bytes), durable_(size_bytes) {
  PANDO_ASSERT(atomic_unit == 512 || atomic_unit == 4096);
  PANDO_ASSERT(size_bytes % 4096 == 0);
}

void SimDisk::submit(DiskOp* op) {
  PANDO_ASSERT(op->kind == DiskOpKind::kFlush || op->length > 0);
  PANDO_ASSERT(op->offset % atomic_unit_ == 0 && op->length % atomic_unit_ == 0);
  PANDO_ASSERT(op->offset + op->length <= live_.size());
  op->error = 0;
  pending_.push_back({op, writes_});
}

void SimDisk::put_unit(std::vector<std::byte>& image, uint64_t unit, const std::byte* data) {
  std::memcpy(image.data() + unit * atomic_unit_, data, atomic_unit_);
}

void SimDisk::apply(const DiskOp& op, bool durable) {
  ++writes_;
  for (uint64_t at = 0; at < op.length; at += atomic_unit_) {
    const uint64_t unit = (op.offset + at) / atomic_unit_;
    put_unit(live_, unit, op.data + at);
    if (durable) {
      put_unit(durable_, unit, op.data + at);
      unflushed_.erase(unit);
    } else {
      unflushed_[unit].push_back({writes_, Unit(op.data + at, op.data + at + atomic_unit_)});
    }
  }
}

void SimDisk::make_durable(uint64_t write_limit) {
  for (auto entry = unflushed_.begin(); entry != unflushed_.end();) {
    auto& versions = entry->second;
    while (!versions.empty() && versions.front().write <= write_limit) {
      put_unit(durable_, entry->first, versions.front().data.data());
      versions.erase(versions.begin());
    }
    entry = versions.empty() ? unflushed_.erase(entry) : std::next(entry);
  }
}

void SimDisk::complete(size_t index, int error, uint64_t seed) {
  PANDO_ASSERT(index < pending_.size());
  const Pending pending = pending_[index];
  pending_.erase(pending_.begin() + static_cast<ptrdiff_t>(index));
  DiskOp* op = pending.op;
  ++completed_;
  op->error = error;
  const bool write = op->kind == DiskOpKind::kWrite || op->kind == DiskOpKind::kWriteDurable;
  if (error != 0) {
    if (write) {
      Prng prng(seed);
      for (uint64_t at = 0; at < op->length; at += atomic_unit_) {
        if (prng.below(2) == 0) continue;
        DiskOp part = *op;
        part.offset = op->offset + at;
        part.data = op->data + at;
        part.length = atomic_unit_;
        apply(part, false);
      }
    }
  } else if (op->kind == DiskOpKind::kRead) {
    std::memcpy(op->data, live_.data() + op->offset, op->length);
  } else if (op->kind == DiskOpKind::kFlush) {
    make_durable(pending.writes_before);
  } else {
    apply(*op, op->kind == DiskOpKind::kWriteDurable);
  }
  op->done(op);
}

void SimDisk::cut_power(Survivors survivors, uint64_t seed) {
  Prng prng(seed);
  if (survivors != Survivors::kNone && survivors != Survivors::kCompleted) {
    for (const Pending& pending : pending_) {
      const DiskOp& op = *pending.op;
      if (op.kind == DiskOpKind::kWrite || op.kind == DiskOpKind::kWriteDurable) apply(op, false);
    }
  }
  pending_.clear();
  for (auto& [unit, versions] : unflushed_) {
    size_t keep = 0;  // 0: the durable contents; n: the n-th version
    if (survivors == Survivors::kRandom) {
      keep = prng.below(versions.size() + 1);
    } else if (survivors != Survivors::kNone) {
      keep = versions.size();
    }
    if (keep > 0) put_unit(durable_, unit, versions[keep - 1].data.data());
  }
  unflushed_.clear();
  live_ = durable_;
}

void SimDisk::kill(uint64_t seed) {
  Prng prng(seed);
  for (const Pending& pending : pending_) {
    const DiskOp& op = *pending.op;
    const bool write = op.kind == DiskOpKind::kWrite || op.kind == DiskOpKind::kWriteDurable;
    if (write && prng.below(2) == 1) apply(op, false);
  }
  pending_.clear();
}

void SimDisk::read_now(uint64_t offset, uint32_t length, std::byte* data) const {
  PANDO_ASSERT(offset + length <= live_.size());
  std::memcpy(data, live_.data() + offset, length);
}

void SimDisk::write_now(uint64_t offset, uint32_t length, const std::byte* data) {
  PANDO_ASSERT(offset + length <= live_.size() && offset % atomic_unit_ == 0);
  DiskOp op;
  op.kind = DiskOpKind::kWrite;
  op.offset = offset;
  op.length = length;
  op.data = const_cast<std::byte*>(data);
  apply(op, false);
}

void SimDisk::flush_now() {
  make_durable(writes_);
}

SimDisk SimDisk::fork() const {
  SimDisk copy(*this);
  copy.pending_.clear();
  return copy;
}

}  // namespace pando
