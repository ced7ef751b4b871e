// Requests of a block device against a kernel of our own: each is answered once, with what the
// volume said; memory is bounded; both ends, the kernel's and ours, come when nothing is left.
#include "ublk_device.h"

#include <cerrno>
#include <cstring>
#include <map>
#include <optional>

#include "check.h"
#include "memory_volume.h"

namespace pando {
namespace {

using test::MemoryVolume;

constexpr uint16_t kDepth = 64;

/// Tags, and the memory of their requests, as ublk_drv has them.
class FakeKernel final : public UblkChannel {
 public:
  const ublk::Descriptor& descriptor(uint16_t tag) const override { return tags[tag].descriptor; }
  bool copy_in(uint16_t tag, std::byte* data, size_t size) override {
    if (fail_copies) return false;
    CHECK(tags[tag].data.size() == size);
    std::memcpy(data, tags[tag].data.data(), size);
    return true;
  }
  bool copy_out(uint16_t tag, const std::byte* data, size_t size) override {
    if (fail_copies) return false;
    tags[tag].data.assign(data, data + size);
    return true;
  }
  void fetch(RingOp* op, uint16_t tag) override { tags[tag].op = op; }
  void commit_and_fetch(RingOp* op, uint16_t tag, int32_t result) override {
    CHECK(!tags[tag].result.has_value());
    tags[tag].result = result;
    tags[tag].op = op;
  }

  void send(uint16_t tag, uint32_t op, uint64_t offset, uint64_t length, uint32_t flags = 0) {
    Tag& at = tags[tag];
    at.descriptor = {op | flags, static_cast<uint32_t>(length / ublk::kSectorBytes),
                     offset / ublk::kSectorBytes, 0};
    at.result.reset();
    RingOp* fetched = std::exchange(at.op, nullptr);
    REQUIRE(fetched != nullptr);
    fetched->done(fetched, ublk::kRequestArrived);
  }
  void write(uint16_t tag, uint64_t offset, size_t length, uint8_t value, uint32_t flags = 0) {
    tags[tag].data.assign(length, std::byte{value});
    send(tag, ublk::kOpWrite, offset, length, flags);
  }
  void abort_all() {
    for (auto& [tag, at] : tags) {
      RingOp* op = std::exchange(at.op, nullptr);
      if (op != nullptr) op->done(op, -ENODEV);
    }
  }
  std::optional<int32_t> result(uint16_t tag) { return tags[tag].result; }

