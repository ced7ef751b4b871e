#include "nvme_load.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

#include "assert.h"
#include "nvme_identify_data.h"
#include "nvme_send_queue.h"
#include "ring.h"

namespace pando::nvme {
namespace {

constexpr uint32_t kNamespaceId = 1;
constexpr uint16_t kAdminEntries = 32;
constexpr size_t kReceiveBytes = 256 << 10;
constexpr unsigned kRingEntries = 512;
constexpr uint64_t kPatienceUs = 30'000'000;

uint64_t clock_ns() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

/// splitmix64
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t value = state_;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
    value = (value ^ value >> 27) * 0x94d049bb133111eb;
    return value ^ value >> 31;
  }
  uint64_t below(uint64_t limit) {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(next()) * limit >> 64);
  }

 private:
  uint64_t state_;
};

/// What the admin queue says of the volume.
struct Volume {
  uint64_t bytes = 0;
  uint32_t sector_bytes = 0;
  uint32_t in_capsule_bytes = 0;
  uint32_t max_entries = 0;
  uint64_t max_transfer_bytes = 0;
  uint16_t controller_id = 0;
};

template <typename T>
T identify(Initiator& admin, IdentifyCns cns, uint32_t nsid) {
  alignas(T) std::array<std::byte, kIdentifyBytes> page{};
  Sqe sqe{};
  sqe.opcode = static_cast<uint8_t>(AdminOpcode::kIdentify);
  sqe.nsid = nsid;
  sqe.cdw10 = static_cast<uint32_t>(cns);
  const auto answer = admin.run(sqe, {}, page);
  if (answer.status != Status::kSuccess) {
    throw std::runtime_error("the target does not identify itself: " + status_text(answer.status));
  }
  T value;
  static_assert(sizeof(T) <= kIdentifyBytes);
  std::memcpy(&value, page.data(), sizeof(value));
  return value;
}

Volume open_volume(Initiator& admin, const NvmeLoadOptions& options) {
  Volume volume;
  volume.controller_id = admin.connect(options.identity, 0, kDynamicController, kAdminEntries);
  const uint64_t capabilities = admin.property(Property::kCapabilities, true);
  volume.max_entries = static_cast<uint32_t>(capabilities & 0xFFFF) + 1;  // Base 3.1.3.1: MQES
  admin.enable();
  const auto controller = identify<IdentifyController>(admin, IdentifyCns::kController, 0);
  // Base 5.17.2.1: in units of 16 bytes, the SQE's 64 included; MDTS in pages of CAP.MPSMIN.
  volume.in_capsule_bytes = controller.ioccsz > 4 ? controller.ioccsz * 16 - 64 : 0;
  const auto page_shift = static_cast<unsigned>(12 + (capabilities >> 48 & 0xF));
  volume.max_transfer_bytes =
      controller.mdts == 0 ? UINT64_MAX : uint64_t{1} << (page_shift + controller.mdts % 32);
  const auto space = identify<IdentifyNamespace>(admin, IdentifyCns::kNamespace, kNamespaceId);
  const uint32_t format = space.lba_formats[space.format & 0xF];
  volume.sector_bytes = 1u << (format >> 16 & 0x1F);  // NVM 4.1.5.1: LBADS
  volume.bytes = space.size * volume.sector_bytes;
  Sqe sqe{};
  sqe.opcode = static_cast<uint8_t>(AdminOpcode::kSetFeatures);
  sqe.cdw10 = static_cast<uint32_t>(Feature::kNumberOfQueues);
  sqe.cdw11 = (options.queues - 1) | (options.queues - 1) << 16;
  const auto answer = admin.run(sqe, {}, {});
  const bool enough =
      answer.status == Status::kSuccess && (answer.result & 0xFFFF) + 1 >= options.queues;
  if (!enough) {
    throw std::runtime_error("the target gives a host " +
                             std::to_string((answer.result & 0xFFFF) + 1) + " queues, not " +
                             std::to_string(options.queues));
  }
  return volume;
}

