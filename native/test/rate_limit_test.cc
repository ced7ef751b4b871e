// The schedule of a volume's limits, on a clock of its own.
#include "rate_limit.h"

#include "check.h"

using pando::RateLimit;

namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kStart = 1'000 * kSecond;

/// How many requests of `bytes` start within `duration`, when there is always one that wants to.
uint64_t started(RateLimit& limit, uint64_t begin, uint64_t duration, uint64_t bytes) {
  uint64_t count = 0;
  for (uint64_t now = begin; now < begin + duration;) {
    if (limit.admit(now, bytes)) {
      ++count;
    } else {
      now += limit.wait_ns(now);
    }
  }
  return count;
}

void without_a_limit_everything_starts() {
  RateLimit limit;
  CHECK(!limit.active());
  for (int i = 0; i < 1000; ++i) CHECK(limit.admit(kStart, 1 << 20));
}

void requests_are_limited_whatever_their_size() {
  RateLimit limit;
  limit.set(500, 0);
  CHECK(limit.active());
  const uint64_t count = started(limit, kStart, 10 * kSecond, 1 << 20);
  CHECK(count >= 5000 && count <= 5000 + 51);
}

void bytes_are_limited_whatever_their_number() {
  for (const uint64_t bytes : {4096u, 65536u, 1u << 20}) {
    RateLimit limit;
    limit.set(0, 10 << 20);
    const uint64_t total = started(limit, kStart, 10 * kSecond, bytes) * bytes;
    CHECK(total >= 100u << 20);
    CHECK(total <= (101u << 20) + 2 * bytes);
  }
}

void the_stricter_of_two_limits_counts() {
  RateLimit limit;
  limit.set(10, 1 << 30);
  CHECK(started(limit, kStart, 10 * kSecond, 4096) <= 102);
}

void an_idle_volume_saves_up_no_more_than_the_burst() {
  RateLimit limit;
  limit.set(1000, 0);
  CHECK(limit.admit(kStart, 0));
  uint64_t count = 0;
  while (limit.admit(kStart + 3600 * kSecond, 0)) ++count;
  CHECK(count == 101u);
}

void a_request_larger_than_the_burst_gets_its_turn() {
  RateLimit limit;
  limit.set(0, 1 << 20);
  CHECK(limit.admit(kStart, 1 << 20));
  CHECK(!limit.admit(kStart + kSecond / 2, 1 << 20));
  CHECK(limit.wait_ns(kStart) == kSecond - RateLimit::kBurstNs);
  CHECK(limit.admit(kStart + kSecond, 1 << 20));
}

void a_new_limit_forgets_the_old_one() {
  RateLimit limit;
  limit.set(1, 0);
  CHECK(limit.admit(kStart, 0));
  CHECK(!limit.admit(kStart, 0));
  limit.set(0, 0);
  CHECK(limit.admit(kStart, 0));
  limit.set(1000, 0);
  CHECK(limit.admit(kStart, 0));
}

}  // namespace

int main() {
  without_a_limit_everything_starts();
  requests_are_limited_whatever_their_size();
  bytes_are_limited_whatever_their_number();
  the_stricter_of_two_limits_counts();
  an_idle_volume_saves_up_no_more_than_the_burst();
  a_request_larger_than_the_burst_gets_its_turn();
  a_new_limit_forgets_the_old_one();
  return pando::test::finish("rate_limit_test");
}
