#include "nbd_transmission.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "assert.h"

namespace pando {
namespace {

// Block status is asked of the volume in steps, and stops at kMaxDescriptors, so that a reply has a
// bound however fragmented the range is. The protocol lets a server describe less than was asked.
constexpr uint64_t kMapStepBytes = 64 << 20;
constexpr size_t kMaxDescriptors = 4096;

static_assert(NbdTransmission::kMaxDataBytes >= kMaxIoBytes, "one request always fits");
static_assert(std::has_single_bit(kMaxIoBytes), "buffers come in powers of two");

/// The error that a failed BlockIo is answered with.
uint32_t error_of(IoStatus status) {
  switch (status) {
    case IoStatus::kOk:
      return nbd::kOk;
    case IoStatus::kIoError:
      return nbd::kEio;
    case IoStatus::kNoSpace:
      return nbd::kEnospc;
    case IoStatus::kOutOfRange:
    case IoStatus::kInvalid:
      return nbd::kEinval;
    case IoStatus::kReadOnly:
      return nbd::kEperm;
    case IoStatus::kClosed:
      return nbd::kEshutdown;
  }
  return nbd::kEio;
}

/// The command flags that a request may carry. FUA is allowed on all of them ("Command flags").
uint16_t allowed_flags(uint16_t command) {
  switch (command) {
    case nbd::kCmdRead:
      return nbd::kCmdFlagFua | nbd::kCmdFlagDf;
    case nbd::kCmdWriteZeroes:
      return nbd::kCmdFlagFua | nbd::kCmdFlagNoHole;
    case nbd::kCmdBlockStatus:
      return nbd::kCmdFlagFua | nbd::kCmdFlagReqOne;
    default:
      return nbd::kCmdFlagFua;
  }
}

IoOp op_of(uint16_t command) {
  switch (command) {
    case nbd::kCmdRead:
      return IoOp::kRead;
    case nbd::kCmdWrite:
      return IoOp::kWrite;
    case nbd::kCmdTrim:
      return IoOp::kDiscard;
    case nbd::kCmdWriteZeroes:
      return IoOp::kWriteZeroes;
    case nbd::kCmdBlockStatus:
      return IoOp::kMap;
    default:
      return IoOp::kFlush;
  }
}

}  // namespace

struct NbdTransmission::Request {
  NbdTransmission* owner = nullptr;
  uint16_t command = 0;
  uint16_t flags = 0;
  uint64_t cookie = 0;
  uint64_t offset = 0;
  uint32_t length = 0;
  BlockIo io;
  Buffer buffer;
  size_t received = 0;  // bytes of a write's payload
  NbdOutgoing out;

  // Block status only.
  std::vector<MapExtent> extents;
  std::vector<nbd::BlockDescriptor> descriptors;
  uint64_t mapped_bytes = 0;
  bool stepping = false;   // start_map() is on the stack
  bool step_done = false;  // the step completed while it was

  Request* next_free = nullptr;
};

NbdTransmission::NbdTransmission(NbdSocket& socket, BufferPool& buffers, const NbdSession& session,
                                 User& user)
    : socket_(socket), buffers_(buffers), session_(session), user_(user), requests_(kQueueDepth) {
  for (Request& request : requests_) {
    request.owner = this;
    request.io.context = &request;
    request.io.done = [](BlockIo* io) {
      auto* done = static_cast<Request*>(io->context);
      done->owner->on_done(done);
    };
    request.out.context = &request;
    request.out.sent = [](NbdOutgoing* item) {
      auto* sent = static_cast<Request*>(item->context);
      sent->owner->on_sent(sent);
    };
    request.next_free = free_;
    free_ = &request;
  }
}

NbdTransmission::~NbdTransmission() {
  PANDO_ASSERT(idle());
}

void NbdTransmission::on_received() {
  if (write_ != nullptr) {
    Request* request = write_;
    write_ = nullptr;
    request->received = request->length;
    start(request);
  }
  pump();
}

void NbdTransmission::pump() {
  while (!socket_.closed() && !socket_.receiving() && !disconnecting_) {
    switch (parse_one()) {
      case Parsed::kRequest:
        break;
      case Parsed::kNeedBytes:
        return socket_.receive();
      case Parsed::kNeedRoom:
        return;  // on_sent() comes back
    }
  }
  if (disconnecting_ && used_ == 0) user_.on_disconnected();
}

/// Takes one request off what has arrived, and starts it.
NbdTransmission::Parsed NbdTransmission::parse_one() {
  const auto bytes = socket_.received();
  nbd::Request header;
  if (bytes.size() < sizeof(header)) return Parsed::kNeedBytes;
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.magic != nbd::kRequestMagic) {
    socket_.close();
    return Parsed::kRequest;
  }
  if (header.type == nbd::kCmdDisconnect) {
    disconnecting_ = true;
    return Parsed::kRequest;
  }
  if (free_ == nullptr) return Parsed::kNeedRoom;

