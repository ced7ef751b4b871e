#include "nvme_tls.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl3.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "assert.h"

namespace pando::nvme {
namespace {

// TCP 3.6.1.2: the mandatory suite and the other one that may be used.
constexpr char kBothSuites[] = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256";
constexpr char kSuiteOfSha256[] = "TLS_AES_128_GCM_SHA256";
constexpr char kSuiteOfSha384[] = "TLS_AES_256_GCM_SHA384";
constexpr unsigned char kIdOfSha256[] = {0x13, 0x01};
constexpr unsigned char kIdOfSha384[] = {0x13, 0x02};
constexpr char kGroups[] = "X25519:P-256:P-384";

// A key update costs us a derivation for some thirty bytes of the peer's.
constexpr uint64_t kFreeKeyUpdates = 16;
constexpr uint64_t kBytesPerKeyUpdate = 1 << 20;

TlsStream& stream_of(const SSL* ssl) {
  return *static_cast<TlsStream*>(SSL_get_app_data(ssl));
}

}  // namespace

// What OpenSSL calls; never with an exception out of here.
struct TlsCallbacks {
  static int read(BIO* bio, char* to, int size) {
    auto& stream = *static_cast<TlsStream*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    if (stream.abused_) return -1;
    if (stream.input_size_ == 0) {
      BIO_set_retry_read(bio);
      return -1;
    }
    const size_t taken = std::min(stream.input_size_, static_cast<size_t>(size));
    std::memcpy(to, stream.input_, taken);
    stream.input_ += taken;
    stream.input_size_ -= taken;
    return static_cast<int>(taken);
  }

  static int write(BIO* bio, const char* data, int size) noexcept {
    auto& output = static_cast<TlsStream*>(BIO_get_data(bio))->output_;
    const auto* bytes = reinterpret_cast<const std::byte*>(data);
    output.insert(output.end(), bytes, bytes + size);
    return size;
  }

  static long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

  static void message(int writes, int, int type, const void* data, size_t size, SSL* ssl,
                      void*) noexcept {
    if (writes != 0 || type != SSL3_RT_HANDSHAKE || size == 0) return;
    TlsStream& stream = stream_of(ssl);
    const auto* bytes = static_cast<const std::byte*>(data);
    const auto kind = std::to_integer<int>(bytes[0]);
    if (kind == SSL3_MT_CLIENT_HELLO && stream.hello_.empty()) {
      stream.hello_.assign(bytes, bytes + size);
    } else if (kind == SSL3_MT_KEY_UPDATE) {
      ++stream.key_updates_;
      const uint64_t earned = stream.read_bytes_ / kBytesPerKeyUpdate;
      if (stream.key_updates_ > kFreeKeyUpdates + earned) stream.abused_ = true;
    }
  }

  static int client_hello(SSL* ssl, int* alert, void*) {
    TlsStream& stream = stream_of(ssl);
    if (stream.hello_.size() > kTlsHandshakeBytes) {
      *alert = SSL_AD_DECODE_ERROR;
      return SSL_CLIENT_HELLO_ERROR;
    }
    if (!stream.key_known_) return SSL_CLIENT_HELLO_RETRY;
    if (stream.key_.identity.empty()) {
      stream.failure_ = "there is no key for it";
      *alert = SSL_AD_UNKNOWN_PSK_IDENTITY;
      return SSL_CLIENT_HELLO_ERROR;
    }
    // The suite is chosen before the key is looked at, and has to be one that fits it.
    const char* suite = stream.key_.sha384 ? kSuiteOfSha384 : kSuiteOfSha256;
    if (SSL_set_ciphersuites(ssl, suite) != 1) {
      *alert = SSL_AD_INTERNAL_ERROR;
      return SSL_CLIENT_HELLO_ERROR;
    }
    return SSL_CLIENT_HELLO_SUCCESS;
  }

