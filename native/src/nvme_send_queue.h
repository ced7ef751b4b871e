// What a connection still has to send: a list of borrowed byte ranges, sent in order by one sendmsg
// at a time.
//
// Replies that come in one turn of the reactor go out together. The first one prepares the
// operation; later ones lengthen the message, which the kernel reads when the ring submits at the
// end of the turn. Should it have been submitted before, the result says how much was taken, and
// the rest goes with the next one.
//
// Over TLS it is ciphertext that is sent: a batch is encrypted, sent whole, and only then are its
// ranges done with. The plain path knows nothing of that.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "nvme_command.h"
#include "ring.h"

namespace pando::nvme {

class TlsStream;

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
  ~SendQueue();

  /// From now on everything goes through `tls`, which must outlive it; what it has to say itself
  /// too. Nothing may have been sent before.
  void secure(TlsStream& tls);
  /// `data` must stay until it is sent. `finishes`: the command whose last range this is.
  void push(const void* data, uint32_t size, Command* finishes = nullptr);
  /// Sends what is queued, unless a send is on its way already.
  void flush();
  /// Forgets what is queued; a send on its way still ends with on_send_done().
  void clear();
  void cancel();

  bool sending() const { return sending_; }
  bool empty() const { return head_ == ranges_.size() && !owes_ciphertext(); }
  uint64_t sent_bytes() const { return sent_bytes_; }

 private:
  struct Range {
    const std::byte* data;
    uint32_t size;
    Command* finishes;
  };

  struct Secure;

  void extend_message();
  void consume(uint64_t bytes);
  void flush_secure();
  void consume_secure(uint64_t bytes);
  bool encrypt();
  bool owes_ciphertext() const;

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
  std::unique_ptr<Secure> secure_;
};

}  // namespace pando::nvme
