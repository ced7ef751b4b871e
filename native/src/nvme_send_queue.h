// What a connection still has to send: a list of borrowed byte ranges, sent in order by one sendmsg
// at a time.
//
// Replies that come in one turn of the reactor go out together. The first one prepares the
// operation; later ones lengthen the message, which the kernel reads when the ring submits at the
// end of the turn. Should it have been submitted before, the result says how much was taken, and
// the rest goes with the next one.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <vector>

#include "nvme_command.h"
#include "ring.h"

namespace pando::nvme {

class SendQueue {
 public:
  class Listener {
   public:
    virtual ~Listener() = default;
    /// The last byte on behalf of `command` is out.
    virtual void on_sent(Command& command) = 0;
    /// A send ended; `result` as in RingOp::done.
    virtual void on_send_done(int32_t result) = 0;
  };

  SendQueue(Ring& ring, int fd, Listener& listener);
  SendQueue(const SendQueue&) = delete;
  SendQueue& operator=(const SendQueue&) = delete;

  /// `data` must stay until it is sent. `finishes`: the command whose last range this is.
  void push(const void* data, uint32_t size, Command* finishes = nullptr);
  /// Sends what is queued, unless a send is on its way already.
  void flush();
  /// Forgets what is queued; a send on its way still ends with on_send_done().
  void clear();
  void cancel();

  bool sending() const { return sending_; }
  bool empty() const { return head_ == ranges_.size(); }
  uint64_t sent_bytes() const { return sent_bytes_; }

 private:
  struct Range {
    const std::byte* data;
    uint32_t size;
    Command* finishes;
  };

  void extend_message();
  void consume(uint64_t bytes);

  static constexpr size_t kMaxRanges = 128;  // of one message

  Ring& ring_;
  int fd_;
  Listener& listener_;
  RingOp op_;
  bool sending_ = false;
  bool consuming_ = false;
  uint64_t sent_bytes_ = 0;
  std::vector<Range> ranges_;
  size_t head_ = 0;
  msghdr message_{};
  std::array<iovec, kMaxRanges> vectors_;
};

}  // namespace pando::nvme
