// The handshake of one NBD client: fixed newstyle, from the greeting to the chosen volume.
//
// One option at a time: the next one is looked at when the answer to the last has been sent, so a
// client makes the server hold one option and one answer. A list of volumes, which may be long, is
// encoded piece by piece.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "block_io.h"
#include "nbd_socket.h"
#include "nbd_spec.h"

namespace pando {

/// The id that this server gives base:allocation, its only metadata context.
inline constexpr uint32_t kBaseAllocationId = 1;

/// What the two sides agreed on.
struct NbdSession {
  BlockVolume* volume = nullptr;
  bool structured_replies = false;
  bool base_allocation = false;  // the client may ask for block status
};

/// The transmission flags that `volume` is offered with.
uint16_t nbd_transmission_flags(const BlockVolume& volume, bool structured_replies);

class NbdNegotiation {
 public:
  class User {
   public:
    /// The client has its volume, opened for it and now the user's to close, and starts to send
    /// requests.
    virtual void on_negotiated(const NbdSession& session) = 0;
    /// An answer that close() had to wait for has arrived.
    virtual void on_negotiation_idle() = 0;

   protected:
    ~User() = default;
  };

  NbdNegotiation(NbdSocket& socket, Exports& exports, User& user);

  void start();
  void on_received();
  /// False while the control plane owes an answer: the object must outlive it.
  bool idle() const { return !waiting_; }

 private:
  enum class State : uint8_t {
    kClientFlags,  // greeting queued, the client's flags are next
    kOptions,
    kDone,  // negotiated, or the connection is about to end
  };
  struct ExportChoice;

  void pump();
  void handle_option(uint32_t option, std::span<const std::byte> data);
  void handle_export_name(std::span<const std::byte> data);
  void handle_choice(uint32_t option, std::span<const std::byte> data);
  void handle_list(std::span<const std::byte> data);
  void handle_meta_context(uint32_t option, std::span<const std::byte> data);

  void open(uint32_t option, ExportChoice choice);
  void on_opened(uint32_t option, const ExportChoice& choice, const OpenResult& result);
  void describe(uint32_t option, const ExportChoice& choice, const BlockVolume& volume);
  void finish(BlockVolume* volume, const std::string& name);
  void list_some();

  void append(const void* data, size_t size);
  void append_reply(uint32_t option, uint32_t type, const void* data, size_t size);
  void append_error(uint32_t option, uint32_t type, const char* message);
  void send_reply();
  void on_sent();

  NbdSocket& socket_;
  Exports& exports_;
  User& user_;
  State state_ = State::kClientFlags;
  bool no_zeroes_ = false;
  bool waiting_ = false;  // for Exports
  bool replying_ = false;
  bool close_when_sent_ = false;

  NbdSession session_;
  std::string meta_context_export_;
  bool meta_context_set_ = false;

  std::vector<ExportEntry> list_;
  size_t listed_ = 0;
  bool listing_ = false;

  std::vector<std::byte> reply_;
  NbdOutgoing out_;
};

}  // namespace pando
