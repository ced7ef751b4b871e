#include "nbd_negotiation.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "assert.h"

namespace pando {
namespace {

using nbd::Be16;
using nbd::Be32;

/// Longer options are answered with NBD_REP_ERR_TOO_BIG. The longest name with more queries than
/// anybody sends; fits the receive buffer together with its header.
constexpr uint32_t kMaxOptionBytes = 32 << 10;
static_assert(kMaxOptionBytes + sizeof(nbd::OptionHeader) <= NbdSocket::kReceiveBytes);

constexpr size_t kListPieceBytes = 64 << 10;

/// Takes values off the front of an option's data. Anything that is not there makes it bad for
/// good.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> data) : data_(data) {}

  template <typename T>
  T take() {
    nbd::Be<T> value(0);
    if (take_bytes(sizeof(value)).size() == sizeof(value)) {
      std::memcpy(&value, taken_.data(), sizeof(value));
    }
    return value;
  }

  /// A 32-bit length and as many bytes.
  std::string take_string() {
    const auto size = take<uint32_t>();
    if (size > nbd::kMaxStringBytes) bad_ = true;
    const auto bytes = take_bytes(bad_ ? 0 : size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  bool ok() const { return !bad_; }
  bool ok_and_empty() const { return !bad_ && data_.empty(); }

 private:
  std::span<const std::byte> take_bytes(size_t size) {
    if (size > data_.size()) bad_ = true;
    taken_ = bad_ ? std::span<const std::byte>{} : data_.first(size);
    data_ = data_.subspan(taken_.size());
    return taken_;
  }

  std::span<const std::byte> data_;
  std::span<const std::byte> taken_;
  bool bad_ = false;
};

const char* open_error_message(OpenStatus status) {
  switch (status) {
    case OpenStatus::kOk:
      return "";
    case OpenStatus::kNotFound:
      return "no volume of this name";
    case OpenStatus::kDenied:
      return "the volume may not be opened by this client";
    case OpenStatus::kBusy:
      return "the volume is served by another front end";
    case OpenStatus::kError:
      return "the volume cannot be opened";
  }
  return "";
}

}  // namespace

struct NbdNegotiation::ExportChoice {
  std::string name;
  bool wants_name = false;
};

uint16_t nbd_transmission_flags(const BlockVolume& volume, bool structured_replies) {
  // A volume's flush covers every write completed before it, whichever connection it came from:
  // that is what NBD_FLAG_CAN_MULTI_CONN promises.
  uint16_t flags = nbd::kTransmitHasFlags | nbd::kTransmitSendFlush | nbd::kTransmitSendFua |
                   nbd::kTransmitSendTrim | nbd::kTransmitSendWriteZeroes |
                   nbd::kTransmitCanMultiConn;
  if (volume.read_only()) flags |= nbd::kTransmitReadOnly;
  if (structured_replies) flags |= nbd::kTransmitSendDf;
  return flags;
}

NbdNegotiation::NbdNegotiation(NbdSocket& socket, Exports& exports, User& user)
    : socket_(socket), exports_(exports), user_(user) {
  out_.context = this;
  out_.sent = [](NbdOutgoing* item) { static_cast<NbdNegotiation*>(item->context)->on_sent(); };
}

void NbdNegotiation::start() {
  const nbd::Greeting greeting{nbd::kMagic, nbd::kOptionMagic,
                               nbd::kFlagFixedNewstyle | nbd::kFlagNoZeroes};
  append(&greeting, sizeof(greeting));
  send_reply();
}

void NbdNegotiation::on_received() {
  pump();
}

void NbdNegotiation::pump() {
  while (!socket_.closed() && !socket_.receiving() && !replying_ && !waiting_ &&
         state_ != State::kDone) {
    const auto bytes = socket_.received();
    if (state_ == State::kClientFlags) {
      Be32 flags;
      if (bytes.size() < sizeof(flags)) return socket_.receive();
      std::memcpy(&flags, bytes.data(), sizeof(flags));
      socket_.consume(sizeof(flags));
      const uint32_t known = nbd::kClientFixedNewstyle | nbd::kClientNoZeroes;
      if ((flags & ~known) != 0 || (flags & nbd::kClientFixedNewstyle) == 0) {
        return socket_.close();
      }
      no_zeroes_ = (flags & nbd::kClientNoZeroes) != 0;
      state_ = State::kOptions;
      continue;
    }

    nbd::OptionHeader header;
    if (bytes.size() < sizeof(header)) return socket_.receive();
    std::memcpy(&header, bytes.data(), sizeof(header));
    if (header.magic != nbd::kOptionMagic) return socket_.close();
    const uint32_t length = header.length;
    if (length > kMaxOptionBytes) {
      // NBD_OPT_EXPORT_NAME has no way to say no.
      if (header.option == nbd::kOptExportName) return socket_.close();
      socket_.consume(sizeof(header));
      socket_.skip(length);
      append_error(header.option, nbd::kRepErrTooBig, "the option is too long");
      return send_reply();
    }
    if (bytes.size() < sizeof(header) + length) return socket_.receive();
    // Consumed first, since an answer may come, and the next option be wanted, before this returns.
    // The bytes stay where they are until the next receive().
    socket_.consume(sizeof(header) + length);
    handle_option(header.option, bytes.subspan(sizeof(header), length));
  }
}

void NbdNegotiation::handle_option(uint32_t option, std::span<const std::byte> data) {
  switch (option) {
    case nbd::kOptExportName:
      return handle_export_name(data);
    case nbd::kOptAbort:
      append_reply(option, nbd::kRepAck, nullptr, 0);
      close_when_sent_ = true;
      return send_reply();
    case nbd::kOptList:
      return handle_list(data);
    case nbd::kOptInfo:
    case nbd::kOptGo:
      return handle_choice(option, data);
    case nbd::kOptStructuredReply:
      if (data.empty()) {
        session_.structured_replies = true;
        append_reply(option, nbd::kRepAck, nullptr, 0);
      } else {
        append_error(option, nbd::kRepErrInvalid, "the option takes no data");
      }
      return send_reply();
    case nbd::kOptListMetaContext:
    case nbd::kOptSetMetaContext:
      return handle_meta_context(option, data);
    default:
      append_error(option, nbd::kRepErrUnsup, "the option is not supported");
      return send_reply();
  }
}

void NbdNegotiation::handle_export_name(std::span<const std::byte> data) {
  if (data.size() > nbd::kMaxStringBytes) return socket_.close();
  ExportChoice choice;
  choice.name.assign(reinterpret_cast<const char*>(data.data()), data.size());
  open(nbd::kOptExportName, std::move(choice));
}

void NbdNegotiation::handle_choice(uint32_t option, std::span<const std::byte> data) {
  Reader reader(data);
  ExportChoice choice;
  choice.name = reader.take_string();
  const auto count = reader.take<uint16_t>();
  for (unsigned i = 0; i < count && reader.ok(); ++i) {
    if (reader.take<uint16_t>() == nbd::kInfoName) choice.wants_name = true;
  }
  if (!reader.ok_and_empty()) {
    append_error(option, nbd::kRepErrInvalid, "the option's data is malformed");
    return send_reply();
  }
  open(option, std::move(choice));
}

void NbdNegotiation::open(uint32_t option, ExportChoice choice) {
  waiting_ = true;
  OpenRequest request{FrontEnd::kNbd, choice.name, "", "unix"};
  exports_.open(std::move(request), [this, option, choice = std::move(choice)](OpenResult result) {
    PANDO_ASSERT(waiting_);
    waiting_ = false;
    on_opened(option, choice, result);
    pump();
    user_.on_negotiation_idle();
  });
}

void NbdNegotiation::on_opened(uint32_t option, const ExportChoice& choice,
                               const OpenResult& result) {
  if (result.status != OpenStatus::kOk) {
    if (option == nbd::kOptExportName) return socket_.close();
    append_error(option,
                 result.status == OpenStatus::kNotFound ? nbd::kRepErrUnknown : nbd::kRepErrPolicy,
                 open_error_message(result.status));
    return send_reply();
  }
  PANDO_ASSERT(result.volume != nullptr);
  if (socket_.closed()) return exports_.close(FrontEnd::kNbd, result.volume, "");
  if (option == nbd::kOptInfo) {
    describe(option, choice, *result.volume);
    exports_.close(FrontEnd::kNbd, result.volume, "");
    return send_reply();
  }
  if (option == nbd::kOptGo) {
    describe(option, choice, *result.volume);
  } else {
    const nbd::ExportNameReply reply{
        result.volume->size_bytes(),
        nbd_transmission_flags(*result.volume, session_.structured_replies)};
    append(&reply, sizeof(reply));
    if (!no_zeroes_) reply_.resize(reply_.size() + nbd::kExportNameZeroes);
  }
  finish(result.volume, choice.name);
}

/// The answer to NBD_OPT_INFO and NBD_OPT_GO.
void NbdNegotiation::describe(uint32_t option, const ExportChoice& choice,
                              const BlockVolume& volume) {
  const nbd::InfoExport info{nbd::kInfoExport, volume.size_bytes(),
                             nbd_transmission_flags(volume, session_.structured_replies)};
  append_reply(option, nbd::kRepInfo, &info, sizeof(info));

  // Told to everybody, asked or not: nothing smaller or larger is served.
  const nbd::InfoBlockSize block_size{nbd::kInfoBlockSize, kSectorSize,
                                      std::max(volume.block_size(), kSectorSize), kMaxIoBytes};
  append_reply(option, nbd::kRepInfo, &block_size, sizeof(block_size));

  if (choice.wants_name) {
    const Be16 type(nbd::kInfoName);
    std::vector<std::byte> data(sizeof(type) + choice.name.size());
    std::memcpy(data.data(), &type, sizeof(type));
    std::memcpy(data.data() + sizeof(type), choice.name.data(), choice.name.size());
    append_reply(option, nbd::kRepInfo, data.data(), data.size());
  }
  append_reply(option, nbd::kRepAck, nullptr, 0);
}

void NbdNegotiation::finish(BlockVolume* volume, const std::string& name) {
  session_.volume = volume;
  // The context was chosen for one export and counts for no other.
  session_.base_allocation = meta_context_set_ && meta_context_export_ == name;
  state_ = State::kDone;
  send_reply();
  user_.on_negotiated(session_);
}

void NbdNegotiation::handle_list(std::span<const std::byte> data) {
  if (!data.empty()) {
    append_error(nbd::kOptList, nbd::kRepErrInvalid, "the option takes no data");
    return send_reply();
  }
  waiting_ = true;
  exports_.list(FrontEnd::kNbd, "", [this](std::vector<ExportEntry> entries) {
    PANDO_ASSERT(waiting_);
    waiting_ = false;
    list_ = std::move(entries);
    listed_ = 0;
    listing_ = true;
    list_some();
    user_.on_negotiation_idle();
  });
}

void NbdNegotiation::list_some() {
  while (listed_ < list_.size() && reply_.size() < kListPieceBytes) {
    const std::string& name = list_[listed_++].name;
    if (name.size() > nbd::kMaxStringBytes) continue;
    const Be32 size(static_cast<uint32_t>(name.size()));
    std::vector<std::byte> entry(sizeof(size) + name.size());
    std::memcpy(entry.data(), &size, sizeof(size));
    std::memcpy(entry.data() + sizeof(size), name.data(), name.size());
    append_reply(nbd::kOptList, nbd::kRepServer, entry.data(), entry.size());
  }
  if (listed_ == list_.size()) {
    append_reply(nbd::kOptList, nbd::kRepAck, nullptr, 0);
    listing_ = false;
    list_ = {};
  }
  send_reply();
}

void NbdNegotiation::handle_meta_context(uint32_t option, std::span<const std::byte> data) {
  Reader reader(data);
  const std::string name = reader.take_string();
  const auto queries = reader.take<uint32_t>();
  const bool setting = option == nbd::kOptSetMetaContext;
  bool wanted = !setting && queries == 0;  // a list without queries asks for everything
  for (uint32_t i = 0; i < queries && reader.ok(); ++i) {
    const std::string query = reader.take_string();
    wanted |= query == nbd::kBaseAllocation || (!setting && query == nbd::kBaseNamespace);
  }
  if (!reader.ok_and_empty()) {
    append_error(option, nbd::kRepErrInvalid, "the option's data is malformed");
    return send_reply();
  }
  if (setting) {
    if (!session_.structured_replies) {
      append_error(option, nbd::kRepErrInvalid, "structured replies must be negotiated first");
      return send_reply();
    }
    meta_context_set_ = wanted;  // each NBD_OPT_SET_META_CONTEXT replaces the last
    meta_context_export_ = name;
  }
  if (wanted) {
    const Be32 id(setting ? kBaseAllocationId : 0);
    std::byte context[sizeof(id) + sizeof(nbd::kBaseAllocation) - 1];
    std::memcpy(context, &id, sizeof(id));
    std::memcpy(context + sizeof(id), nbd::kBaseAllocation, sizeof(nbd::kBaseAllocation) - 1);
    append_reply(option, nbd::kRepMetaContext, context, sizeof(context));
  }
  append_reply(option, nbd::kRepAck, nullptr, 0);
  send_reply();
}

void NbdNegotiation::append(const void* data, size_t size) {
  const auto* bytes = static_cast<const std::byte*>(data);
  reply_.insert(reply_.end(), bytes, bytes + size);
}

void NbdNegotiation::append_reply(uint32_t option, uint32_t type, const void* data, size_t size) {
  const nbd::OptionReply reply{nbd::kOptionReplyMagic, option, type, static_cast<uint32_t>(size)};
  append(&reply, sizeof(reply));
  append(data, size);
}

void NbdNegotiation::append_error(uint32_t option, uint32_t type, const char* message) {
  append_reply(option, type, message, std::strlen(message));
}

void NbdNegotiation::send_reply() {
  PANDO_ASSERT(!replying_ && !reply_.empty());
  replying_ = true;
  out_.payload = reply_.data();
  out_.payload_size = reply_.size();
  socket_.send(&out_);
}

void NbdNegotiation::on_sent() {
  replying_ = false;
  reply_.clear();
  if (close_when_sent_) return socket_.close();
  if (listing_) return list_some();
  pump();
}

}  // namespace pando
