// The byte stream of one NBD client: what has arrived and is not consumed yet, what waits to be
// sent.
//
// At most one receive and one send are in flight. Everything queued while a send is under way goes
// out with the next one, so replies coalesce under load by themselves. Bounded by its users: the
// receive buffer has a fixed size, and an item in the send queue belongs to one of a fixed number
// of requests.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "reactor.h"

namespace pando {

/// One message to the client: a small head, copied in, and a payload that its owner keeps alive.
/// Owned by who queued it until `sent`, or until the socket is closed and settled.
struct NbdOutgoing {
  template <typename Head>
  void set_head(const Head& value) {
    static_assert(sizeof(Head) <= sizeof(head));
    std::memcpy(head.data(), &value, sizeof(Head));
    head_size = sizeof(Head);
  }

  std::array<std::byte, 32> head;
  size_t head_size = 0;
  const std::byte* payload = nullptr;
  size_t payload_size = 0;
  void (*sent)(NbdOutgoing* item) = nullptr;
  void* context = nullptr;

  NbdOutgoing* next = nullptr;  // the socket's, while it is queued
};

class NbdSocket {
 public:
  /// Called from completions of the ring only, so never inside a call of NbdSocket but close().
  class User {
   public:
    /// A receive() or receive_into() has completed.
    virtual void on_received() = 0;
    /// The socket is closed and no operation on it is in flight. Called once.
    virtual void on_settled() = 0;

   protected:
    ~User() = default;
  };

  /// Takes over `fd`.
  NbdSocket(Reactor& reactor, int fd, User& user);
  NbdSocket(const NbdSocket&) = delete;
  NbdSocket& operator=(const NbdSocket&) = delete;
  ~NbdSocket();

  /// What has arrived; valid until the next receive() or skip().
  std::span<const std::byte> received() const { return {buffer_.data() + begin_, end_ - begin_}; }
  void consume(size_t size);
  /// Throws away the next `size` bytes of the stream, those that are yet to come included.
  void skip(uint64_t size);

  /// Waits for more bytes. Nothing happens if it waits already or is closed.
  void receive();
  /// Waits for exactly `size` bytes, for the caller's memory; received() must be empty.
  void receive_into(std::byte* data, size_t size);
  bool receiving() const { return receiving_; }

  void send(NbdOutgoing* item);

  /// Ends the connection: on_settled() follows, perhaps before close() returns. Harmless twice.
  void close();
  bool closed() const { return closed_; }
  bool settled() const { return closed_ && !receiving_ && !sending_; }

  static constexpr size_t kReceiveBytes = 64 << 10;

 private:
  static constexpr size_t kMaxVectors = 64;

  void on_receive_done(int32_t result);
  void on_send_done(int32_t result);
  void start_send();
  void settle();

  Reactor& reactor_;
  int fd_;
  User& user_;
  bool closed_ = false;
  bool told_settled_ = false;

  RingOp receive_op_;
  bool receiving_ = false;
  Buffer buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  uint64_t skip_bytes_ = 0;
  std::byte* direct_ = nullptr;  // where receive_into() goes on
  size_t direct_size_ = 0;

  RingOp send_op_;
  bool sending_ = false;
  NbdOutgoing* first_ = nullptr;
  NbdOutgoing* last_ = nullptr;
  size_t first_sent_ = 0;  // bytes of first_ that are sent
  std::array<iovec, kMaxVectors> vectors_;
  msghdr message_{};
};

}  // namespace pando
