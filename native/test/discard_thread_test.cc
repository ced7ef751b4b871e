// The thread for discards: each one is answered once, on the ring's own thread and in its order,
// with what the system said; between crowds of them the ring is left alone.
#include "discard_thread.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "check.h"

namespace {

using pando::DiscardThread;
using pando::DiskOp;
using pando::Ring;

constexpr uint64_t kPatienceUs = 10'000'000;
constexpr int kCrowd = 2000;

struct Told {
  std::vector<uint64_t> offsets;
  std::thread::id thread;
};

/// A file: that it is no block device is said for each discard, by the system call itself.
int open_scratch() {
  const char* directory = std::getenv("TMPDIR");
  std::string path = std::string(directory != nullptr ? directory : "/tmp") + "/discard_XXXXXX";
  const int fd = mkstemp(path.data());
  REQUIRE(fd >= 0);
  unlink(path.c_str());
  return fd;
}

void check_each_is_answered_here() {
  Ring ring(8);
  const int fd = open_scratch();
  DiscardThread discards(ring, fd);
  Told told;
  std::deque<DiskOp> ops;
  for (int crowd = 0; crowd < 3; ++crowd) {
    for (int i = 0; i < kCrowd; ++i) {
      DiskOp& op = ops.emplace_back();
      op.kind = pando::DiskOpKind::kDiscard;
      op.offset = ops.size() * 4096;
      op.length = 4096;
      op.context = &told;
      op.done = [](DiskOp* done) {
        auto* told = static_cast<Told*>(done->context);
        told->offsets.push_back(done->offset);
        told->thread = std::this_thread::get_id();
        CHECK(done->error == ENOTTY);
      };
      discards.submit(&op);
      CHECK(told.offsets.size() < ops.size());  // never inside submit()
    }
    while (told.offsets.size() < ops.size()) REQUIRE(ring.run_once(kPatienceUs) > 0);
    CHECK(ring.in_flight() == 0);
  }
  CHECK(told.thread == std::this_thread::get_id());
  CHECK(told.offsets.size() == 3 * kCrowd);
  for (size_t i = 0; i < told.offsets.size(); ++i) CHECK(told.offsets[i] == (i + 1) * 4096);
  close(fd);
}

void check_unused_it_ends() {
  Ring ring(8);
  const int fd = open_scratch();
  { DiscardThread discards(ring, fd); }
  CHECK(ring.in_flight() == 0);
  close(fd);
}

}  // namespace

int main() {
  check_each_is_answered_here();
  check_unused_it_ends();
  return pando::test::finish("discard_thread_test");
}
