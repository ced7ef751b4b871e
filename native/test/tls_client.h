// The other side of TLS with a pre-shared key, on a blocking socket: OpenSSL's client, which can be
// told to do what a host should not.
#pragma once

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"

namespace pando::test {

struct TlsClientOptions {
  std::string identity;
  std::vector<unsigned char> secret;
  bool sha384 = false;
  /// What it offers; empty: the one suite that fits the key.
  std::string suites;
  const char* groups = "X25519:P-256";
  int version = TLS1_3_VERSION;
};

class TlsClient {
 public:
  /// `fd`: -1 for one that only makes a ClientHello.
  TlsClient(int fd, TlsClientOptions options) : options_(std::move(options)) {
    std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes to sockets that may have ended
    context_ = SSL_CTX_new(TLS_client_method());
    REQUIRE(context_ != nullptr);
    SSL_CTX_set_min_proto_version(context_, options_.version);
    SSL_CTX_set_max_proto_version(context_, options_.version);
    SSL_CTX_set1_groups_list(context_, options_.groups);
    if (options_.version == TLS1_3_VERSION) {
      const std::string own = options_.sha384 ? "TLS_AES_256_GCM_SHA384" : "TLS_AES_128_GCM_SHA256";
      REQUIRE(SSL_CTX_set_ciphersuites(
                  context_, (options_.suites.empty() ? own : options_.suites).c_str()) == 1);
    }
    SSL_CTX_set_psk_use_session_callback(context_, use_session);
    ssl_ = SSL_new(context_);
    REQUIRE(ssl_ != nullptr);
    SSL_set_app_data(ssl_, this);
    if (fd >= 0) SSL_set_fd(ssl_, fd);
    SSL_set_connect_state(ssl_);
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;
  ~TlsClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
  }

  bool handshake() {
    return until_done([this] { return SSL_do_handshake(ssl_); }) == 1;
  }
  bool send(const void* data, size_t size) {
    return until_done([&] { return SSL_write(ssl_, data, static_cast<int>(size)); }) ==
           static_cast<int>(size);
  }
  bool receive(void* data, size_t size) {
    auto* at = static_cast<std::byte*>(data);
    while (size > 0) {
      const int got = until_done([&] { return SSL_read(ssl_, at, static_cast<int>(size)); });
      if (got <= 0) return false;
      at += got;
      size -= static_cast<size_t>(got);
    }
    return true;
  }
  /// The peer has said that nothing comes any more.
  bool told_goodbye() const { return (SSL_get_shutdown(ssl_) & SSL_RECEIVED_SHUTDOWN) != 0; }
  SSL* ssl() { return ssl_; }

  /// The bytes of its first flight: a record with a ClientHello.
  std::vector<std::byte> hello() {
    BIO* out = BIO_new(BIO_s_mem());
    SSL_set_bio(ssl_, BIO_new(BIO_s_mem()), out);
    (void)SSL_do_handshake(ssl_);
    char* data = nullptr;
    const long size = BIO_get_mem_data(out, &data);
    std::vector<std::byte> bytes(static_cast<size_t>(size));
    std::memcpy(bytes.data(), data, bytes.size());
    return bytes;
  }

 private:
  // io_uring interrupts this thread for what it has submitted.
  template <typename F>
  int until_done(const F& step) {
    for (int tries = 0;; ++tries) {
      ERR_clear_error();
      errno = 0;
      const int result = step();
      if (result > 0 || errno != EINTR || tries == 100) return result;
    }
  }

  static int use_session(SSL* ssl, const EVP_MD*, const unsigned char** identity, size_t* size,
                         SSL_SESSION** session) {
    const auto& options = static_cast<TlsClient*>(SSL_get_app_data(ssl))->options_;
    *session = nullptr;
    if (options.identity.empty()) return 1;
    const unsigned char id[] = {0x13, static_cast<unsigned char>(options.sha384 ? 2 : 1)};
    SSL_SESSION* made = SSL_SESSION_new();
    SSL_SESSION_set1_master_key(made, options.secret.data(), options.secret.size());
    SSL_SESSION_set_cipher(made, SSL_CIPHER_find(ssl, id));
    SSL_SESSION_set_protocol_version(made, TLS1_3_VERSION);
    *identity = reinterpret_cast<const unsigned char*>(options.identity.data());
    *size = options.identity.size();
    *session = made;
    return 1;
  }

  TlsClientOptions options_;
  SSL_CTX* context_ = nullptr;
  SSL* ssl_ = nullptr;
};

}  // namespace pando::test
