// The requests of one NBD client on its volume: parsed from the socket in batches, started as
// BlockIos, answered in whatever order they complete.
//
//   header complete -> [payload arrives] -> volume -> reply queued -> reply sent -> slot free
//
// Invariant: whatever the client does, it holds at most kQueueDepth requests and kMaxDataBytes of
// buffers. A request counts until its reply is *sent*; a client that reads no replies stops being
// read.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "block_io.h"
#include "buffer.h"
#include "nbd_negotiation.h"
#include "nbd_socket.h"
#include "nbd_spec.h"

namespace pando {

class NbdTransmission {
 public:
  class User {
   public:
    /// No request is with the volume any more. Called after each last one, open or closed.
    virtual void on_transmission_idle() = 0;
    /// The client has taken its leave, and has every reply. It waits for the end of the connection.
    virtual void on_disconnected() = 0;

   protected:
    ~User() = default;
  };

  NbdTransmission(NbdSocket& socket, BufferPool& buffers, const NbdSession& session, User& user);
  NbdTransmission(const NbdTransmission&) = delete;
  NbdTransmission& operator=(const NbdTransmission&) = delete;
  ~NbdTransmission();

  /// Handles what has arrived and receives more, as far as the limits allow.
  void pump();
  void on_received();
  /// False while the volume holds a request: the object must outlive it.
  bool idle() const { return in_volume_ == 0; }

  static constexpr size_t kQueueDepth = 128;
  static constexpr size_t kMaxDataBytes = 8 << 20;

 private:
  struct Request;
  enum class Parsed : uint8_t { kRequest, kNeedBytes, kNeedRoom };

  Parsed parse_one();
  uint32_t check(const nbd::Request& header) const;
  Request* take_slot(const nbd::Request& header);
  void free_slot(Request* request);
  void start_write(Request* request);
  void start(Request* request);
  void submit(Request* request);
  void on_done(Request* request);

  void start_map(Request* request);
  bool add_extents(Request* request);

  void reply(Request* request, uint32_t error);
  void on_sent(Request* request);

  NbdSocket& socket_;
  BufferPool& buffers_;
  const NbdSession session_;
  User& user_;
  std::vector<Request> requests_;
  Request* free_ = nullptr;
  size_t used_ = 0;           // slots
  size_t in_volume_ = 0;      // requests
  size_t data_bytes_ = 0;     // capacity of the buffers of used slots
  Request* write_ = nullptr;  // its payload is arriving
  bool disconnecting_ = false;
};

}  // namespace pando