  uint32_t error = check(header);
  const bool writes = header.type == nbd::kCmdWrite;
  const bool has_data = writes || header.type == nbd::kCmdRead;
  const size_t capacity =
      error == nbd::kOk && has_data ? std::bit_ceil(uint32_t{header.length}) : 0;
  if (data_bytes_ + capacity > kMaxDataBytes) return Parsed::kNeedRoom;
  if (writes && header.length > nbd::kDefaultMaxPayloadBytes) {
    socket_.close();  // no client may expect to send that much
    return Parsed::kRequest;
  }

  socket_.consume(sizeof(header));
  Request* request = take_slot(header);
  if (capacity > 0) {
    request->buffer = buffers_.take(header.length);
    if (request->buffer) {
      data_bytes_ += request->buffer.capacity();
    } else {
      error = nbd::kEnomem;
    }
  }
  if (error != nbd::kOk) {
    if (writes) socket_.skip(header.length);
    reply(request, error);
  } else if (writes) {
    start_write(request);
  } else {
    start(request);
  }
  return Parsed::kRequest;
}

/// What a request is refused for before the volume sees it.
uint32_t NbdTransmission::check(const nbd::Request& header) const {
  const uint16_t command = header.type;
  switch (command) {
    case nbd::kCmdRead:
    case nbd::kCmdWrite:
    case nbd::kCmdTrim:
    case nbd::kCmdWriteZeroes:
      break;
    case nbd::kCmdFlush:
      return (header.flags & ~allowed_flags(command)) != 0 ? nbd::kEinval : nbd::kOk;
    case nbd::kCmdBlockStatus:
      if (!session_.base_allocation) return nbd::kEinval;
      break;
    default:
      return nbd::kEinval;
  }
  if ((header.flags & ~allowed_flags(command)) != 0) return nbd::kEinval;
  if ((header.flags & nbd::kCmdFlagDf) != 0 && !session_.structured_replies) return nbd::kEinval;

  const bool has_data = command == nbd::kCmdRead || command == nbd::kCmdWrite;
  const bool modifies = command != nbd::kCmdRead && command != nbd::kCmdBlockStatus;
  if (modifies && session_.volume->read_only()) return nbd::kEperm;
  if (header.offset % kSectorSize != 0 || header.length % kSectorSize != 0 || header.length == 0 ||
      (has_data && header.length > kMaxIoBytes)) {
    return nbd::kEinval;
  }
  const uint64_t size = session_.volume->size_bytes();
  if (header.offset > size || header.length > size - header.offset) {
    // "Error values": past the end is no space for what writes, else a wrong argument.
    return command == nbd::kCmdWrite || command == nbd::kCmdWriteZeroes ? nbd::kEnospc
                                                                        : nbd::kEinval;
  }
  return nbd::kOk;
}

NbdTransmission::Request* NbdTransmission::take_slot(const nbd::Request& header) {
  Request* request = free_;
  free_ = request->next_free;
  ++used_;
  request->command = header.type;
  request->flags = header.flags;
  request->cookie = header.cookie;
  request->offset = header.offset;
  request->length = header.length;
  return request;
}

void NbdTransmission::free_slot(Request* request) {
  data_bytes_ -= request->buffer.capacity();
  request->buffer.reset();
  request->extents = {};
  request->descriptors = {};
  request->next_free = free_;
  free_ = request;
  --used_;
}

/// Collects the payload: what has arrived is copied, the rest goes straight to the buffer.
void NbdTransmission::start_write(Request* request) {
  const auto bytes = socket_.received();
  request->received = std::min<size_t>(bytes.size(), request->length);
  std::memcpy(request->buffer.data(), bytes.data(), request->received);
  socket_.consume(request->received);
  if (request->received == request->length) return start(request);
  write_ = request;
  socket_.receive_into(request->buffer.data() + request->received,
                       request->length - request->received);
}

void NbdTransmission::start(Request* request) {
  BlockIo& io = request->io;
  io.op = op_of(request->command);
  io.offset_bytes = request->offset;
  io.length_bytes = request->length;
  io.data = request->buffer.data();
  io.extents = nullptr;
  io.fua = (request->flags & nbd::kCmdFlagFua) != 0 &&
           (io.op == IoOp::kWrite || io.op == IoOp::kDiscard || io.op == IoOp::kWriteZeroes);
  if (io.op == IoOp::kFlush) io.offset_bytes = io.length_bytes = 0;
  if (io.op == IoOp::kMap) {
    request->mapped_bytes = 0;
    return start_map(request);
  }
  submit(request);
}

