// The ring: results reach their operation, the count of operations in flight is exact, more
// operations than the queue is deep are taken, and a cancelled operation still completes.
#include "ring.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "check.h"
#include "fixed_memory.h"

namespace {

using pando::FixedMemory;
using pando::Ring;
using pando::RingOp;

constexpr uint64_t kPatienceUs = 10'000'000;

struct Waiter {
  RingOp op;
  int32_t result = 0;
  int times_done = 0;

  Waiter() {
    op.context = this;
    op.done = [](RingOp* op, int32_t result) {
      auto* self = static_cast<Waiter*>(op->context);
      self->result = result;
      ++self->times_done;
    };
  }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
};

/// An unlinked temporary file.
int open_scratch() {
  const char* directory = std::getenv("TMPDIR");
  std::string path = std::string(directory != nullptr ? directory : "/tmp") + "/ring_XXXXXX";
  const int fd = mkstemp(path.data());
  REQUIRE(fd >= 0);
  unlink(path.c_str());
  return fd;
}

void drain(Ring& ring) {
  while (ring.in_flight() > 0) REQUIRE(ring.run_once(kPatienceUs) > 0);
}

void check_file_round_trip() {
  Ring ring(8);
  const int fd = open_scratch();
  const char text[] = "a trunk, and its root";
  Waiter write;
  ring.write(&write.op, fd, text, sizeof(text), 4096, 0);
  CHECK(ring.in_flight() == 1);
  CHECK(write.times_done == 0);  // never inside the function that prepared it
  drain(ring);
  CHECK(write.times_done == 1 && write.result == sizeof(text));

  Waiter sync;
  ring.fdatasync(&sync.op, fd);
  drain(ring);
  CHECK(sync.times_done == 1 && sync.result == 0);

  char back[sizeof(text)] = {};
  Waiter read;
  ring.read(&read.op, fd, back, sizeof(back), 4096);
  drain(ring);
  CHECK(read.result == sizeof(text) && std::memcmp(back, text, sizeof(text)) == 0);
  close(fd);
}

void check_errors_are_results() {
  Ring ring(8);
  char byte = 0;
  Waiter read;
  ring.read(&read.op, -1, &byte, 1, 0);
  drain(ring);
  CHECK(read.times_done == 1 && read.result == -EBADF);
}

void check_more_than_the_queue() {
  Ring ring(4);
  const int fd = open_scratch();
  std::deque<Waiter> waiters;
  constexpr unsigned kCount = 200;
  for (unsigned i = 0; i < kCount; ++i) {
    ring.write(&waiters.emplace_back().op, fd, "x", 1, i, 0);
  }
  CHECK(ring.in_flight() == kCount);
  drain(ring);
  for (const Waiter& waiter : waiters) CHECK(waiter.times_done == 1 && waiter.result == 1);
  CHECK(lseek(fd, 0, SEEK_END) == kCount);
  close(fd);
}

void check_cancel_still_completes() {
  Ring ring(8);
  const int fd = eventfd(0, EFD_CLOEXEC);
  Waiter poll;
  ring.poll(&poll.op, fd, POLLIN);
  CHECK(ring.run_once(0) == 0);
  CHECK(ring.in_flight() == 1);
  ring.cancel(&poll.op);
  CHECK(ring.in_flight() == 1);  // the cancel itself is nobody's operation
  drain(ring);
  CHECK(poll.times_done == 1 && poll.result == -ECANCELED);
  close(fd);
}

void check_timeout_without_completions() {
  Ring ring(8);
  CHECK(ring.run_once(1000) == 0);
  CHECK(ring.run_once(0) == 0);
}

/// Within a slab by its registration, across two of them or outside in the ordinary way: the bytes
/// are the same.
void check_fixed_memory() {
  constexpr size_t kSlab = FixedMemory::kSlabBytes;
  FixedMemory memory;
  Ring ring(8);
  CHECK(memory.take_slab() == nullptr);
  memory.attach(ring);
  std::byte* first = memory.take_slab();
  if (first == nullptr) {
    std::printf("without registered memory: the limit of locked memory\n");
    return;
  }
  std::byte* second = memory.take_slab();
  REQUIRE(second == first + kSlab);
  CHECK(memory.contains(first) && memory.contains(second + kSlab - 1));
  CHECK(!memory.contains(first - 1) && !memory.contains(second + kSlab));
  const int fd = open_scratch();
  uint64_t fixed = 0;
  std::byte outside[64];
  for (std::byte* place : {first, second + kSlab - 64, second - 32, outside}) {
    for (int i = 0; i < 64; ++i) place[i] = static_cast<std::byte>(i + static_cast<int>(fixed));
    const std::vector<std::byte> expected(place, place + 64);
    Waiter write;
    ring.write(&write.op, fd, place, 64, 4096, 0);
    drain(ring);
    std::memset(place, 0, 64);
    Waiter read;
    ring.read(&read.op, fd, place, 64, 4096);
    drain(ring);
    CHECK(write.result == 64 && read.result == 64);
    CHECK(std::memcmp(place, expected.data(), 64) == 0);
    if (place != second - 32 && place != outside) fixed += 2;
    CHECK(ring.fixed_ops() == fixed);
  }
  close(fd);
  size_t slabs = 2;
  while (memory.take_slab() != nullptr) ++slabs;
  CHECK(slabs <= FixedMemory::kMaxSlabs && memory.slabs() == slabs);
}

}  // namespace

int main() {
  check_file_round_trip();
  check_errors_are_results();
  check_more_than_the_queue();
  check_cancel_still_completes();
  check_timeout_without_completions();
  check_fixed_memory();
  return pando::test::finish("ring_test");
}