  static int find_session(SSL* ssl, const unsigned char* identity, size_t size,
                          SSL_SESSION** found) {
    const TlsKey& key = stream_of(ssl).key_;
    *found = nullptr;
    const std::string_view name(reinterpret_cast<const char*>(identity), size);
    if (key.identity.empty() || name != key.identity) return 1;
    const SSL_CIPHER* cipher = SSL_CIPHER_find(ssl, key.sha384 ? kIdOfSha384 : kIdOfSha256);
    OpenSslPtr<SSL_SESSION> session(SSL_SESSION_new());
    const auto* secret = reinterpret_cast<const unsigned char*>(key.secret.data());
    if (cipher == nullptr || session == nullptr ||
        SSL_SESSION_set1_master_key(session.get(), secret, key.secret.size()) != 1 ||
        SSL_SESSION_set_cipher(session.get(), cipher) != 1 ||
        SSL_SESSION_set_protocol_version(session.get(), TLS1_3_VERSION) != 1) {
      return 0;
    }
    *found = session.release();
    return 1;
  }
};

TlsContext::TlsContext() {
  const auto require = [](bool condition) {
    if (!condition) throw std::runtime_error("OpenSSL cannot do TLS 1.3 with pre-shared keys");
  };
  // Neither the machine's configuration nor the end of the process are its business.
  OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, nullptr);
  require(OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr) == 1);
  library_.reset(OSSL_LIB_CTX_new());
  require(library_ != nullptr);
  ssl_.reset(SSL_CTX_new_ex(library_.get(), nullptr, TLS_server_method()));
  method_.reset(BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "pando"));
  require(ssl_ != nullptr && method_ != nullptr);
  SSL_CTX* context = ssl_.get();
  require(SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
          SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
          SSL_CTX_set_ciphersuites(context, kBothSuites) == 1 &&
          SSL_CTX_set1_groups_list(context, kGroups) == 1 &&
          SSL_CTX_set_num_tickets(context, 0) == 1 && SSL_CTX_set_max_early_data(context, 0) == 1);
  SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_quiet_shutdown(context, 0);
  SSL_CTX_set_client_hello_cb(context, TlsCallbacks::client_hello, nullptr);
  SSL_CTX_set_psk_find_session_callback(context, TlsCallbacks::find_session);
  SSL_CTX_set_msg_callback(context, TlsCallbacks::message);
  require(BIO_meth_set_read(method_.get(), TlsCallbacks::read) == 1 &&
          BIO_meth_set_write(method_.get(), TlsCallbacks::write) == 1 &&
          BIO_meth_set_ctrl(method_.get(), TlsCallbacks::control) == 1);
}

TlsStream::TlsStream(TlsContext& context) : context_(context), ssl_(SSL_new(context.ssl())) {
  BIO* bio = ssl_ == nullptr ? nullptr : BIO_new(context.method());
  if (bio == nullptr) throw std::bad_alloc();
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_.get(), bio, bio);
  SSL_set_app_data(ssl_.get(), this);
  SSL_set_accept_state(ssl_.get());
}

TlsStream::~TlsStream() {
  OPENSSL_cleanse(key_.secret.data(), key_.secret.size());
}

void TlsStream::feed(const std::byte* data, size_t size) {
  PANDO_ASSERT(hungry());
  input_ = data;
  input_size_ = size;
  if (!established_) handshake_bytes_ += size;
}

void TlsStream::give_key(TlsKey key) {
  PANDO_ASSERT(!key_known_);
  key_ = std::move(key);
  key_known_ = true;
}

TlsStream::Progress TlsStream::handshake() {
  PANDO_ASSERT(!established_ && failure_.empty());
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  if (result == 1) {
    established_ = true;
    OPENSSL_cleanse(key_.secret.data(), key_.secret.size());
    hello_ = {};
    return Progress::kDone;
  }
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_CLIENT_HELLO_CB:
      return Progress::kWantsKey;
    case SSL_ERROR_WANT_READ:
      if (handshake_bytes_ <= kTlsHandshakeBytes) return Progress::kWantsInput;
      failure_ = "the handshake is too long";
      return Progress::kFailed;
    default:
      fail("the handshake ended early");
      return Progress::kFailed;
  }
}

int TlsStream::read(std::byte* to, size_t size) {
  PANDO_ASSERT(established_ && size > 0);
  if (ended_ || !failure_.empty()) return -1;
  ERR_clear_error();
  const int want = static_cast<int>(std::min<size_t>(size, 1 << 30));
  const int result = SSL_read(ssl_.get(), to, want);
  if (result > 0) {
    read_bytes_ += static_cast<uint64_t>(result);
    return result;
  }
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return 0;
    case SSL_ERROR_ZERO_RETURN:
      ended_ = true;
      return -1;
    default:
      if (abused_) failure_ = "it renews its keys without end";
      fail("the stream is broken");
      return -1;
  }
}

bool TlsStream::write(const std::byte* data, size_t size) {
  PANDO_ASSERT(established_ && size > 0 && size <= kTlsRecordBytes);
  if (!failure_.empty()) return false;
  ERR_clear_error();
  if (SSL_write(ssl_.get(), data, static_cast<int>(size)) == static_cast<int>(size)) return true;
  fail("it cannot be written to");
  return false;
}

void TlsStream::end() {
  if (!established_ || !failure_.empty()) return;
  ERR_clear_error();
  (void)SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

void TlsStream::fail(const char* otherwise) {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  if (failure_.empty()) failure_ = reason == nullptr ? otherwise : reason;
  ERR_clear_error();
}

}  // namespace pando::nvme
