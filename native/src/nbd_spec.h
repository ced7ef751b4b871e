// The NBD protocol's constants and wire structures.
//
// Source: "The NBD protocol", doc/proto.md of the Network Block Device project; the section is
// named at each group. Everything on the wire is big-endian; Be<T> converts and has alignment 1, so
// a struct of them is its wire image.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace pando::nbd {

template <typename T>
class Be {
 public:
  Be() = default;
  Be(T value) {
    for (size_t i = 0; i < sizeof(T); ++i) {
      bytes_[i] = static_cast<uint8_t>(value >> (8 * (sizeof(T) - 1 - i)));
    }
  }
  operator T() const {
    T value = 0;
    for (const uint8_t byte : bytes_) value = static_cast<T>(value << 8 | byte);
    return value;
  }

 private:
  std::array<uint8_t, sizeof(T)> bytes_{};
};

using Be16 = Be<uint16_t>;
using Be32 = Be<uint32_t>;
using Be64 = Be<uint64_t>;

// "Handshake phase", fixed newstyle negotiation.
inline constexpr uint64_t kMagic = 0x4e42444d41474943;        // "NBDMAGIC"
inline constexpr uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr uint64_t kOptionReplyMagic = 0x0003e889045565a9;

inline constexpr uint16_t kFlagFixedNewstyle = 1 << 0;  // handshake flags
inline constexpr uint16_t kFlagNoZeroes = 1 << 1;
inline constexpr uint32_t kClientFixedNewstyle = 1 << 0;  // client flags
inline constexpr uint32_t kClientNoZeroes = 1 << 1;

struct Greeting {
  Be64 magic;
  Be64 option_magic;
  Be16 handshake_flags;
};
static_assert(sizeof(Greeting) == 18);

struct OptionHeader {
  Be64 magic;
  Be32 option;
  Be32 length;
};
static_assert(sizeof(OptionHeader) == 16);

struct OptionReply {
  Be64 magic;
  Be32 option;
  Be32 type;
  Be32 length;
};
static_assert(sizeof(OptionReply) == 20);

/// "Option types".
enum Option : uint32_t {
  kOptExportName = 1,
  kOptAbort = 2,
  kOptList = 3,
  kOptInfo = 6,
  kOptGo = 7,
  kOptStructuredReply = 8,
  kOptListMetaContext = 9,
  kOptSetMetaContext = 10,
};

/// "Option reply types".
enum OptionReplyType : uint32_t {
  kRepAck = 1,
  kRepServer = 2,
  kRepInfo = 3,
  kRepMetaContext = 4,
  kRepErrUnsup = 0x80000001,
  kRepErrPolicy = 0x80000002,
  kRepErrInvalid = 0x80000003,
  kRepErrUnknown = 0x80000006,
  kRepErrTooBig = 0x80000009,
};

/// "NBD_REP_INFO": information types.
enum Info : uint16_t {
  kInfoExport = 0,
  kInfoName = 1,
  kInfoBlockSize = 3,
};

struct InfoExport {
  Be16 type;
  Be64 size_bytes;
  Be16 transmission_flags;
};
static_assert(sizeof(InfoExport) == 12);

struct InfoBlockSize {
  Be16 type;
  Be32 minimum;
  Be32 preferred;
  Be32 maximum;
};
static_assert(sizeof(InfoBlockSize) == 14);

/// The answer to NBD_OPT_EXPORT_NAME. Followed by 124 zero bytes unless both sides agreed to leave
/// them out.
struct ExportNameReply {
  Be64 size_bytes;
  Be16 transmission_flags;
};
static_assert(sizeof(ExportNameReply) == 10);
inline constexpr size_t kExportNameZeroes = 124;

/// "Values of a string": the longest name that a server has to take.
inline constexpr uint32_t kMaxStringBytes = 4096;

// "Transmission flags".
inline constexpr uint16_t kTransmitHasFlags = 1 << 0;
inline constexpr uint16_t kTransmitReadOnly = 1 << 1;
inline constexpr uint16_t kTransmitSendFlush = 1 << 2;
inline constexpr uint16_t kTransmitSendFua = 1 << 3;
inline constexpr uint16_t kTransmitSendTrim = 1 << 5;
inline constexpr uint16_t kTransmitSendWriteZeroes = 1 << 6;
inline constexpr uint16_t kTransmitSendDf = 1 << 7;
inline constexpr uint16_t kTransmitCanMultiConn = 1 << 8;

// "Transmission phase".
inline constexpr uint32_t kRequestMagic = 0x25609513;
inline constexpr uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr uint32_t kChunkMagic = 0x668e33ef;

struct Request {
  Be32 magic;
  Be16 flags;
  Be16 type;
  Be64 cookie;
  Be64 offset;
  Be32 length;
};
static_assert(sizeof(Request) == 28);

/// "Request types".
enum Command : uint16_t {
  kCmdRead = 0,
  kCmdWrite = 1,
  kCmdDisconnect = 2,
  kCmdFlush = 3,
  kCmdTrim = 4,
  kCmdWriteZeroes = 6,
  kCmdBlockStatus = 7,
};

// "Command flags".
inline constexpr uint16_t kCmdFlagFua = 1 << 0;
inline constexpr uint16_t kCmdFlagNoHole = 1 << 1;
inline constexpr uint16_t kCmdFlagDf = 1 << 2;
inline constexpr uint16_t kCmdFlagReqOne = 1 << 3;

struct SimpleReply {
  Be32 magic;
  Be32 error;
  Be64 cookie;
};
static_assert(sizeof(SimpleReply) == 16);

/// "Structured reply chunk message".
struct Chunk {
  Be32 magic;
  Be16 flags;
  Be16 type;
  Be64 cookie;
  Be32 length;
};
static_assert(sizeof(Chunk) == 20);
inline constexpr uint16_t kChunkFlagDone = 1 << 0;

enum ChunkType : uint16_t {
  kChunkOffsetData = 1,
  kChunkBlockStatus = 5,
  kChunkError = 0x8001,
};

/// The head of a kChunkOffsetData chunk; the data follows.
struct OffsetDataChunk {
  Chunk chunk;
  Be64 offset;
};
static_assert(sizeof(OffsetDataChunk) == 28);

struct ErrorChunk {
  Chunk chunk;
  Be32 error;
  Be16 message_length;
};
static_assert(sizeof(ErrorChunk) == 26);

/// The head of a kChunkBlockStatus chunk; block descriptors follow.
struct BlockStatusChunk {
  Chunk chunk;
  Be32 context;
};
static_assert(sizeof(BlockStatusChunk) == 24);

struct BlockDescriptor {
  Be32 length;
  Be32 state;
};
static_assert(sizeof(BlockDescriptor) == 8);

// "Metadata querying": the base:allocation context.
inline constexpr char kBaseNamespace[] = "base:";
inline constexpr char kBaseAllocation[] = "base:allocation";
inline constexpr uint32_t kStateHole = 1 << 0;
inline constexpr uint32_t kStateZero = 1 << 1;

/// "Error values".
enum Error : uint32_t {
  kOk = 0,
  kEperm = 1,
  kEio = 5,
  kEnomem = 12,
  kEinval = 22,
  kEnospc = 28,
  kEshutdown = 108,
};

/// "Block size constraints": what a client that was told no maximum may send in one request.
inline constexpr uint32_t kDefaultMaxPayloadBytes = 32 << 20;

}  // namespace pando::nbd