void check(const NvmeLoadOptions& options, const Volume& volume) {
  const uint32_t block = options.block_bytes;
  const auto refuse = [](const std::string& why) { throw std::runtime_error(why); };
  if (block > volume.max_transfer_bytes) {
    refuse("the target takes " + std::to_string(volume.max_transfer_bytes) +
           " bytes at a time at most");
  }
  if (block % volume.sector_bytes != 0) refuse("the block size must be a multiple of the sector's");
  if (options.depth >= volume.max_entries) {
    refuse("the target takes " + std::to_string(volume.max_entries - 1) +
           " requests on a queue at most");
  }
  const uint64_t region = options.region_bytes == 0 ? volume.bytes : options.region_bytes;
  if (region > volume.bytes) refuse("the region is larger than the volume");
  if (region < block) refuse("the region is smaller than a block");
}

class Load;

class Queue final : private SendQueue::Listener {
 public:
  Queue(Load& load, Ring& ring, std::unique_ptr<Initiator> socket);

  void start() { fill(); }
  bool idle() const { return busy_ == 0; }
  /// Nothing of it is in the ring any more, once this has been called and the ring has run.
  void cut();
  bool ended() const { return !receiving_ && !sender_.sending(); }

 private:
  struct Slot {
    CapsuleCmdPdu capsule{};
    std::vector<DataPdu> data_headers;  // of a write that the target asks for
    uint64_t submitted_ns = 0;
    uint32_t asked_bytes = 0;
    bool busy = false;
    bool is_read = false;
  };

  void fill();
  void submit(uint16_t cid);
  void arm();
  void received(int32_t result);
  void parse();
  bool take_pdu();
  void send_data(const R2tPdu& request);
  Slot& slot_of(uint16_t cid);
  void complete(uint16_t cid, Status status);
  void on_sent(Command&) override {}
  void on_send_done(int32_t result) override;

  Load& load_;
  Ring& ring_;
  std::unique_ptr<Initiator> socket_;
  SendQueue sender_;
  RingOp receive_op_;
  bool receiving_ = false;
  bool cut_ = false;
  std::vector<std::byte> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  uint32_t skip_ = 0;                 // of data that has been announced
  std::optional<uint16_t> finishes_;  // the command that ends with it
  std::vector<Slot> slots_;
  std::vector<uint16_t> free_;
  uint32_t busy_ = 0;
};

class Load {
 public:
  explicit Load(const NvmeLoadOptions& options);
  NvmeLoadResult run();

  struct Next {
    bool is_read;
    uint64_t first_sector;
  };
  /// What is to be done next; nothing if the time is over.
  std::optional<Next> next();
  void account(bool is_read, uint64_t submitted_ns, Status status);
  void fail(const std::string& why) {
    if (failure_.empty()) failure_ = why;
  }

  const NvmeLoadOptions options;
  Volume volume;
  std::vector<std::byte> payload;  // what writes carry

 private:
  Initiator admin_;
  Ring ring_;
  std::vector<std::unique_ptr<Queue>> queues_;
  NvmeLoadResult result_;
  Random random_;
  uint64_t blocks_ = 0;
  uint64_t cursor_ = 0;
  uint64_t issued_ = 0;
  uint64_t start_ns_ = 0;
  std::string failure_;
};

Queue::Queue(Load& load, Ring& ring, std::unique_ptr<Initiator> socket)
    : load_(load),
      ring_(ring),
      socket_(std::move(socket)),
      sender_(ring, socket_->fd(), *this),
      buffer_(kReceiveBytes),
      slots_(load.options.depth) {
  const uint32_t block = load.options.block_bytes;
  const uint32_t parts = (block + socket_->max_h2c_bytes() - 1) / socket_->max_h2c_bytes();
  for (uint16_t cid = 0; cid < slots_.size(); ++cid) {
    slots_[cid].data_headers.reserve(parts);
    free_.push_back(cid);
  }
  receive_op_.context = this;
  receive_op_.done = [](RingOp* op, int32_t result) {
    static_cast<Queue*>(op->context)->received(result);
  };
  arm();
}

