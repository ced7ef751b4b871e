#include "punches.h"

#include <algorithm>
#include <utility>

namespace pando {
namespace {

/// At most this much is one operation: none takes long.
constexpr uint32_t kLongestBytes = 64 << 20;

}  // namespace

void Punches::punch(std::vector<BlockRun> runs, Done done) {
  requests_.push_back({std::move(runs), std::move(done)});
  if (requests_.size() == 1) go_on();
}

void Punches::go_on() {
  Request& request = requests_.front();
  BlockRun& run = request.runs[request.next];
  const uint32_t count = std::min(run.count, kLongestBytes / block_size_);
  op_.kind = DiskOpKind::kDiscard;
  op_.offset = data_offset_bytes_ + (uint64_t{run.first} - 1) * block_size_;
  op_.length = count * block_size_;
  op_.context = this;
  op_.done = [](DiskOp* op) { static_cast<Punches*>(op->context)->ended(op->error); };
  run.first += count;
  run.count -= count;
  if (run.count == 0) ++request.next;
  disk_.submit(&op_);
}

void Punches::ended(int error) {
  Request& request = requests_.front();
  if (error == 0 && request.next < request.runs.size()) {
    go_on();
    return;
  }
  const Done done = std::move(request.done);
  requests_.pop_front();
  if (!requests_.empty()) go_on();
  done(error);
}

}  // namespace pando