  struct Tag {
    ublk::Descriptor descriptor{};
    std::vector<std::byte> data;
    RingOp* op = nullptr;
    std::optional<int32_t> result;
  };
  mutable std::map<uint16_t, Tag> tags;
  bool fail_copies = false;
};

struct Scene {
  explicit Scene(MemoryVolume::Completion completion = MemoryVolume::Completion::kInline)
      : volume({.completion = completion}), device(kernel, buffers, volume, kDepth) {
    device.start();
  }
  BufferPool buffers;
  FakeKernel kernel;
  MemoryVolume volume;
  UblkDevice device;
};

void test_every_operation() {
  Scene scene;
  scene.kernel.write(0, 8192, 8192, 7, ublk::kFlagFua);
  CHECK(scene.kernel.result(0) == 8192);
  CHECK(scene.volume.seen().back().fua);
  scene.kernel.send(1, ublk::kOpRead, 4096, 8192);
  CHECK(scene.kernel.result(1) == 8192);
  CHECK(scene.kernel.tags[1].data[0] == std::byte{0});
  CHECK(scene.kernel.tags[1].data[4096] == std::byte{7});
  scene.kernel.send(2, ublk::kOpFlush, 0, 0);
  CHECK(scene.kernel.result(2) == 0);
  CHECK(scene.volume.seen().back().op == IoOp::kFlush);
  scene.kernel.send(3, ublk::kOpDiscard, 8192, 4096);
  CHECK(scene.kernel.result(3) == 0);
  CHECK(!scene.volume.allocated(8192));
  scene.kernel.send(4, ublk::kOpWriteZeroes, 12288, 4096);
  CHECK(scene.kernel.result(4) == 0);
  CHECK(scene.volume.data()[12288] == std::byte{0});
  constexpr uint32_t kZoneReset = 15;
  scene.kernel.send(5, kZoneReset, 0, 4096);
  CHECK(scene.kernel.result(5) == -EOPNOTSUPP);
  CHECK(scene.buffers.in_use_bytes() == 0);
}

void test_errors() {
  Scene scene;
  scene.volume.fail(IoOp::kWrite, IoStatus::kNoSpace);
  scene.kernel.write(0, 0, 4096, 1);
  CHECK(scene.kernel.result(0) == -ENOSPC);
  scene.volume.fail(IoOp::kRead, IoStatus::kIoError);
  scene.kernel.send(0, ublk::kOpRead, 0, 4096);
  CHECK(scene.kernel.result(0) == -EIO);
  scene.kernel.send(0, ublk::kOpRead, 0, 0);
  CHECK(scene.kernel.result(0) == -EINVAL);
  scene.kernel.fail_copies = true;
  scene.kernel.write(0, 0, 4096, 1);
  CHECK(scene.kernel.result(0) == -EIO);
  scene.kernel.send(0, ublk::kOpRead, 0, 4096);
  CHECK(scene.kernel.result(0) == -EIO);
  CHECK(scene.buffers.in_use_bytes() == 0);
}

void test_memory_is_bounded_and_everything_is_answered() {
  Scene scene(MemoryVolume::Completion::kShuffled);
  constexpr size_t kBytes = 512 << 10;
  for (uint16_t tag = 0; tag < kDepth; ++tag) {
    scene.kernel.write(tag, tag * kBytes, kBytes, static_cast<uint8_t>(tag + 1));
  }
  CHECK(scene.volume.in_flight() == UblkDevice::kMaxDataBytes / kBytes);
  while (scene.volume.in_flight() > 0) {
    CHECK(scene.buffers.in_use_bytes() <= UblkDevice::kMaxDataBytes);
    scene.volume.complete(3);
  }
  for (uint16_t tag = 0; tag < kDepth; ++tag) {
    CHECK(scene.kernel.result(tag) == static_cast<int32_t>(kBytes));
    CHECK(scene.volume.data()[tag * kBytes + 5] == std::byte(tag + 1));
  }
  CHECK(scene.buffers.in_use_bytes() == 0);
}

void test_the_kernel_stops_it() {
  Scene scene(MemoryVolume::Completion::kInOrder);
  scene.kernel.write(0, 0, 4096, 1);
  bool stopped = false;
  scene.kernel.abort_all();
  scene.device.when_stopped([&] { stopped = true; });
  CHECK(!stopped);
  scene.volume.complete();
  CHECK(!stopped);  // the tag is with the kernel again
  scene.kernel.abort_all();
  CHECK(stopped);
}

void test_the_server_leaves() {
  Scene scene(MemoryVolume::Completion::kInOrder);
  constexpr size_t kBytes = 512 << 10;
  for (uint16_t tag = 0; tag < kDepth; ++tag) scene.kernel.write(tag, 0, kBytes, 1);
  const size_t begun = scene.volume.in_flight();
  bool left = false;
  scene.device.leave([&] { left = true; });
  CHECK(!left);
  scene.volume.complete();
  CHECK(left);
  CHECK(scene.volume.in_flight() == 0);
  size_t answered = 0;
  for (uint16_t tag = 0; tag < kDepth; ++tag) answered += scene.kernel.result(tag) ? 1 : 0;
  CHECK(answered == begun);  // the others are the next server's
  scene.kernel.write(0, 0, 4096, 2);
  CHECK(!scene.kernel.result(0));
  CHECK(scene.buffers.in_use_bytes() == 0);
}

void test_leaving_an_idle_device_is_at_once() {
  Scene scene;
  bool left = false;
  scene.device.leave([&] { left = true; });
  CHECK(left);
}

}  // namespace
}  // namespace pando

int main() {
  pando::test_every_operation();
  pando::test_errors();
  pando::test_memory_is_bounded_and_everything_is_answered();
  pando::test_the_kernel_stops_it();
  pando::test_the_server_leaves();
  pando::test_leaving_an_idle_device_is_at_once();
  return pando::test::finish("ublk_device_test");
}
