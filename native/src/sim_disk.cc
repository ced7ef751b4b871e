#include "sim_disk.h"

#include <algorithm>
#include <cstring>

#include "assert.h"
#include "crc32c.h"

namespace pando {
namespace {

constexpr std::byte kDiscarded{0xD5};

bool is_write(const DiskOp& op) {
  return op.kind == DiskOpKind::kWrite || op.kind == DiskOpKind::kWriteDurable ||
         op.kind == DiskOpKind::kDiscard;
}

}  // namespace

SimDisk::SimDisk(uint64_t size_bytes, uint32_t atomic_unit)
    : size_bytes_(size_bytes), atomic_unit_(atomic_unit) {
  PANDO_ASSERT(atomic_unit == 512 || atomic_unit == 4096);
  PANDO_ASSERT(size_bytes % kPageBytes == 0);
  durable_.assign(size_bytes / kPageBytes, std::make_shared<Page>());
  live_ = durable_;
}

void SimDisk::submit(DiskOp* op) {
  PANDO_ASSERT(!borrows_pending_);
  PANDO_ASSERT(op->kind == DiskOpKind::kFlush || op->length > 0);
  PANDO_ASSERT(op->offset % atomic_unit_ == 0 && op->length % atomic_unit_ == 0);
  PANDO_ASSERT(op->offset + op->length <= size_bytes_);
  op->error = 0;
  const bool discards = op->kind == DiskOpKind::kDiscard;
  pending_.push_back({op, writes_, 0, Unit(discards ? op->length : 0, kDiscarded)});
}

DiskOp SimDisk::rest_of(const Pending& pending) {
  DiskOp rest = *pending.op;
  if (rest.kind == DiskOpKind::kFlush) return rest;
  // Nothing writes to it.
  if (rest.kind == DiskOpKind::kDiscard) rest.data = const_cast<std::byte*>(pending.pattern.data());
  rest.offset += pending.transferred;
  rest.data += pending.transferred;
  rest.length -= pending.transferred;
  return rest;
}

void SimDisk::put_unit(Content& content, uint64_t unit, const std::byte* data) {
  const uint64_t at = unit * atomic_unit_;
  std::shared_ptr<Page>& page = content[at / kPageBytes];
  if (page.use_count() > 1) page = std::make_shared<Page>(*page);
  std::memcpy(page->data() + at % kPageBytes, data, atomic_unit_);
}

void SimDisk::note(const DiskOp& op) {
  const std::array<uint64_t, 4> what{static_cast<uint64_t>(op.kind), op.offset, op.length,
                                     static_cast<uint64_t>(op.error)};
  digest_ = crc32c(what.data(), sizeof what, digest_);
  // A read that failed has not filled its buffer.
  const bool data = is_write(op) || (op.kind == DiskOpKind::kRead && op.error == 0);
  if (data) digest_ = crc32c(op.data, op.length, digest_);
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
  PANDO_ASSERT(index < pending_.size() && !borrows_pending_);
  const Pending pending = pending_[index];
  pending_.erase(pending_.begin() + static_cast<ptrdiff_t>(index));
  DiskOp rest = rest_of(pending);
  rest.error = error;
  if (error != 0) {
    if (is_write(rest)) {
      Prng prng(seed);
      for (uint64_t at = 0; at < rest.length; at += atomic_unit_) {
        if (prng.below(2) == 0) continue;
        DiskOp part = rest;
        part.offset = rest.offset + at;
        part.data = rest.data + at;
        part.length = atomic_unit_;
        apply(part, false);
      }
    }
  } else if (rest.kind == DiskOpKind::kRead) {
    read_now(rest.offset, rest.length, rest.data);
  } else if (rest.kind == DiskOpKind::kFlush) {
    make_durable(pending.writes_before);
  } else {
    apply(rest, rest.kind == DiskOpKind::kWriteDurable);
  }
  note(rest);
  pending.op->error = error;
  pending.op->done(pending.op);
}

void SimDisk::transfer(size_t index, uint32_t length) {
  PANDO_ASSERT(index < pending_.size() && !borrows_pending_);
  DiskOp part = rest_of(pending_[index]);
  PANDO_ASSERT(part.kind != DiskOpKind::kFlush && part.kind != DiskOpKind::kDiscard);
  PANDO_ASSERT(length % atomic_unit_ == 0);
  PANDO_ASSERT(length > 0 && length < part.length);
  part.length = length;
  if (part.kind == DiskOpKind::kRead) {
    read_now(part.offset, part.length, part.data);
  } else {
    apply(part, part.kind == DiskOpKind::kWriteDurable);
  }
  note(part);
  pending_[index].transferred += length;
}

void SimDisk::cut_power(Survivors survivors, uint64_t seed) {
  Prng prng(seed);
  if (survivors != Survivors::kNone && survivors != Survivors::kCompleted) {
    for (const Pending& pending : pending_) {
      const DiskOp rest = rest_of(pending);
      if (is_write(rest)) apply(rest, false);
    }
  }
  pending_.clear();
  borrows_pending_ = false;
  for (auto& [unit, versions] : unflushed_) {
    size_t keep = 0;  // 0: the durable contents; n: the n-th version
    if (survivors == Survivors::kRandom) {
      keep = prng.below(versions.size() + 1);
    } else if (survivors == Survivors::kChosen) {
      keep = seed % (versions.size() + 1);
      seed /= versions.size() + 1;
    } else if (survivors != Survivors::kNone) {
      keep = versions.size();
    }
    if (keep > 0) put_unit(durable_, unit, versions[keep - 1].data.data());
  }
  unflushed_.clear();
  live_ = durable_;
}

uint64_t SimDisk::survivor_sets(uint64_t limit) const {
  std::map<uint64_t, uint64_t> candidates;
  for (const auto& [unit, versions] : unflushed_) candidates[unit] = versions.size();
  for (const Pending& pending : pending_) {
    const DiskOp rest = rest_of(pending);
    if (!is_write(rest)) continue;
    for (uint64_t at = 0; at < rest.length; at += atomic_unit_) {
      ++candidates[(rest.offset + at) / atomic_unit_];
    }
  }
  uint64_t sets = 1;
  for (const auto& [unit, count] : candidates) {
    if (sets > limit / (count + 1)) return limit;
    sets *= count + 1;
  }
  return sets;
}

void SimDisk::kill(uint64_t seed) {
  Prng prng(seed);
  for (const Pending& pending : pending_) {
    const DiskOp rest = rest_of(pending);
    if (is_write(rest) && prng.below(2) == 1) apply(rest, false);
  }
  pending_.clear();
  borrows_pending_ = false;
}

void SimDisk::read_now(uint64_t offset, uint32_t length, std::byte* data) const {
  PANDO_ASSERT(offset + length <= size_bytes_);
  for (uint64_t at = offset, end = offset + length; at < end;) {
    const uint64_t count = std::min(end - at, kPageBytes - at % kPageBytes);
    std::memcpy(data + (at - offset), live_[at / kPageBytes]->data() + at % kPageBytes, count);
    at += count;
  }
}

void SimDisk::write_now(uint64_t offset, uint32_t length, const std::byte* data) {
  PANDO_ASSERT(offset + length <= size_bytes_ && offset % atomic_unit_ == 0);
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
  copy.borrows_pending_ = !pending_.empty();
  return copy;
}

}  // namespace pando
