// The ring: results reach their operation, the count of operations in flight is exact, more
// operations than the queue is deep are taken, a cancelled operation still completes, a long batch
// does not wait for its end, and polling follows the device.
#include "ring.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <string>

#include "check.h"

namespace {

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

/// The device must not idle while a long batch is prepared.
void check_long_batches_are_submitted_on_the_way() {
  Ring ring(64);
  const int fd = eventfd(0, EFD_CLOEXEC);
  std::deque<Waiter> waiters;
  for (unsigned i = 0; i < 3 * Ring::kSubmitBatch; ++i) {
    ring.poll(&waiters.emplace_back().op, fd, POLLIN);
    CHECK(ring.unsubmitted() <= Ring::kSubmitBatch);
  }
  const uint64_t one = 1;
  REQUIRE(write(fd, &one, sizeof(one)) == sizeof(one));
  drain(ring);
  for (const Waiter& waiter : waiters) CHECK(waiter.times_done == 1);
  close(fd);
}

void check_polling_follows_the_device() {
  pando::PollWindow window;
  CHECK(window.ns() == 0);
  window.slept(pando::PollWindow::kLongestNs);
  CHECK(window.ns() == pando::PollWindow::kShortestNs);
  for (int i = 0; i < 10; ++i) window.slept(1);
  CHECK(window.ns() == pando::PollWindow::kLongestNs);
  window.slept(pando::PollWindow::kLongestNs + 1);
  CHECK(window.ns() == pando::PollWindow::kLongestNs / 2);
  for (int i = 0; i < 10; ++i) window.slept(pando::PollWindow::kLongestNs + 1);
  CHECK(window.ns() == 0);
}

/// A wait that polls ends as any other: by its answer, and by its time-out.
void check_quick_operations() {
  Ring ring(8);
  const int fd = open_scratch();
  char byte = 'x';
  for (int i = 0; i < 100; ++i) {
    Waiter write;
    write.op.quick = true;
    ring.write(&write.op, fd, &byte, 1, 0, 0);
    drain(ring);
    CHECK(write.times_done == 1 && write.result == 1);
  }
  const int silent = eventfd(0, EFD_CLOEXEC);
  Waiter poll;
  poll.op.quick = true;
  ring.poll(&poll.op, silent, POLLIN);
  for (int i = 0; i < 5; ++i) CHECK(ring.run_once(1000) == 0);
  ring.cancel(&poll.op);
  drain(ring);
  CHECK(poll.times_done == 1 && poll.result == -ECANCELED);
  close(silent);
  close(fd);
}

}  // namespace

int main() {
  check_file_round_trip();
  check_errors_are_results();
  check_more_than_the_queue();
  check_cancel_still_completes();
  check_timeout_without_completions();
  check_long_batches_are_submitted_on_the_way();
  check_polling_follows_the_device();
  check_quick_operations();
  return pando::test::finish("ring_test");
}
