// The data device on a real file, and on one in memory, which takes another way: what is written is
// read, each operation is answered once, never inside submit(), and what lies beyond the end is an
// error.
#include "uring_disk.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>

#include "check.h"

namespace {

using pando::DeviceFile;
using pando::DiskOp;
using pando::DiskOpKind;
using pando::Ring;
using pando::UringDisk;

constexpr uint64_t kPatienceUs = 10'000'000;
constexpr uint32_t kBlock = 4096;
constexpr int kBlocks = 64;
constexpr const char* kMemory = "/dev/shm";

struct alignas(kBlock) Block {
  std::byte bytes[kBlock];
};

struct Op {
  DiskOp op;
  int times_done = 0;

  Op(DiskOpKind kind, uint64_t offset, std::byte* data, uint32_t length) {
    op.kind = kind;
    op.offset = offset;
    op.data = data;
    op.length = length;
    op.context = this;
    op.done = [](DiskOp* done) { ++static_cast<Op*>(done->context)->times_done; };
  }
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;
};

/// A file of kBlocks blocks, gone with the object.
class Scratch {
 public:
  explicit Scratch(const std::string& directory) : path_(directory + "/disk_XXXXXX") {
    const int fd = mkstemp(path_.data());
    REQUIRE(fd >= 0);
    REQUIRE(ftruncate(fd, static_cast<off_t>(kBlocks) * kBlock) == 0);
    close(fd);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { unlink(path_.c_str()); }

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void finish_all(Ring& ring) {
  while (ring.in_flight() > 0) REQUIRE(ring.run_once(kPatienceUs) > 0);
}

/// 0, or the error.
int run(Ring& ring, UringDisk& disk, DiskOpKind kind, uint64_t offset, std::byte* data,
        uint32_t length) {
  Op one(kind, offset, data, length);
  disk.submit(&one.op);
  CHECK(one.times_done == 0);
  finish_all(ring);
  CHECK(one.times_done == 1);
  return one.op.error;
}

void check_device(const std::string& directory, bool in_memory) {
  const Scratch scratch(directory);
  const DeviceFile device(scratch.path());
  CHECK(device.in_memory() == in_memory);
  CHECK(!device.is_block_device());
  CHECK(device.volatile_cache());
  CHECK(device.size_bytes() == static_cast<uint64_t>(kBlocks) * kBlock);
  Ring ring(8);
  UringDisk disk(ring, device);

  // More at once than the ring is deep.
  std::deque<Block> blocks(kBlocks);
  std::deque<Op> ops;
  for (int i = 0; i < kBlocks; ++i) {
    std::memset(blocks[i].bytes, i + 1, kBlock);
    const auto kind = i % 2 == 0 ? DiskOpKind::kWrite : DiskOpKind::kWriteDurable;
    Op& op = ops.emplace_back(kind, static_cast<uint64_t>(i) * kBlock, blocks[i].bytes, kBlock);
    disk.submit(&op.op);
  }
  for (const Op& op : ops) CHECK(op.times_done == 0);
  finish_all(ring);
  for (const Op& op : ops) CHECK(op.times_done == 1 && op.op.error == 0);
  CHECK(run(ring, disk, DiskOpKind::kFlush, 0, nullptr, 0) == 0);

  Block read{};
  for (int i = 0; i < kBlocks; ++i) {
    const auto offset = static_cast<uint64_t>(i) * kBlock;
    CHECK(run(ring, disk, DiskOpKind::kRead, offset, read.bytes, kBlock) == 0);
    CHECK(std::memcmp(read.bytes, blocks[i].bytes, kBlock) == 0);
  }

  CHECK(run(ring, disk, DiskOpKind::kDiscard, kBlock, nullptr, kBlock) == 0);
  CHECK(run(ring, disk, DiskOpKind::kRead, kBlock, read.bytes, kBlock) == 0);
  for (const std::byte byte : read.bytes) REQUIRE(byte == std::byte{0});
  CHECK(run(ring, disk, DiskOpKind::kRead, 0, read.bytes, kBlock) == 0);
  CHECK(read.bytes[0] == std::byte{1});

  CHECK(run(ring, disk, DiskOpKind::kRead, device.size_bytes(), read.bytes, kBlock) == EIO);
  // Nothing of the kernel's is at this address.
  auto* nowhere = reinterpret_cast<std::byte*>(uintptr_t{kBlock});
  CHECK(run(ring, disk, DiskOpKind::kRead, 0, nowhere, kBlock) == EFAULT);
}

/// One that is done already does not wait for the others, nor they for it.
void check_both_ways_at_once() {
  Ring ring(8);
  struct Waiter {
    pando::RingOp op;
    int order = 0;
  };
  static int answered = 0;
  answered = 0;
  const auto make = [](Waiter& waiter) {
    waiter.op.context = &waiter;
    waiter.op.done = [](pando::RingOp* op, int32_t result) {
      CHECK(result == 7 || result == -ECANCELED);
      static_cast<Waiter*>(op->context)->order = ++answered;
    };
  };
  int pipe_ends[2];
  REQUIRE(pipe(pipe_ends) == 0);
  Waiter never;
  make(never);
  ring.poll(&never.op, pipe_ends[0], 1);
  Waiter done;
  make(done);
  ring.finish(&done.op, 7);
  CHECK(ring.in_flight() == 2);
  const auto began = std::chrono::steady_clock::now();
  CHECK(ring.run_once(kPatienceUs) == 1);
  CHECK(std::chrono::steady_clock::now() - began < std::chrono::microseconds(kPatienceUs / 2));
  CHECK(done.order == 1 && never.order == 0);
  CHECK(ring.in_flight() == 1);
  CHECK(ring.unsubmitted() == 0);
  ring.cancel(&never.op);
  while (ring.in_flight() > 0) REQUIRE(ring.run_once(kPatienceUs) > 0);
  CHECK(never.order == 2);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}

bool is_memory(const char* directory) {
  struct statfs place {};
  return statfs(directory, &place) == 0 && place.f_type == TMPFS_MAGIC &&
         access(directory, W_OK) == 0;
}

}  // namespace

int main() {
  const char* directory = std::getenv("TMPDIR");
  if (directory == nullptr) directory = "/tmp";
  check_device(directory, is_memory(directory));
  check_both_ways_at_once();
  if (!is_memory(kMemory)) return pando::test::skip("/dev/shm is no tmpfs");
  check_device(kMemory, true);
  return pando::test::finish("uring_disk_test");
}
