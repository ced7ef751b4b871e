// Reads, and the map of what holds data: one look-up, then the device.
#include <algorithm>
#include <cstring>

#include "assert.h"
#include "piece.h"
#include "volume.h"

namespace pando {

void Volume::run_read(Piece* piece) {
  const IndexBlock* index = pool_.index_.resolve(layer_, piece->span, [this, piece](bool failed) {
    failed ? piece_done(piece, IoStatus::kIoError) : run_read(piece);
  });
  if (index == nullptr) {
    ++pool_.counters_.index_waits;
    return;
  }
  const uint32_t block_size = pool_.options_.block_size;
  std::byte* data =
      piece->request->io->data + (piece->begin_byte - piece->request->io->offset_bytes);
  uint64_t at = piece->begin_byte;
  for (uint32_t slot = piece->first_slot; at < piece->end_byte; ++slot) {
    const auto within = static_cast<uint32_t>(at % block_size);
    const auto length =
        static_cast<uint32_t>(std::min<uint64_t>(block_size - within, piece->end_byte - at));
    const uint32_t block = index->block_at(slot);
    if (block == 0) {
      std::memset(data, 0, length);
    } else {
      add_segment(piece, DiskOpKind::kRead, pool_.device_offset(block) + within, length, data);
    }
    at += length;
    data += length;
  }
  if (piece->segments.empty()) {
    piece_done(piece, IoStatus::kOk);
    return;
  }
  pool_.releases_.start(&piece->active, true);
  submit_segments(piece);
}

void Volume::run_map(Piece* piece) {
  const IndexBlock* index = pool_.index_.resolve(layer_, piece->span, [this, piece](bool failed) {
    failed ? piece_done(piece, IoStatus::kIoError) : run_map(piece);
  });
  if (index == nullptr) {
    ++pool_.counters_.index_waits;
    return;
  }
  const uint32_t block_size = pool_.options_.block_size;
  auto& extents = *piece->request->io->extents;
  uint64_t at = piece->begin_byte;
  for (uint32_t slot = piece->first_slot; at < piece->end_byte; ++slot) {
    const uint64_t length = std::min<uint64_t>(block_size - at % block_size, piece->end_byte - at);
    const bool data = index->block_at(slot) != 0;
    if (!extents.empty() && extents.back().data == data) {
      extents.back().length_bytes += length;
    } else {
      extents.push_back({length, data});
    }
    at += length;
  }
  piece_done(piece, IoStatus::kOk);
}

}  // namespace pando
