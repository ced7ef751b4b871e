// The line between those who serve volumes (NBD, NVMe/TCP, the load generator) and those who are
// one.
//
// A front end knows only BlockVolume, BlockIo and Exports; a volume knows nothing of sockets.
// Everything here runs on the reactor thread of the pool, so there is no lock, and a completion may
// arrive inside submit() only where said.
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace pando {

/// The unit in which volumes are addressed: offset and length of every BlockIo are multiples of it.
inline constexpr uint32_t kSectorSize = 4096;

/// The largest single BlockIo that carries data. Discard and write zeroes are bounded by the
/// volume's size only.
inline constexpr uint32_t kMaxIoBytes = 1 << 20;

enum class IoOp : uint8_t {
  kRead,
  kWrite,
  kFlush,
  kDiscard,      // whole blocks become holes; the ragged ends are left alone
  kWriteZeroes,  // the whole range reads as zero afterwards
  kMap,          // fills `extents`: which parts of the range hold data
};

enum class IoStatus : uint8_t {
  kOk,
  kIoError,  // the device failed, or the pool is poisoned after a failure
  kNoSpace,  // the pool has no free block for this write (NVMe Capacity Exceeded, ENOSPC)
  kOutOfRange,
  kInvalid,  // not a multiple of kSectorSize, or too long
  kReadOnly,
  kClosed,  // the volume was closed before the request started
};

struct MapExtent {
  uint64_t length_bytes;
  bool data;  // false: a hole, reads as zero
};

/// One request. The submitter owns it, and its data buffer, until `done` has been called; it is
/// called exactly once.
struct BlockIo {
  IoOp op = IoOp::kRead;
  bool fua = false;  // write, discard and write zeroes: durable before done
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
  std::byte* data =
      nullptr;  // 4 KiB-aligned (see buffer.h); length_bytes long; read and write only
  std::vector<MapExtent>* extents = nullptr;  // kMap only; appended to
  IoStatus status = IoStatus::kOk;
  void (*done)(BlockIo* io) = nullptr;
  void* context = nullptr;  // the submitter's

  BlockIo* next = nullptr;  // the volume's, while it owns the request
};

/// A volume as a front end sees it.
class BlockVolume {
 public:
  virtual ~BlockVolume() = default;
  /// Starts `io`. `done` may be called before submit() returns.
  virtual void submit(BlockIo* io) = 0;
  virtual uint64_t size_bytes() const = 0;
  /// The unit of allocation: what hosts should align to and discard in.
  virtual uint32_t block_size() const = 0;
  /// What the device writes whole or not at all across power loss, in bytes (512 or 4096).
  virtual uint32_t atomic_unit() const = 0;
  virtual bool read_only() const = 0;
  /// RFC 4122 bytes, in the order they are printed. The same for the life of the volume.
  virtual const std::array<uint8_t, 16>& uuid() const = 0;
  virtual const std::string& name() const = 0;
};

enum class FrontEnd : uint8_t { kNbd, kNvmeTcp, kUblk, kNbdDevice };

enum class OpenStatus : uint8_t {
  kOk,
  kNotFound,
  kDenied,  // the host is not on the volume's list
  kBusy,    // another front end serves the volume
  kError,
};

/// As a caller of the kernel is told; 0 for kOk.
inline int errno_of(OpenStatus status) {
  switch (status) {
    case OpenStatus::kOk:
      return 0;
    case OpenStatus::kNotFound:
      return ENOENT;
    case OpenStatus::kDenied:
      return EPERM;
    case OpenStatus::kBusy:
      return EBUSY;
    case OpenStatus::kError:
      return EIO;
  }
  return EIO;
}

struct OpenRequest {
  FrontEnd front_end;
  std::string name;      // NVMe: subsystem NQN; NBD: export name; devices of ublk and NBD: volume
  std::string host_nqn;  // NVMe only
  std::string peer;      // for logs: address of the other side
  bool secure = false;   // NVMe: over TLS, with a key of this host's
};

struct OpenResult {
  OpenStatus status = OpenStatus::kError;
  BlockVolume* volume = nullptr;  // non-null with kOk; stays valid until close()
  bool authenticate = false;      // NVMe: the host gets nothing before it has proved who it is
};

/// A step of a queue's authentication: a message of the host's, or, empty, its wish for ours.
struct AuthStep {
  uint64_t connection;  // never used again
  std::string subsystem_nqn;
  std::string host_nqn;
  std::string peer;
  std::vector<std::byte> message;
};

enum class AuthVerdict : uint8_t { kPending, kAuthenticated, kFailed };

struct AuthAnswer {
  AuthVerdict verdict = AuthVerdict::kFailed;
  std::vector<std::byte> message;  // for the host, if it wished for one
};

/// A connection begins with TLS: which key is it about?
struct TlsHello {
  std::string peer;
  std::vector<std::byte> hello;  // the ClientHello, from its handshake header on
};

struct TlsKey {
  std::string identity;  // that of the ClientHello that was chosen; empty: there is no key
  bool sha384 = false;   // else SHA-256: with which hash, and so which cipher, it is used
  std::vector<std::byte> secret;
  std::string host_nqn;  // to whom it belongs, and for what
  std::string subsystem_nqn;
};

/// One subsystem that a host may connect to.
struct ExportEntry {
  std::string name;     // NVMe: subsystem NQN; NBD: volume name
  bool secure = false;  // NVMe: over TLS only
};

/// Finds and opens volumes for front ends; answered by the control plane. One open() is balanced by
/// one close(). A volume stays open for as long as somebody holds it, and costs nothing while
/// nobody does.
class Exports {
 public:
  virtual ~Exports() = default;
  /// `done` is called once, on the reactor thread, perhaps before open() returns.
  virtual void open(OpenRequest request, std::function<void(OpenResult)> done) = 0;
  virtual void close(FrontEnd front_end, BlockVolume* volume, const std::string& host_nqn) = 0;
  /// What `host_nqn` may connect to (NVMe discovery), or all names (NBD, where host_nqn is empty).
  virtual void list(FrontEnd front_end, std::string host_nqn,
                    std::function<void(std::vector<ExportEntry>)> done) = 0;
  /// One step at a time for each connection; answered as open() is. Where nobody has keys, nobody
  /// is asked for them.
  virtual void authenticate(AuthStep, std::function<void(AuthAnswer)> done) { done({}); }
  /// A connection that has begun to authenticate has gone.
  virtual void authentication_ended(uint64_t) {}
  /// Answered as open() is.
  virtual void tls_key(TlsHello, std::function<void(TlsKey)> done) { done({}); }
  /// For logs: why the connection of this peer is ended.
  virtual void refused(std::string /*peer*/, std::string /*reason*/) {}
};

}  // namespace pando
