// Every I/O command and what can go wrong with it, with and without digests, in the capsule and by
// R2T.
#include <cstring>

#include "nvme_session.h"

using namespace pando;
using namespace pando::test;
using nvme::IoOpcode;
using nvme::Status;

namespace {

void moves_data(Digests digests, uint8_t alignment) {
  nvme::TargetOptions options = any_port();
  options.max_h2c_data_bytes = 12 * 1024;  // several H2CData PDUs for one R2T
  TargetThread target(options);
  Session session(target.port(), digests, kVolumeNqn, 0, 128, alignment);
  for (const bool in_capsule : {true, false}) {
    for (const uint32_t blocks : {1u, 2u, 4u, 5u, 32u, 256u}) {
      if (in_capsule && blocks > 4) continue;
      const Bytes data = pattern(blocks * size_t{4096}, blocks);
      const Outcome written = session.io.write(blocks * 3, data, in_capsule);
      CHECK(written.ok());
      CHECK(written.requests == (in_capsule ? 0 : 1));
      const Outcome got = session.io.read(blocks * 3, blocks);
      CHECK(got.ok() && got.data == data);
    }
  }
  const Outcome hole = session.io.read(2000, 1);
  CHECK(hole.ok() && hole.data == Bytes(4096));
}

void large_h2c_pdus() {
  TargetThread target;
  Session session(target.port());
  const Bytes data = pattern(1 << 20, 9);  // one PDU of 1 MiB, received in place
  CHECK(session.io.write(0, data, false).ok());
  const Outcome got = session.io.read(0, 256);
  CHECK(got.ok() && got.data == data);
}

void refuses_bad_ranges() {
  TargetThread target;
  Session session(target.port());
  const uint64_t blocks = (16 << 20) / 4096;
  const Bytes block = pattern(4096, 1);
  CHECK(session.io.write(blocks - 1, block, true).ok());
  const Outcome beyond = session.io.write(blocks, block, true);
  CHECK(beyond.failed_with(Status::kLbaOutOfRange) && beyond.do_not_retry);
  CHECK(session.io.read(blocks - 1, 2).failed_with(Status::kLbaOutOfRange));
  CHECK(session.io.read(UINT64_MAX, 1).failed_with(Status::kLbaOutOfRange));
  CHECK(session.io.read(UINT64_MAX - 1, 3).failed_with(Status::kLbaOutOfRange));
  // A write that is refused is not asked for its data.
  const Outcome refused = session.io.write(blocks, pattern(65536, 2), false);
  CHECK(refused.failed_with(Status::kLbaOutOfRange) && refused.requests == 0);
  // More than MDTS.
  CHECK(session.io.run(Host::io(IoOpcode::kRead, 0, 257), 257 * 4096)
            .failed_with(Status::kInvalidField));
  // The length of the command and that of its descriptor differ.
  CHECK(session.io.run(Host::io(IoOpcode::kRead, 0, 2), 4096)
            .failed_with(Status::kDataSglLengthInvalid));
  CHECK(session.io.run(Host::io(IoOpcode::kRead, 0, 1), 8192)
            .failed_with(Status::kDataSglLengthInvalid));
  nvme::Sqe other = Host::io(IoOpcode::kRead, 0, 1);
  other.nsid = 2;
  CHECK(session.io.run(other, 4096).failed_with(Status::kInvalidNamespace));
  nvme::Sqe unknown = Host::io(static_cast<IoOpcode>(0x91), 0, 1);
  CHECK(session.io.run(unknown, 0, block, true).failed_with(Status::kInvalidOpcode));
  CHECK(session.io.read(0, 1).ok());
}

void refuses_bad_descriptors() {
  TargetThread target;
  Session session(target.port());
  const auto answer = [&](nvme::Sqe sqe, const Bytes& data = {}) {
    sqe.cid = session.io.next_cid();
    session.io.send(session.io.capsule(sqe, data));
    return session.io.await(sqe.cid);
  };
  nvme::Sqe sqe = Host::describe(Host::io(IoOpcode::kWrite, 0, 1), 4096, true);
  sqe.sgl.address = 64;
  CHECK(answer(sqe, Bytes(4096)).failed_with(Status::kSglOffsetInvalid));
  sqe = Host::describe(Host::io(IoOpcode::kWrite, 0, 2), 8192, true);
  CHECK(answer(sqe, Bytes(4096)).failed_with(Status::kDataSglLengthInvalid));
  sqe = Host::describe(Host::io(IoOpcode::kRead, 0, 1), 4096, true);
  CHECK(answer(sqe).failed_with(Status::kSglDescriptorTypeInvalid));
  sqe = Host::describe(Host::io(IoOpcode::kRead, 0, 1), 4096, false);
  sqe.sgl.type = 0x40;
  CHECK(answer(sqe).failed_with(Status::kSglDescriptorTypeInvalid));
  sqe = Host::describe(Host::io(IoOpcode::kRead, 0, 1), 4096, false);
  sqe.flags = 0;  // PRP
  CHECK(answer(sqe).failed_with(Status::kInvalidField));
  sqe.flags = nvme::kFlagsPsdtSgl | 1;  // fused
  CHECK(answer(sqe).failed_with(Status::kInvalidField));
  CHECK(session.io.read(0, 1).ok());
}

void flush_and_fua() {
  TargetThread target;
  Session session(target.port());
  CHECK(session.io.run(Host::io(IoOpcode::kFlush, 0, 1)).ok());
  nvme::Sqe all = Host::io(IoOpcode::kFlush, 0, 1);
  all.nsid = 0xFFFFFFFF;
  CHECK(session.io.run(all).ok());
  const Bytes block = pattern(4096, 3);
  CHECK(session.io.write(0, block, true).ok());
  uint64_t flushes = 0, fua = 0;
  target.on_reactor([&](auto&) {
    flushes = target.volume->flushes;
    fua = target.volume->fua_requests;
  });
  CHECK(flushes == 2 && fua == 0);
  CHECK(session.io.write(0, block, true, true).ok());
  target.on_reactor([&](auto&) { fua = target.volume->fua_requests; });
  CHECK(fua == 1);
  // Without a volatile write cache every write is durable.
  CHECK(session.admin.admin(nvme::AdminOpcode::kSetFeatures, 6, 0).ok());
  CHECK(session.io.write(0, block, true).ok());
  target.on_reactor([&](auto&) { fua = target.volume->fua_requests; });
  CHECK(fua == 2);
}

void zeroes_and_discards() {
  TargetThread target;
  Session session(target.port());
  const Bytes data = pattern(64 * 4096, 4);
  CHECK(session.io.write(100, data, false).ok());
  CHECK(session.io.run(Host::io(IoOpcode::kWriteZeroes, 110, 3)).ok());
  Bytes expected = data;
  std::memset(expected.data() + 10 * 4096, 0, 3 * 4096);
  CHECK(session.io.read(100, 64).data == expected);
  CHECK(session.io.run(Host::io(IoOpcode::kWriteZeroes, 4095, 2))
            .failed_with(Status::kLbaOutOfRange));

  const auto discard = [&](const std::vector<nvme::DsmRange>& ranges, uint32_t count,
                           uint32_t attributes) {
    nvme::Sqe sqe{};
    sqe.opcode = static_cast<uint8_t>(IoOpcode::kDatasetManagement);
    sqe.nsid = 1;
    sqe.cdw10 = count - 1;
    sqe.cdw11 = attributes;
    Bytes bytes(4096);  // Linux sends a whole page
    std::memcpy(bytes.data(), ranges.data(), ranges.size() * sizeof(nvme::DsmRange));
    return session.io.run(sqe, 0, bytes, true);
  };
  CHECK(discard({{0, 2, 120}, {0, 0, 0}, {0, 1, 130}}, 3, nvme::kDsmDeallocate).ok());
  std::memset(expected.data() + 20 * 4096, 0, 2 * 4096);
  std::memset(expected.data() + 30 * 4096, 0, 4096);
  CHECK(session.io.read(100, 64).data == expected);
  CHECK(discard({{0, 2, 140}}, 1, 0).ok());  // a hint only
  CHECK(session.io.read(100, 64).data == expected);
  // One bad range: none is discarded.
  CHECK(discard({{0, 1, 150}, {0, 2, 4095}}, 2, nvme::kDsmDeallocate)
            .failed_with(Status::kLbaOutOfRange));
  CHECK(discard({{0, 1, 150}, {0, UINT32_MAX, UINT64_MAX - 5}}, 2, nvme::kDsmDeallocate)
            .failed_with(Status::kLbaOutOfRange));
  CHECK(session.io.read(100, 64).data == expected);
  std::vector<nvme::DsmRange> many;
  for (uint32_t i = 0; i < 256; ++i) many.push_back({0, 1, i * 2});
  CHECK(discard(many, 256, nvme::kDsmDeallocate).ok());
  target.on_reactor([&](auto&) { target.volume->delay_ms = 1; });
  CHECK(discard({{0, 1, 0}, {0, 1, 9}, {0, 1, 13}}, 3, nvme::kDsmDeallocate).ok());
  // Fewer bytes than ranges.
  nvme::Sqe sqe{};
  sqe.opcode = static_cast<uint8_t>(IoOpcode::kDatasetManagement);
  sqe.nsid = 1;
  sqe.cdw10 = 1;
  sqe.cdw11 = nvme::kDsmDeallocate;
  CHECK(session.io.run(sqe, 0, Bytes(16), true).failed_with(Status::kDataSglLengthInvalid));
}

void compare_and_verify() {
  TargetThread target;
  Session session(target.port());
  Bytes data = pattern(16 * 4096, 5);
  CHECK(session.io.write(7, data, false).ok());
  CHECK(session.io.run(Host::io(IoOpcode::kCompare, 7, 16), 0, data).ok());
  data[40000] ^= std::byte{1};
  const Outcome differs = session.io.run(Host::io(IoOpcode::kCompare, 7, 16), 0, data);
  CHECK(differs.failed_with(Status::kCompareFailure) && differs.requests == 1);
  CHECK(session.io.run(Host::io(IoOpcode::kVerify, 0, 256)).ok());
  CHECK(session.io.run(Host::io(IoOpcode::kVerify, 0, 257)).failed_with(Status::kInvalidField));
  CHECK(session.io.run(Host::io(IoOpcode::kVerify, 4090, 20)).failed_with(Status::kLbaOutOfRange));
}

void volume_errors() {
  TargetThread target;
  Session session(target.port());
  struct Row {
    IoStatus volume;
    IoOpcode opcode;
    Status expected;
  };
  const Row rows[] = {
      {IoStatus::kIoError, IoOpcode::kRead, Status::kUnrecoveredReadError},
      {IoStatus::kIoError, IoOpcode::kWrite, Status::kWriteFault},
      {IoStatus::kIoError, IoOpcode::kFlush, Status::kInternalError},
      {IoStatus::kNoSpace, IoOpcode::kWrite, Status::kCapacityExceeded},
      {IoStatus::kOutOfRange, IoOpcode::kRead, Status::kLbaOutOfRange},
      {IoStatus::kReadOnly, IoOpcode::kWriteZeroes, Status::kNamespaceWriteProtected},
      {IoStatus::kClosed, IoOpcode::kRead, Status::kNamespaceNotReady},
      {IoStatus::kInvalid, IoOpcode::kRead, Status::kInvalidField},
  };
  for (const Row& row : rows) {
    target.on_reactor([&](auto&) { target.volume->fail_with = row.volume; });
    const bool write = row.opcode == IoOpcode::kWrite;
    const Outcome outcome =
        session.io.run(Host::io(row.opcode, 0, 1), row.opcode == IoOpcode::kRead ? 4096 : 0,
                       write ? Bytes(4096) : Bytes{}, write);
    CHECK(outcome.failed_with(row.expected));
  }
  target.on_reactor([&](auto&) {
    target.volume->fail_with = IoStatus::kOk;
    target.volume->read_only_volume = true;
  });
  CHECK(session.io.write(0, Bytes(4096), true).failed_with(Status::kNamespaceWriteProtected));
  CHECK(session.io.read(0, 1).ok());
  const auto log = as<nvme::ErrorLogEntry>(session.admin.log_page(nvme::LogPage::kError, 64));
  CHECK(log.error_count == 9 && log.sq_id == 1 && log.nsid == 1);
  CHECK(log.status == static_cast<uint16_t>(Status::kNamespaceWriteProtected) << 1);
  const auto smart = as<nvme::SmartLog>(session.admin.log_page(nvme::LogPage::kSmart, 512));
  CHECK(smart.media_errors[0] == 2 && smart.error_log_entries[0] == 9);
}

// Many commands before the first answer is read: they are answered all, and the queue's memory
// stays within its budget.
void deep_queue(Digests digests) {
  nvme::TargetOptions options = any_port();
  options.connection_buffer_bytes = 256 * 1024;
  TargetThread target(options);
  Session session(target.port(), digests);
  target.on_reactor([&](auto&) { target.volume->delay_ms = 20; });
  const Bytes data = pattern(128 * 4096, 6);
  std::vector<uint16_t> cids;
  for (uint32_t i = 0; i < 60; ++i) {
    nvme::Sqe sqe = Host::describe(Host::io(IoOpcode::kRead, i, 32), 32 * 4096, false);
    sqe.cid = session.io.next_cid();
    cids.push_back(sqe.cid);
    session.io.send(session.io.capsule(sqe));
  }
  const size_t fixed = 3 * 64 * 1024;  // receive buffers
  bool bounded = true;
  for (int i = 0; i < 10; ++i) {
    if (target.buffer_bytes() > fixed + 256 * 1024) bounded = false;
  }
  CHECK(bounded);
  for (const uint16_t cid : cids) CHECK(session.io.await(cid, 32 * 4096).ok());
  CHECK(session.io.read(0, 1).ok());
}

void sq_head_and_success_flag() {
  TargetThread target;
  {
    Session session(target.port(), {}, kVolumeNqn, 0, 16);
    int silent = 0;
    for (int i = 0; i < 32; ++i) {
      const Outcome outcome = session.io.read(0, 1);
      if (outcome.by_success_flag) {
        ++silent;
      } else {
        CHECK(outcome.sq_head == (i + 2) % 16);
      }
    }
    CHECK(silent == 24);  // one capsule in four says how far the queue is
  }
  Session session(target.port(), {}, kVolumeNqn, nvme::kConnectDisableSqFlow, 16);
  for (int i = 0; i < 32; ++i) CHECK(session.io.read(0, 1).by_success_flag);
  CHECK(session.io.write(0, Bytes(4096), true).sq_head == 0xFFFF);
}

}  // namespace

int main() {
  moves_data({}, 0);
  moves_data({true, false}, 0);
  moves_data({false, true}, 3);
  moves_data({true, true}, 31);
  large_h2c_pdus();
  refuses_bad_ranges();
  refuses_bad_descriptors();
  flush_and_fua();
  zeroes_and_discards();
  compare_and_verify();
  volume_errors();
  deep_queue({});
  deep_queue({true, true});
  sq_head_and_success_flag();
  return finish("nvme_io_test");
}