void NbdTransmission::submit(Request* request) {
  ++in_volume_;
  request->io.status = IoStatus::kOk;
  session_.volume->submit(&request->io);
}

void NbdTransmission::on_done(Request* request) {
  PANDO_ASSERT(in_volume_ > 0);
  --in_volume_;
  if (request->command == nbd::kCmdBlockStatus && request->io.status == IoStatus::kOk &&
      !socket_.closed()) {
    if (request->stepping) {
      request->step_done = true;
    } else if (add_extents(request)) {
      reply(request, nbd::kOk);
    } else {
      start_map(request);
    }
  } else {
    reply(request, error_of(request->io.status));
  }
  if (idle()) user_.on_transmission_idle();
}

/// Asks the volume step by step. A loop, since a step may complete before submit() returns.
void NbdTransmission::start_map(Request* request) {
  do {
    request->io.offset_bytes = request->offset + request->mapped_bytes;
    request->io.length_bytes = std::min(request->length - request->mapped_bytes, kMapStepBytes);
    request->extents.clear();
    request->io.extents = &request->extents;
    request->step_done = false;
    request->stepping = true;
    submit(request);
    request->stepping = false;
    if (!request->step_done) return;
  } while (!add_extents(request));
  reply(request, nbd::kOk);
}

/// Turns a step's extents into descriptors, neighbours of one kind into one. True when the reply is
/// complete.
bool NbdTransmission::add_extents(Request* request) {
  auto& descriptors = request->descriptors;
  const bool one = (request->flags & nbd::kCmdFlagReqOne) != 0;
  uint64_t left = request->io.length_bytes;
  for (const MapExtent& extent : request->extents) {
    PANDO_ASSERT(extent.length_bytes > 0 && extent.length_bytes <= left);
    const uint32_t state = extent.data ? 0 : nbd::kStateHole | nbd::kStateZero;
    const auto length = static_cast<uint32_t>(extent.length_bytes);
    if (!descriptors.empty() && descriptors.back().state == state) {
      descriptors.back().length = descriptors.back().length + length;
    } else if (descriptors.size() == (one ? 1 : kMaxDescriptors)) {
      return true;
    } else {
      descriptors.push_back({length, state});
    }
    left -= extent.length_bytes;
    request->mapped_bytes += extent.length_bytes;
  }
  PANDO_ASSERT(left == 0);
  return request->mapped_bytes == request->length;
}

void NbdTransmission::reply(Request* request, uint32_t error) {
  NbdOutgoing& out = request->out;
  out.payload = nullptr;
  out.payload_size = 0;
  const bool structured = session_.structured_replies && (request->command == nbd::kCmdRead ||
                                                          request->command == nbd::kCmdBlockStatus);
  // Other commands may be answered with simple replies in either mode ("Structured replies").
  nbd::Chunk chunk{nbd::kChunkMagic, nbd::kChunkFlagDone, 0, request->cookie, 0};
  if (!structured) {
    out.set_head(nbd::SimpleReply{nbd::kSimpleReplyMagic, error, request->cookie});
    if (error == nbd::kOk && request->command == nbd::kCmdRead) {
      out.payload = request->buffer.data();
      out.payload_size = request->length;
    }
  } else if (error != nbd::kOk) {
    chunk.type = nbd::kChunkError;
    chunk.length = sizeof(nbd::ErrorChunk) - sizeof(chunk);
    out.set_head(nbd::ErrorChunk{chunk, error, 0});
  } else if (request->command == nbd::kCmdRead) {
    chunk.type = nbd::kChunkOffsetData;
    chunk.length =
        static_cast<uint32_t>(sizeof(nbd::OffsetDataChunk) - sizeof(chunk)) + request->length;
    out.set_head(nbd::OffsetDataChunk{chunk, request->offset});
    out.payload = request->buffer.data();
    out.payload_size = request->length;
  } else {
    out.payload = reinterpret_cast<const std::byte*>(request->descriptors.data());
    out.payload_size = request->descriptors.size() * sizeof(nbd::BlockDescriptor);
    chunk.type = nbd::kChunkBlockStatus;
    chunk.length =
        static_cast<uint32_t>(sizeof(nbd::BlockStatusChunk) - sizeof(chunk) + out.payload_size);
    out.set_head(nbd::BlockStatusChunk{chunk, kBaseAllocationId});
  }
  socket_.send(&out);
}

void NbdTransmission::on_sent(Request* request) {
  free_slot(request);
  pump();
}

}  // namespace pando
