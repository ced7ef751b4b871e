// TLS 1.3 with a pre-shared key (TCP 3.6.1, RFC 8446): bytes of a socket on one side, bytes of PDUs
// on the other, no socket and no clock in between. OpenSSL does the work, a static one that nobody
// outside sees: Node has its own.
//
// Only what the transport's specification asks for is on: version 1.3, its two cipher suites, a key
// with an ephemeral exchange; no certificates, tickets, early data or renegotiation. The exchange's
// groups are those that cost microseconds. Which key a ClientHello is about the control plane says;
// until it has, the handshake rests. A peer may renew its keys, but not to keep us busy.
//
// Not here: who may connect (nvme_fabrics.cc), when bytes come and go (nvme_secure.cc,
// nvme_send_queue.cc).
#pragma once

#include <openssl/ssl.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "block_io.h"

namespace pando::nvme {

/// RFC 8446 5.1: what one record holds at most.
inline constexpr size_t kTlsRecordBytes = 16 * 1024;
/// What a peer may send before it has shown that it has a key.
inline constexpr size_t kTlsHandshakeBytes = 16 * 1024;
/// The first byte of a ClientHello; an ICReq begins with 0.
inline constexpr uint8_t kTlsHandshakeRecord = 22;

struct FreeOpenSsl {
  void operator()(OSSL_LIB_CTX* context) const { OSSL_LIB_CTX_free(context); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(SSL_SESSION* session) const { SSL_SESSION_free(session); }
  void operator()(BIO_METHOD* method) const { BIO_meth_free(method); }
};
template <typename T>
using OpenSslPtr = std::unique_ptr<T, FreeOpenSsl>;

/// What all streams of a target have in common.
class TlsContext {
 public:
  /// Throws std::runtime_error where OpenSSL lacks something.
  TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  SSL_CTX* ssl() const { return ssl_.get(); }
  BIO_METHOD* method() const { return method_.get(); }
  /// Where small pieces are put together to a record.
  std::array<std::byte, kTlsRecordBytes>& staging() { return staging_; }

 private:
  OpenSslPtr<OSSL_LIB_CTX> library_;
  OpenSslPtr<BIO_METHOD> method_;
  OpenSslPtr<SSL_CTX> ssl_;
  std::array<std::byte, kTlsRecordBytes> staging_;
};

class TlsStream {
 public:
  enum class Progress : uint8_t {
    kWantsInput,
    kWantsKey,  // see hello(); give_key(), then handshake() again
    kDone,
    kFailed,  // see failure(); an alert may be in output()
  };

  /// `context` must outlive it. Throws std::bad_alloc.
  explicit TlsStream(TlsContext& context);
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;
  ~TlsStream();

  /// From the socket. It is read in place: it must stay until hungry().
  void feed(const std::byte* data, size_t size);
  bool hungry() const { return input_size_ == 0; }

  Progress handshake();
  bool established() const { return established_; }
  /// The ClientHello, from its handshake header on.
  const std::vector<std::byte>& hello() const { return hello_; }
  /// Without an identity: there is none.
  void give_key(TlsKey key);

  /// Plain bytes; 0 when it needs more input, -1 when there will never be any: ended() or
  /// failure().
  int read(std::byte* to, size_t size);
  /// At most a record. False: the stream is broken.
  bool write(const std::byte* data, size_t size);
  /// Tells the peer that nothing comes after this.
  void end();

  /// The peer has ended the stream, as it should.
  bool ended() const { return ended_; }
  const std::string& failure() const { return failure_; }
  /// For the socket; the caller takes it away.
  std::vector<std::byte>& output() { return output_; }
  TlsContext& context() { return context_; }

 private:
  friend struct TlsCallbacks;
  void fail(const char* otherwise);

  TlsContext& context_;
  OpenSslPtr<SSL> ssl_;
  const std::byte* input_ = nullptr;
  size_t input_size_ = 0;
  std::vector<std::byte> output_;
  std::vector<std::byte> hello_;
  TlsKey key_;
  bool key_known_ = false;
  bool established_ = false;
  bool ended_ = false;
  bool abused_ = false;
  size_t handshake_bytes_ = 0;
  uint64_t read_bytes_ = 0;
  uint64_t key_updates_ = 0;
  std::string failure_;
};

}  // namespace pando::nvme
