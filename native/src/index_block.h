// An index block in memory: where the 512 blocks of one span are, as one layer sees them, and which
// of them that layer owns.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "assert.h"

namespace pando {

inline constexpr uint32_t kSlotsPerSpan = 512;
/// As it crosses to JavaScript: 512 u32 blocks, then 64 bytes of own bits.
inline constexpr uint32_t kIndexBlockBytes = kSlotsPerSpan * 4 + kSlotsPerSpan / 8;
/// A bit for each slot, as the own bits have it.
using SlotMask = std::array<uint64_t, kSlotsPerSpan / 64>;

/// Mutable while its layer is live, and then by that layer only. Once the layer is frozen its
/// mapping is immutable, so that children may share it; a fold may still give it own bits, which
/// nobody but its layer heeds.
class IndexBlock {
 public:
  /// `layer`: whose index block it is; 0 for the one of nobody, all holes.
  explicit IndexBlock(uint64_t layer) : layer_(layer) {}

  /// `layer`'s own copy of what it inherits: the same blocks, none of them owned.
  static std::shared_ptr<IndexBlock> inherit(uint64_t layer, const IndexBlock& from);

  /// `layer`'s copy of what it inherited, the slots of `owned` its own from now on.
  static std::shared_ptr<IndexBlock> adopt(uint64_t layer, const IndexBlock& from,
                                           const SlotMask& owned);

  /// From the 2,112 bytes that the store's side decoded.
  static std::shared_ptr<IndexBlock> from_bytes(uint64_t layer, const std::byte* bytes);
  void to_bytes(std::byte* bytes) const;

  /// Makes these slots the layer's own; each maps a block.
  void own_also(const SlotMask& slots);

  uint64_t layer() const { return layer_; }
  uint32_t block_at(uint32_t slot) const { return slots_[slot]; }
  bool owns(uint32_t slot) const { return (own_[slot / 64] >> (slot % 64) & 1) != 0; }
  uint16_t owned() const { return owned_; }
  uint16_t mapped() const { return mapped_; }
  /// Mapped slots of the ancestor's index block that this one was copied from; LMDB keeps it from
  /// the first put on, so it is not read back.
  uint16_t inherited() const { return inherited_; }

  /// Maps `slot` to `block`, owned; or makes it a hole if `block` is 0.
  void set(uint32_t slot, uint32_t block) {
    PANDO_ASSERT(layer_ != 0);
    mapped_ = static_cast<uint16_t>(mapped_ - (slots_[slot] != 0) + (block != 0));
    owned_ = static_cast<uint16_t>(owned_ - owns(slot) + (block != 0));
    slots_[slot] = block;
    const uint64_t bit = uint64_t{1} << (slot % 64);
    if (block != 0) {
      own_[slot / 64] |= bit;
    } else {
      own_[slot / 64] &= ~bit;
    }
  }

 private:
  uint64_t layer_;
  std::array<uint32_t, kSlotsPerSpan> slots_{};
  SlotMask own_{};
  uint16_t owned_ = 0;
  uint16_t mapped_ = 0;
  uint16_t inherited_ = 0;
};

}  // namespace pando
