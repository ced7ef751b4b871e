// One TCP connection, which is one queue once its Connect has been answered: takes PDUs apart,
// keeps the commands that they carry, and puts replies together.
//
//            ICReq             Connect                 fault
//   kFresh ────────► kNegotiated ────────► kLive        any ────────► kTerminating ─► kClosed
//
// Memory is bounded: as many commands as the queue has entries, their data within what a
// connection, a host and all of them may hold (nvme_budget.h), and one receive buffer. Past that it
// stops reading, and the peer waits; but not while data that was asked for is still to come, which
// may be behind what cannot be taken. A peer that owes data and sends nothing is put out, and so is
// one that sends more commands than its queue holds in place of it. A connection outlives its
// socket until the volume has finished with its last buffer.
//
// What comes first says whether it is TLS (nvme_secure.cc): then the bytes that PDUs are taken from
// are what has been decrypted, and the rest is the same.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "buffer.h"
#include "nvme_command.h"
#include "nvme_listener.h"
#include "nvme_pdu.h"
#include "nvme_send_queue.h"
#include "nvme_tls.h"
#include "reactor.h"

namespace pando::nvme {

class Controller;
class Target;

/// What Connect settles about a queue.
struct QueueSettings {
  uint16_t queue_id = 0;  // 0: admin
  uint16_t entries = 0;
  bool flow_control = true;  // the host watches SQHD
};

class Connection final : private SendQueue::Listener {
 public:
  Connection(Target& target, uint64_t id, int fd, std::string peer);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() override;

  void start();
  /// Drops the socket; what the volume still works on finishes by itself. Harmless when closed.
  void close();

  /// Takes no more, answers what runs, and closes then.
  void drain();
  void check_drained();
  /// The same, whatever other queues its controller has.
  void drain_alone();
  /// Abort (Base 5.1): true if the command with this id had not begun, and is answered now.
  bool abort(uint16_t cid);

  /// Something of the memory that all share has been given back.
  void memory_available();

  /// Answers `command`, which is executing or held.
  void reply(Command& command, const Reply& reply);
  /// `command` gets no answer for now (async event request).
  void hold(Command& command);
  /// Connect succeeded: from now on this is a queue of `controller`.
  void become_queue(Controller& controller, const QueueSettings& settings);
  /// Whom a Connect under way asks for, so that fencing finds it.
  void set_applicant(const std::string& subsystem_nqn, const std::string& host_nqn);
  bool applies_for(const std::string& subsystem_nqn, const std::string& host_nqn) const;

  /// False if a step is under way. Each step that has begun is ended.
  bool begin_authentication_step();
  void end_authentication_step(bool authenticated);
  /// It need not authenticate, or has.
  bool trusted() const { return trusted_; }

  /// Over TLS; then a Connect has to name these two.
  bool secure() const { return tls_ != nullptr; }
  const std::string& secure_host() const { return secure_host_; }
  const std::string& secure_subsystem() const { return secure_subsystem_; }

  Target& target() { return target_; }
  Controller* controller() { return controller_; }
  uint64_t id() const { return id_; }
  uint16_t queue_id() const { return queue_.queue_id; }
  const std::string& peer() const { return peer_; }
  /// Still waits to be a queue: neither closed nor ending, whatever the answer to its Connect.
  bool may_become_queue() const { return state_ == State::kNegotiated && controller_ == nullptr; }
  Place local() const { return local_place(fd_); }

 private:
  enum class State : uint8_t {
    kFresh,        // before ICReq
    kNegotiated,   // Connect is expected, or being answered
    kLive,         // a queue of a controller
    kTerminating,  // C2HTermReq is going out; what comes in is thrown away
    kClosed,       // no socket any more; waits for the volume and the ring
  };
  enum class Phase : uint8_t { kHeader, kSkip, kData, kTrailer };

