// A volume: block I/O on its live layer.
//
// A request is cut into pieces, one span each. A piece that writes goes plan → device I/O → apply:
// the plan looks up the index block, reserves room in the journal and takes blocks in one step;
// apply looks up again, sets slots and own bits, and appends the records in one step. Between the
// two only the piece's own slots are locked. A block that the live layer owns is overwritten in
// place, with no metadata at all.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "arena.h"
#include "block_io.h"
#include "extents.h"
#include "piece.h"
#include "pool.h"
#include "rate_limit.h"
#include "span_locks.h"

namespace pando {

class Volume final : public BlockVolume {
 public:
  Volume(Pool& pool, const VolumeOptions& options);
  Volume(const Volume&) = delete;
  Volume& operator=(const Volume&) = delete;
  ~Volume() override;

  void submit(BlockIo* io) override;
  uint64_t size_bytes() const override { return size_bytes_; }
  uint32_t block_size() const override { return pool_.options_.block_size; }
  uint32_t atomic_unit() const override { return pool_.disk_.atomic_unit(); }
  bool read_only() const override { return read_only_; }
  const std::array<uint8_t, 16>& uuid() const override { return uuid_; }
  const std::string& name() const override { return name_; }

  uint64_t id() const { return id_; }
  uint64_t live_layer() const { return layer_->id(); }
  /// Of the last record that one of its acknowledged writes made.
  uint64_t last_ordinal() const { return last_ordinal_; }

  void close_gate();
  void when_writes_drained(std::function<void()> done);
  void open_gate(uint64_t new_layer);
  void resize(uint64_t size_bytes);
  /// 0: no limit. Counts from now on, for what waits too.
  void set_limits(uint64_t requests_per_second, uint64_t bytes_per_second);
  void close(std::function<void()> done);

 private:
  // volume.cc: requests
  IoStatus validate(const BlockIo& io) const;
  void pass_gate(BlockIo* io);
  void start(BlockIo* io);
  void pump(Request* request);
  void piece_done(Piece* piece, IoStatus status);
  void all_pieces_done(Request* request);
  void complete(Request* request);
  void writes_finished();

  // volume_limits.cc
  bool over_limit(const BlockIo& io);
  void hold_for_limit(BlockIo* io);
  void release_limited();

  // volume_read.cc
  void run_read(Piece* piece);
  void run_map(Piece* piece);

  // volume_write.cc
  void run_write(Piece* piece);
  bool make_plan(Piece* piece, const IndexBlock& index);
  void read_old(Piece* piece);
  void write_data(Piece* piece);
  void data_written(Piece* piece);
  void apply(Piece* piece);
  void abandon(Piece* piece, IoStatus status);
  void finish_write(Piece* piece, IoStatus status);

  // Shared by both.
  void run(Piece* piece);
  void add_segment(Piece* piece, DiskOpKind kind, uint64_t offset, uint32_t length,
                   std::byte* data);
  void submit_segments(Piece* piece);
  void segment_done(Segment* segment);

  Pool& pool_;
  uint64_t id_;
  std::string name_;
  std::array<uint8_t, 16> uuid_;
  uint64_t size_bytes_;
  bool read_only_;
  LayerState* layer_;
  ExtentCursor cursor_;
  std::vector<BlockRun> taken_;  // make_plan()'s alone: kept for its memory
  SpanLocks locks_;
  uint64_t last_ordinal_;  // when it is opened: of whoever had the volume open before, too

  bool gated_ = false;
  std::deque<BlockIo*> behind_gate_;
  RateLimit limit_;
  std::deque<BlockIo*> behind_limit_;  // in the order in which they came
  bool limit_timer_set_ = false;
  uint64_t writes_ = 0;    // requests that change something, admitted and not yet applied
  uint64_t requests_ = 0;  // all, until they complete
  std::function<void()> on_drained_;
  std::function<void()> on_closed_;
  bool closing_ = false;

  Arena<Request> request_arena_;
  Arena<Piece> piece_arena_;
  Arena<Segment> segment_arena_;
};

}  // namespace pando
