#include "index_block.h"

#include <cstring>

namespace pando {

std::shared_ptr<IndexBlock> IndexBlock::inherit(uint64_t layer, const IndexBlock& from) {
  auto copy = std::make_shared<IndexBlock>(layer);
  copy->slots_ = from.slots_;
  copy->mapped_ = from.mapped_;
  copy->inherited_ = from.mapped_;
  return copy;
}

std::shared_ptr<IndexBlock> IndexBlock::adopt(uint64_t layer, const IndexBlock& from,
                                              const SlotMask& owned) {
  auto copy = inherit(layer, from);
  copy->own_also(owned);
  return copy;
}

std::shared_ptr<IndexBlock> IndexBlock::from_bytes(uint64_t layer, const std::byte* bytes) {
  auto block = std::make_shared<IndexBlock>(layer);
  std::memcpy(block->slots_.data(), bytes, sizeof(block->slots_));
  std::memcpy(block->own_.data(), bytes + sizeof(block->slots_), sizeof(block->own_));
  for (uint32_t slot = 0; slot < kSlotsPerSpan; ++slot) {
    block->mapped_ += block->slots_[slot] != 0;
    block->owned_ += block->owns(slot);
  }
  return block;
}

void IndexBlock::to_bytes(std::byte* bytes) const {
  std::memcpy(bytes, slots_.data(), sizeof(slots_));
  std::memcpy(bytes + sizeof(slots_), own_.data(), sizeof(own_));
}

void IndexBlock::own_also(const SlotMask& slots) {
  for (uint32_t slot = 0; slot < kSlotsPerSpan; ++slot) {
    if ((slots[slot / 64] >> (slot % 64) & 1) == 0) continue;
    PANDO_ASSERT(slots_[slot] != 0);
    owned_ = static_cast<uint16_t>(owned_ + !owns(slot));
    own_[slot / 64] |= uint64_t{1} << (slot % 64);
  }
}

}  // namespace pando