void Queue::cut() {
  cut_ = true;
  ::shutdown(socket_->fd(), SHUT_RDWR);
  if (receiving_) ring_.cancel(&receive_op_);
  sender_.clear();
  sender_.cancel();
}

void Queue::arm() {
  receiving_ = true;
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  ring_.recv(&receive_op_, socket_->fd(), buffer_.data() + end_,
             static_cast<uint32_t>(buffer_.size() - end_), 0);
}

void Queue::received(int32_t result) {
  receiving_ = false;
  if (cut_) return;
  if (result == -EINTR || result == -EAGAIN) return arm();
  if (result <= 0) return load_.fail("the target has closed a queue");
  end_ += static_cast<size_t>(result);
  try {
    parse();
  } catch (const std::runtime_error& error) {
    return load_.fail(error.what());
  }
  arm();
  sender_.flush();
}

void Queue::parse() {
  for (;;) {
    const auto part = static_cast<uint32_t>(std::min<size_t>(skip_, end_ - begin_));
    begin_ += part;
    skip_ -= part;
    if (skip_ > 0) return;
    if (finishes_) {
      const uint16_t cid = *finishes_;
      finishes_.reset();
      complete(cid, Status::kSuccess);
    }
    if (!take_pdu()) return;
  }
}

/// A header, and what it says of the data behind it. False: more of it has to come first.
bool Queue::take_pdu() {
  if (end_ - begin_ < sizeof(DataPdu)) return false;
  const std::byte* at = buffer_.data() + begin_;
  PduHeader header;
  std::memcpy(&header, at, sizeof(header));
  static_assert(sizeof(DataPdu) == sizeof(R2tPdu) && sizeof(DataPdu) == sizeof(CapsuleRespPdu));
  if (header.header_length != sizeof(DataPdu) || header.length < sizeof(DataPdu)) {
    throw std::runtime_error("the target has sent what is no answer");
  }
  begin_ += sizeof(DataPdu);
  switch (static_cast<PduType>(header.type)) {
    case PduType::kCapsuleResp: {
      CapsuleRespPdu pdu;
      std::memcpy(&pdu, at, sizeof(pdu));
      complete(pdu.cqe.cid, static_cast<Status>((pdu.cqe.status >> 1) & 0x7FF));
      return true;
    }
    case PduType::kC2hData: {
      DataPdu pdu;
      std::memcpy(&pdu, at, sizeof(pdu));
      const Slot& slot = slot_of(pdu.cid);
      const bool fits = slot.is_read && header.data_offset >= sizeof(pdu) &&
                        header.length == header.data_offset + pdu.length &&
                        pdu.length <= load_.options.block_bytes;
      if (!fits) throw std::runtime_error("the target has sent data that was not asked for");
      skip_ = header.length - static_cast<uint32_t>(sizeof(pdu));
      if ((header.flags & kPduSuccess) != 0) finishes_ = pdu.cid;
      return true;
    }
    case PduType::kR2t: {
      R2tPdu pdu;
      std::memcpy(&pdu, at, sizeof(pdu));
      send_data(pdu);
      return true;
    }
    default:
      throw std::runtime_error("the target has ended a queue with an error");
  }
}

Queue::Slot& Queue::slot_of(uint16_t cid) {
  if (cid < slots_.size() && slots_[cid].busy) return slots_[cid];
  throw std::runtime_error("the target has answered what was not asked");
}

