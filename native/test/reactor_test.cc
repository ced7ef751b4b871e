// The reactor: what other threads post runs on its thread, all of it and in order; timers run when
// due, in order, once, and not after they were cancelled.
#include "reactor.h"

#include <unistd.h>

#include <chrono>
#include <thread>
#include <vector>

#include "check.h"

namespace {

using pando::Reactor;
using pando::RingOp;
using pando::TimerId;

constexpr uint64_t kTurnUs = 100'000;

void check_posts_from_two_threads() {
  constexpr int kPosts = 5000;
  Reactor reactor;
  std::vector<int> seen[2];
  std::thread::id ran_on;
  std::thread loop([&] { reactor.run(); });
  const std::thread::id loop_id = loop.get_id();
  const auto post_all = [&](int who) {
    for (int i = 0; i < kPosts; ++i) {
      reactor.post([&, who, i] {
        seen[who].push_back(i);
        ran_on = std::this_thread::get_id();
      });
    }
  };
  std::thread other([&] { post_all(1); });
  post_all(0);
  other.join();
  reactor.post([&] { reactor.stop(); });
  loop.join();
  CHECK(ran_on == loop_id);
  for (const std::vector<int>& one : seen) {
    CHECK(one.size() == kPosts);
    bool in_order = true;
    for (size_t i = 0; i < one.size(); ++i) in_order = in_order && one[i] == static_cast<int>(i);
    CHECK(in_order);
  }
}

void check_post_wakes_a_sleeper() {
  Reactor reactor;
  bool ran = false;
  std::thread loop([&] { reactor.run(); });
  // Long enough for the loop to be asleep in the kernel; shorter only makes the test weaker.
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  reactor.post([&] {
    ran = true;
    reactor.stop();
  });
  loop.join();
  CHECK(ran);
}

void check_timers() {
  Reactor reactor;
  std::vector<int> fired;
  const uint64_t start = reactor.now_ms();
  reactor.add_timer(60, [&] { fired.push_back(60); });
  reactor.add_timer(20, [&] { fired.push_back(20); });
  const TimerId cancelled = reactor.add_timer(30, [&] { fired.push_back(30); });
  reactor.cancel_timer(cancelled);
  reactor.cancel_timer(cancelled);
  for (int turns = 0; fired.size() < 2 && turns < 1000; ++turns) reactor.turn(kTurnUs);
  CHECK((fired == std::vector<int>{20, 60}));
  CHECK(reactor.now_ms() >= start + 60);
  reactor.turn(0);
  CHECK(fired.size() == 2);
}

// A completion that ends a long sleep sets a timer: it counts from the completion.
void check_timer_after_sleep() {
  Reactor reactor;
  constexpr uint64_t kSleepMs = 120;
  constexpr uint64_t kDelayMs = 80;
  int pipe_fds[2];
  REQUIRE(pipe(pipe_fds) == 0);
  struct Reading {
    Reactor* reactor;
    std::chrono::steady_clock::time_point completed;
    bool fired;
  } reading{&reactor, {}, false};
  RingOp op;
  char byte;
  op.context = &reading;
  op.done = [](RingOp* done, int32_t) {
    auto* self = static_cast<Reading*>(done->context);
    self->completed = std::chrono::steady_clock::now();
    self->reactor->add_timer(kDelayMs, [self] { self->fired = true; });
  };
  reactor.ring().read(&op, pipe_fds[0], &byte, 1, 0);
  std::thread writer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(kSleepMs));
    REQUIRE(write(pipe_fds[1], "x", 1) == 1);
  });
  for (int turns = 0; !reading.fired && turns < 1000; ++turns) reactor.turn(1'000'000);
  writer.join();
  // The clock of timers has whole milliseconds.
  CHECK(std::chrono::steady_clock::now() - reading.completed >=
        std::chrono::milliseconds(kDelayMs - 1));
  close(pipe_fds[0]);
  close(pipe_fds[1]);
}

}  // namespace

int main() {
  check_posts_from_two_threads();
  check_post_wakes_a_sleeper();
  check_timers();
  check_timer_after_sleep();
  return pando::test::finish("reactor_test");
}
