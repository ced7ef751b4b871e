// One ublk block device, served: its requests become BlockIos of a volume.
//
//     fetched by us -> [waits for memory] -> data copied in -> volume -> data copied out ->
//     committed
//
// Every tag is at all times either the kernel's (we have asked for its next request) or ours. Data
// is copied from and to the kernel when it is there, so that a device that rests holds no memory;
// under load it holds at most kMaxDataBytes, and what does not fit waits.
//
// Two ends. When the kernel stops the device, every tag comes back as aborted. When the server
// leaves, it only answers what it has begun; what it leaves unanswered the kernel keeps for the
// next server, and gives it to that one again.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "block_io.h"
#include "buffer.h"
#include "reactor.h"
#include "ublk_spec.h"

namespace pando {

/// The character device, as far as the data of a request is concerned; a test has its own.
class UblkChannel {
 public:
  virtual ~UblkChannel() = default;
  virtual const ublk::Descriptor& descriptor(uint16_t tag) const = 0;
  /// True when all `size` bytes of the request's data are copied.
  virtual bool copy_in(uint16_t tag, std::byte* data, size_t size) = 0;
  virtual bool copy_out(uint16_t tag, const std::byte* data, size_t size) = 0;
  /// Asks for the tag's next request; `op` completes when there is one, or no more.
  virtual void fetch(RingOp* op, uint16_t tag) = 0;
  /// The same, with the result of the one before.
  virtual void commit_and_fetch(RingOp* op, uint16_t tag, int32_t result) = 0;
};

class UblkDevice {
 public:
  UblkDevice(UblkChannel& channel, BufferPool& buffers, BlockVolume& volume, uint16_t depth);
  UblkDevice(const UblkDevice&) = delete;
  UblkDevice& operator=(const UblkDevice&) = delete;
  /// Only when the kernel holds none of its tags any more, or with the ring gone.
  ~UblkDevice() = default;

  void start();
  /// `done` runs when the kernel has aborted every tag and the volume has none: at once, or later.
  void when_stopped(std::function<void()> done);
  /// Takes no more requests; `done` runs when the volume has none, at once or later.
  void leave(std::function<void()> done);

  static constexpr size_t kMaxDataBytes = 8 << 20;

 private:
  struct Request {
    UblkDevice* device = nullptr;
    uint16_t tag = 0;
    RingOp op;
    BlockIo io;
    Buffer buffer;
    Request* next = nullptr;  // of those that wait for memory
  };

  void on_fetched(Request* request, int32_t result);
  void start_request(Request* request);
  bool take_buffer(Request* request, size_t size);
  void on_done(Request* request);
  void commit(Request* request, int32_t result);
  void start_waiting();
  void check_end();

  UblkChannel& channel_;
  BufferPool& buffers_;
  BlockVolume& volume_;
  std::vector<Request> requests_;
  size_t in_volume_ = 0;
  size_t ended_ = 0;  // tags that the kernel has aborted
  size_t data_bytes_ = 0;
  Request* first_waiting_ = nullptr;
  Request* last_waiting_ = nullptr;
  bool leaving_ = false;
  std::function<void()> stopped_;
  std::function<void()> left_;
};

}  // namespace pando