void Queue::send_data(const R2tPdu& request) {
  Slot& slot = slot_of(request.cid);
  const uint32_t block = load_.options.block_bytes;
  const bool fits = !slot.is_read && request.length > 0 && request.offset == slot.asked_bytes &&
                    request.length <= block - slot.asked_bytes;
  if (!fits) throw std::runtime_error("the target has asked for data that there is not");
  uint32_t offset = request.offset;
  slot.asked_bytes += request.length;
  while (offset < slot.asked_bytes) {
    const uint32_t size = std::min(slot.asked_bytes - offset, socket_->max_h2c_bytes());
    if (slot.data_headers.size() == slot.data_headers.capacity()) {
      throw std::runtime_error("the target has asked for a block in too many parts");
    }
    DataPdu& pdu = slot.data_headers.emplace_back();
    const bool last = offset + size == slot.asked_bytes;
    pdu.header = {static_cast<uint8_t>(PduType::kH2cData), last ? kPduLastData : uint8_t{0},
                  sizeof(pdu), sizeof(pdu), static_cast<uint32_t>(sizeof(pdu)) + size};
    pdu.cid = request.cid;
    pdu.tag = request.tag;
    pdu.offset = offset;
    pdu.length = size;
    sender_.push(&pdu, sizeof(pdu));
    sender_.push(load_.payload.data() + offset, size);
    offset += size;
  }
}

void Queue::fill() {
  while (!free_.empty()) {
    const auto next = load_.next();
    if (!next) break;
    const uint16_t cid = free_.back();
    free_.pop_back();
    Slot& slot = slots_[cid];
    slot.busy = true;
    slot.is_read = next->is_read;
    slot.asked_bytes = 0;
    slot.data_headers.clear();
    Sqe& sqe = slot.capsule.sqe;
    sqe = {};
    sqe.opcode = static_cast<uint8_t>(next->is_read ? IoOpcode::kRead : IoOpcode::kWrite);
    sqe.cid = cid;
    sqe.nsid = kNamespaceId;
    sqe.cdw10 = static_cast<uint32_t>(next->first_sector);
    sqe.cdw11 = static_cast<uint32_t>(next->first_sector >> 32);
    sqe.cdw12 = load_.options.block_bytes / load_.volume.sector_bytes - 1;
    submit(cid);
  }
  sender_.flush();
}

void Queue::submit(uint16_t cid) {
  Slot& slot = slots_[cid];
  const uint32_t block = load_.options.block_bytes;
  const bool in_capsule = !slot.is_read && block <= load_.volume.in_capsule_bytes;
  CapsuleCmdPdu& capsule = slot.capsule;
  capsule.sqe.flags = kFlagsPsdtSgl;
  capsule.sqe.sgl.length = block;
  capsule.sqe.sgl.type = in_capsule ? kSglInCapsule : kSglTransport;
  capsule.header = {static_cast<uint8_t>(PduType::kCapsuleCmd), 0, sizeof(capsule),
                    in_capsule ? static_cast<uint8_t>(sizeof(capsule)) : uint8_t{0},
                    static_cast<uint32_t>(sizeof(capsule)) + (in_capsule ? block : 0)};
  slot.submitted_ns = clock_ns();
  ++busy_;
  sender_.push(&capsule, sizeof(capsule));
  if (in_capsule) sender_.push(load_.payload.data(), block);
}

void Queue::complete(uint16_t cid, Status status) {
  Slot& slot = slot_of(cid);
  slot.busy = false;
  --busy_;
  free_.push_back(cid);
  load_.account(slot.is_read, slot.submitted_ns, status);
  fill();
}

void Queue::on_send_done(int32_t result) {
  if (cut_) return;
  if (result < 0 && result != -EINTR && result != -EAGAIN) {
    return load_.fail("the target has closed a queue");
  }
  sender_.flush();
}