  // Receiving (nvme_receive.cc)
  void arm_receive();
  void on_received(int32_t result);
  void process();
  bool takes_more() const;
  bool step();
  bool step_header();
  void step_skip();
  void step_data();
  bool step_trailer();
  void after_data();
  size_t available() const { return receive_end_ - receive_begin_; }
  bool take_icreq();
  bool take_capsule(const PduLayout& layout);
  bool take_h2c_data(const PduLayout& layout);
  void begin_pdu_data(const PduLayout& layout, Command* command, uint32_t offset);
  void skip_pdu_data(const PduLayout& layout);
  bool terminate(const PduFault& fault);
  void resume();
  void grow_receive_buffer();
  bool awaits_data() const;
  void watch_receiving();

  // TLS (nvme_secure.cc)
  bool settle_transport();
  void begin_tls();
  void advance_tls();
  void take_tls_key(TlsKey key);
  bool decrypt();
  void refuse_transport(const std::string& reason);
  void say_goodbye();

  // Commands (nvme_connection.cc)
  Status plan_transfer(Command& command, uint32_t capsule_bytes) const;
  Status admit(const Command& command) const;
  Command* take_command();
  bool is_overfull() const;
  void release(Command& command);
  uint32_t bytes_of(const Command& command) const;
  bool reserve(Command& command);
  void force_reserve(Command& command);
  void reserve_and_start(Command& command);
  void start_waiting();
  void start(Command& command);
  void dispatch(Command& command);
  void fail(Command& command, Status status);
  void set_connect_timer();
  void become_trusted();
  void check_finished();

  // Sending (nvme_reply.cc)
  void request_data(Command& command);
  void send_data(Command& command, uint32_t bytes, bool last_word);
  void send_response(Command& command, const Reply& reply);
  bool may_skip_response(const Reply& reply);
  void on_sent(Command& command) override;
  void on_send_done(int32_t result) override;
  void watch_sending();

  Target& target_;
  const uint64_t id_;
  int fd_;
  const std::string peer_;
  State state_ = State::kFresh;
  bool retired_ = false;
  Controller* controller_ = nullptr;
  QueueSettings queue_;
  PduRules rules_;
  uint8_t host_alignment_ = 0;  // HPDA
  std::string applicant_subsystem_;
  std::string applicant_host_;
  bool trusted_ = false;
  bool authentication_known_ = false;  // the control plane has something of it
  bool authenticating_ = false;

  // TLS: null and empty on a plain connection
  bool transport_settled_ = false;
  bool awaiting_tls_key_ = false;
  uint32_t tls_bytes_ = 0;  // charged to secure_host_
  std::unique_ptr<TlsStream> tls_;
  Buffer ciphertext_;
  std::string secure_host_;
  std::string secure_subsystem_;

  // Receiving
  RingOp receive_op_;
  bool receiving_ = false;
  bool receiving_direct_ = false;  // into a command's buffer
  bool paused_ = false;            // no free command
  bool draining_ = false;
  bool draining_alone_ = false;
  bool processing_ = false;
  Buffer receive_buffer_;
  size_t receive_begin_ = 0;
  size_t receive_end_ = 0;
  Phase phase_ = Phase::kHeader;
  alignas(8) std::array<std::byte, kMaxHeaderBytes + kDigestBytes> header_;
  PduLayout layout_{};
  uint32_t skip_bytes_ = 0;
  Command* data_command_ = nullptr;
  uint32_t data_offset_ = 0;  // in the command's buffer
  uint32_t data_left_ = 0;

  // Commands
  std::vector<std::unique_ptr<Command>> commands_;
  std::vector<Command*> free_commands_;
  std::deque<Command*> waiting_;
  uint32_t reserved_bytes_ = 0;
  uint32_t executing_ = 0;
  uint16_t queue_head_ = 0;          // SQHD
  uint16_t silent_completions_ = 0;  // since the host last saw SQHD

  // Sending
  SendQueue send_queue_;
  IcPdu ic_response_{};
  alignas(8) std::array<std::byte, kMaxTermReqBytes> term_request_;
  TimerId connect_timer_ = 0;
  TimerId stall_timer_ = 0;
  TimerId data_timer_ = 0;
  uint64_t received_bytes_ = 0;
  uint64_t data_mark_ = 0;
  uint64_t stall_mark_ = 0;
};

}  // namespace pando::nvme
