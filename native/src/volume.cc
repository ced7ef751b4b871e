#include "volume.h"

#include <algorithm>
#include <utility>

#include "assert.h"
#include "piece.h"

namespace pando {
namespace {

/// Pieces of one request that may be under way at a time.
constexpr uint32_t kPiecesPerRequest = 16;
/// Pieces that one request may finish without a wait before others have their turn.
constexpr uint32_t kPiecesPerTurn = 512;

bool changes(IoOp op) {
  return op == IoOp::kWrite || op == IoOp::kDiscard || op == IoOp::kWriteZeroes;
}

}  // namespace

Volume::Volume(Pool& pool, const VolumeOptions& options)
    : pool_(pool),
      id_(options.id),
      name_(options.name),
      uuid_(options.uuid),
      size_bytes_(options.size_bytes),
      read_only_(options.read_only),
      layer_(pool.index_.open_layer(options.lineage, options.born_here)),
      last_ordinal_(pool.journal_.last_ordinal()) {
  pool_.extents_.attach(&cursor_);
  limit_.set(options.requests_per_second, options.bytes_per_second);
}

Volume::~Volume() {
  PANDO_ASSERT(requests_ == 0 || pool_.abandoned_);
  pool_.extents_.detach(&cursor_);
  pool_.index_.close_layer(layer_);
}

IoStatus Volume::validate(const BlockIo& io) const {
  if (closing_) return IoStatus::kClosed;
  if (io.op == IoOp::kFlush) return IoStatus::kOk;
  if (io.offset_bytes % kSectorSize != 0 || io.length_bytes % kSectorSize != 0) {
    return IoStatus::kInvalid;
  }
  const bool carries_data = io.op == IoOp::kRead || io.op == IoOp::kWrite;
  if (carries_data && io.length_bytes > kMaxIoBytes) return IoStatus::kInvalid;
  if (io.offset_bytes > size_bytes_ || io.length_bytes > size_bytes_ - io.offset_bytes) {
    return IoStatus::kOutOfRange;
  }
  if (changes(io.op) && read_only_) return IoStatus::kReadOnly;
  if (changes(io.op) && pool_.failed_) return IoStatus::kIoError;
  return IoStatus::kOk;
}

void Volume::submit(BlockIo* io) {
  PANDO_ASSERT(io->done != nullptr);
  io->status = validate(*io);
  if (io->status != IoStatus::kOk) {
    io->done(io);
    return;
  }
  if (limit_.active() && over_limit(*io)) {
    hold_for_limit(io);
    return;
  }
  pass_gate(io);
}

void Volume::pass_gate(BlockIo* io) {
  if (gated_ && changes(io->op)) {
    ++pool_.counters_.gate_waits;
    behind_gate_.push_back(io);
    return;
  }
  start(io);
}

void Volume::start(BlockIo* io) {
  ++requests_;
  Request* request = request_arena_.take();
  *request = Request{};
  request->io = io;
  request->next_byte = io->offset_bytes;
  request->end_byte = io->offset_bytes + io->length_bytes;
  request->changes = changes(io->op);
  if (request->changes) ++writes_;

  PoolCounters& counters = pool_.counters_;
  switch (io->op) {
    case IoOp::kRead:
      ++counters.reads;
      counters.read_bytes += io->length_bytes;
      break;
    case IoOp::kWrite:
      ++counters.writes;
      counters.written_bytes += io->length_bytes;
      break;
    case IoOp::kDiscard: {
      // Only whole blocks; the ragged ends stay as they are.
      ++counters.discards;
      const uint64_t block = pool_.options_.block_size;
      request->next_byte = (request->next_byte + block - 1) / block * block;
      request->end_byte = request->end_byte / block * block;
      break;
    }
    case IoOp::kWriteZeroes:
      ++counters.discards;
      break;
    case IoOp::kFlush:
      ++counters.flushes;
      pool_.committer_.commit(last_ordinal_, [this, request](int error) {
        if (error != 0) request->status = IoStatus::kIoError;
        complete(request);
      });
      return;
    case IoOp::kMap:
      break;
  }
  pump(request);
}

void Volume::pump(Request* request) {
  const uint64_t span_bytes = uint64_t{kSlotsPerSpan} * pool_.options_.block_size;
  // A map's extents come in order, so its pieces go one after another.
  const uint32_t limit = request->io->op == IoOp::kMap ? 1 : kPiecesPerRequest;
  request->pumping = true;
  uint32_t started = 0;
  while (request->next_byte < request->end_byte && request->pieces < limit &&
         request->status == IoStatus::kOk) {
    if (++started > kPiecesPerTurn) {
      pool_.host_.defer([this, request] { pump(request); });
      return;
    }
    Piece* piece = piece_arena_.take();
    piece->volume = this;
    piece->request = request;
    piece->begin_byte = request->next_byte;
    piece->span = static_cast<uint32_t>(piece->begin_byte / span_bytes);
    piece->end_byte = std::min(request->end_byte, (uint64_t{piece->span} + 1) * span_bytes);
    const uint64_t span_begin = uint64_t{piece->span} * span_bytes;
    const uint32_t block = pool_.options_.block_size;
    piece->first_slot = static_cast<uint32_t>((piece->begin_byte - span_begin) / block);
    piece->slot_count = static_cast<uint32_t>((piece->end_byte - span_begin + block - 1) / block) -
                        piece->first_slot;
    request->next_byte = piece->end_byte;
    ++request->pieces;
    run(piece);
  }
  request->pumping = false;
  if (request->pieces == 0) all_pieces_done(request);
}

void Volume::run(Piece* piece) {
  switch (piece->request->io->op) {
    case IoOp::kRead:
      run_read(piece);
      break;
    case IoOp::kMap:
      run_map(piece);
      break;
    default:
      run_write(piece);
      break;
  }
}

void Volume::piece_done(Piece* piece, IoStatus status) {
  PANDO_ASSERT(piece->segments_left == 0 && piece->segments.empty() && !piece->locked);
  PANDO_ASSERT(piece->reserved_bytes == 0);
  Request* request = piece->request;
  if (status != IoStatus::kOk && request->status == IoStatus::kOk) request->status = status;
  piece->new_runs.clear();
  piece->merged.clear();
  piece->error = 0;
  piece->merging = false;
  piece_arena_.give_back(piece);
  --request->pieces;
  if (!request->pumping) pump(request);
}

void Volume::all_pieces_done(Request* request) {
  if (request->changes) writes_finished();
  if (request->status != IoStatus::kOk) {
    if (request->status == IoStatus::kNoSpace) ++pool_.counters_.no_space;
    if (request->status == IoStatus::kIoError) ++pool_.counters_.io_errors;
  } else if (request->io->fua && request->changes) {
    // Every record of the volume so far: a write in place made none, but what maps its blocks may
    // be a record that is not durable.
    pool_.committer_.commit(last_ordinal_, [this, request](int error) {
      if (error != 0) request->status = IoStatus::kIoError;
      complete(request);
    });
    return;
  }
  complete(request);
}

void Volume::complete(Request* request) {
  BlockIo* io = request->io;
  io->status = request->status;
  request_arena_.give_back(request);
  --requests_;
  io->done(io);
  if (requests_ == 0 && closing_ && on_closed_) std::exchange(on_closed_, nullptr)();
}

void Volume::writes_finished() {
  --writes_;
  if (writes_ == 0 && on_drained_) std::exchange(on_drained_, nullptr)();
}

void Volume::close_gate() {
  PANDO_ASSERT(!gated_);
  gated_ = true;
}

void Volume::when_writes_drained(std::function<void()> done) {
  PANDO_ASSERT(gated_ && !on_drained_);
  if (writes_ == 0) {
    done();
  } else {
    on_drained_ = std::move(done);
  }
}

void Volume::open_gate(uint64_t new_layer) {
  PANDO_ASSERT(gated_ && writes_ == 0);
  if (new_layer != 0) {
    LayerState* frozen = layer_;
    layer_ = pool_.index_.add_child(frozen, new_layer);
    pool_.index_.close_layer(frozen);
  }
  gated_ = false;
  std::deque<BlockIo*> held = std::exchange(behind_gate_, {});
  for (BlockIo* io : held) {
    io->status = validate(*io);
    io->status == IoStatus::kOk ? start(io) : io->done(io);
  }
}

void Volume::resize(uint64_t size_bytes) {
  PANDO_ASSERT(size_bytes >= size_bytes_);
  size_bytes_ = size_bytes;
}

void Volume::close(std::function<void()> done) {
  PANDO_ASSERT(!closing_ && !gated_);
  closing_ = true;
  release_limited();
  if (requests_ == 0) {
    done();
  } else {
    on_closed_ = std::move(done);
  }
}

void Volume::add_segment(Piece* piece, DiskOpKind kind, uint64_t offset, uint32_t length,
                         std::byte* data) {
  if (!piece->segments.empty()) {
    DiskOp& last = piece->segments.back()->op;
    if (last.offset + last.length == offset && last.data + last.length == data) {
      last.length += length;
      return;
    }
  }
  Segment* segment = segment_arena_.take();
  segment->piece = piece;
  segment->op.kind = kind;
  segment->op.offset = offset;
  segment->op.length = length;
  segment->op.data = data;
  segment->op.context = segment;
  segment->op.done = [](DiskOp* op) {
    auto* done = static_cast<Segment*>(op->context);
    done->piece->volume->segment_done(done);
  };
  piece->segments.push_back(segment);
}

void Volume::submit_segments(Piece* piece) {
  piece->segments_left = static_cast<uint32_t>(piece->segments.size());
  for (Segment* segment : piece->segments) pool_.disk_.submit(&segment->op);
  piece->segments.clear();
}

void Volume::segment_done(Segment* segment) {
  Piece* piece = segment->piece;
  if (segment->op.error != 0) piece->error = segment->op.error;
  if (segment->op.kind == DiskOpKind::kWrite) pool_.committer_.written();
  segment_arena_.give_back(segment);
  if (--piece->segments_left > 0) return;
  if (piece->request->io->op != IoOp::kRead) {
    data_written(piece);
    return;
  }
  pool_.releases_.finish(&piece->active);
  const IoStatus status = piece->error == 0 ? IoStatus::kOk : IoStatus::kIoError;
  pool_.publish_released();
  piece_done(piece, status);
}

}  // namespace pando