Load::Load(const NvmeLoadOptions& from)
    : options(from), admin_(from.place), ring_(kRingEntries), random_(from.seed) {
  volume = open_volume(admin_, options);
  check(options, volume);
  result_.volume_bytes = volume.bytes;
  blocks_ = (options.region_bytes == 0 ? volume.bytes : options.region_bytes) / options.block_bytes;
  payload.resize(options.block_bytes);
  for (size_t i = 0; i + sizeof(uint64_t) <= payload.size(); i += sizeof(uint64_t)) {
    const uint64_t word = random_.next();
    std::memcpy(payload.data() + i, &word, sizeof(word));
  }
  for (uint16_t id = 1; id <= options.queues; ++id) {
    auto socket = std::make_unique<Initiator>(options.place);
    const auto entries = static_cast<uint16_t>(options.depth + 1);
    socket->connect(options.identity, id, volume.controller_id, entries);
    queues_.push_back(std::make_unique<Queue>(*this, ring_, std::move(socket)));
  }
}

std::optional<Load::Next> Load::next() {
  if (!failure_.empty()) return std::nullopt;
  if (options.op_count > 0 && issued_ == options.op_count) return std::nullopt;
  const uint64_t limit_ns = options.duration_ms * 1'000'000;
  if (limit_ns > 0 && clock_ns() - start_ns_ >= limit_ns) return std::nullopt;
  ++issued_;
  const LoadPattern pattern = options.pattern;
  bool is_read = pattern == LoadPattern::kRead || pattern == LoadPattern::kRandomRead;
  if (pattern == LoadPattern::kRandomReadWrite) {
    is_read = random_.below(100) < options.read_percent;
  }
  uint64_t block = cursor_;
  if (pattern == LoadPattern::kRead || pattern == LoadPattern::kWrite) {
    cursor_ = (cursor_ + 1) % blocks_;
  } else {
    block = random_.below(blocks_);
  }
  return Next{is_read, block * (options.block_bytes / volume.sector_bytes)};
}

void Load::account(bool is_read, uint64_t submitted_ns, Status status) {
  const uint64_t now = clock_ns();
  result_.seconds = static_cast<double>(now - start_ns_) / 1e9;
  if (status != Status::kSuccess) {
    if (result_.errors++ == 0) result_.first_error = status;
    return;
  }
  LoadLane& lane = is_read ? result_.reads : result_.writes;
  ++lane.ops;
  lane.bytes += options.block_bytes;
  lane.latency.record(now - submitted_ns);
}

NvmeLoadResult Load::run() {
  start_ns_ = clock_ns();
  for (const auto& queue : queues_) queue->start();
  const auto all_idle = [this] {
    return std::ranges::all_of(queues_, [](const auto& queue) { return queue->idle(); });
  };
  while (failure_.empty() && !all_idle()) {
    if (ring_.run_once(kPatienceUs) == 0) fail("the target has not answered for half a minute");
  }
  for (const auto& queue : queues_) queue->cut();
  while (!std::ranges::all_of(queues_, [](const auto& queue) { return queue->ended(); })) {
    ring_.run_once(kPatienceUs);
  }
  if (!failure_.empty()) throw std::runtime_error(failure_);
  return result_;
}

}  // namespace

NvmeLoadResult run_nvme_load(const NvmeLoadOptions& options) {
  const bool counts = options.queues >= 1 && options.queues <= kMaxLoadQueues &&
                      options.depth >= 1 && options.depth <= kMaxLoadDepth &&
                      options.read_percent <= 100;
  if (!counts) throw std::runtime_error("queues are 1 to 64, the depth 1 to 1024");
  const uint32_t block = options.block_bytes;
  if (block == 0 || block % 512 != 0 || block > kMaxIoBytes) {
    throw std::runtime_error("the block size must be a multiple of 512 bytes, to 1 MiB");
  }
  if (options.duration_ms == 0 && options.op_count == 0) {
    throw std::runtime_error("a duration or a number of operations must be given");
  }
  Load load(options);
  return load.run();
}

}  // namespace pando::nvme
