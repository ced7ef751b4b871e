// Framing: what the target says to PDUs that are wrong, come in pieces, come too late or not at
// all, and that nobody but their sender notices. A witness works beside every case.
#include <cstring>
#include <functional>

#include "nvme_session.h"

using namespace pando;
using namespace pando::test;
using nvme::FatalError;
using nvme::IoOpcode;
using nvme::PduHeader;
using nvme::Status;

namespace {

constexpr uint16_t kNoTermReq = 0;

uint16_t code(FatalError error) {
  return static_cast<uint16_t>(error);
}

PduHeader& header_of(Bytes& bytes) {
  return *reinterpret_cast<PduHeader*>(bytes.data());
}

void put_u16(Bytes& bytes, size_t at, uint16_t value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

void put_u32(Bytes& bytes, size_t at, uint32_t value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

// What a fresh connection must not begin with.
struct FirstPdu {
  const char* name;
  std::function<void(nvme::IcPdu&)> spoil;
  uint16_t error;
};

void bad_first_pdus() {
  TargetThread target;
  Session witness(target.port());
  const FirstPdu rows[] = {
      {"length 127", [](auto& p) { p.header.length = 127; }, code(FatalError::kInvalidHeaderField)},
      {"length 4 GiB", [](auto& p) { p.header.length = UINT32_MAX; },
       code(FatalError::kInvalidHeaderField)},
      {"header length", [](auto& p) { p.header.header_length = 8; },
       code(FatalError::kInvalidHeaderField)},
      {"format", [](auto& p) { p.format = 1; }, code(FatalError::kUnsupportedParameter)},
      {"alignment", [](auto& p) { p.data_alignment = 32; }, code(FatalError::kInvalidHeaderField)},
      {"unknown type", [](auto& p) { p.header.type = 0x42; },
       code(FatalError::kInvalidHeaderField)},
      {"a response", [](auto& p) { p.header.type = 1; }, code(FatalError::kInvalidHeaderField)},
      {"a command",
       [](auto& p) {
         p.header.type = 4;
         p.header.header_length = 72;
         p.header.length = 72;
       },
       code(FatalError::kSequenceError)},
      {"data",
       [](auto& p) {
         p.header.type = 6;
         p.header.header_length = 24;
       },
       code(FatalError::kSequenceError)},
      {"the host terminates",
       [](auto& p) {
         p.header.type = 2;
         p.header.header_length = 24;
       },
       kNoTermReq},
  };
  for (const FirstPdu& row : rows) {
    Host host(target.port());
    nvme::IcPdu pdu = Host::ic_request({});
    row.spoil(pdu);
    host.send_bytes(&pdu, sizeof(pdu));
    uint16_t error = 0xFFFF;
    const bool closed = host.closed_by_target(&error);
    if (!CHECK(closed && error == row.error)) std::fprintf(stderr, "  case: %s\n", row.name);
    CHECK(witness.io.read(0, 1).ok());
  }
}

struct Malformed {
  const char* name;
  /// Sends something wrong on a live I/O queue.
  std::function<void(Host&)> act;
  uint16_t error;
};

// Starts a write of 64 KiB and returns the R2T for it.
nvme::R2tPdu begin_write(Host& host, uint16_t& cid) {
  nvme::Sqe sqe = Host::describe(Host::io(IoOpcode::kWrite, 0, 16), 65536, false);
  cid = sqe.cid = host.next_cid();
  host.send(host.capsule(sqe));
  HostPdu pdu;
  REQUIRE(host.receive(pdu) && pdu.header.type == static_cast<uint8_t>(nvme::PduType::kR2t));
  nvme::R2tPdu r2t;
  std::memcpy(&r2t, pdu.header_bytes.data(), sizeof(r2t));
  CHECK(r2t.cid == cid && r2t.offset == 0 && r2t.length == 65536);
  return r2t;
}

Bytes read_capsule(Host& host) {
  nvme::Sqe sqe = Host::describe(Host::io(IoOpcode::kRead, 0, 1), 4096, false);
  sqe.cid = host.next_cid();
  return host.capsule(sqe);
}

Bytes write_capsule(Host& host, size_t bytes = 4096) {
  nvme::Sqe sqe = Host::describe(Host::io(IoOpcode::kWrite, 0, static_cast<uint32_t>(bytes / 4096)),
                                 bytes, true);
  sqe.cid = host.next_cid();
  return host.capsule(sqe, Bytes(bytes));
}

// Sends `capsule` after `spoil`; digests are off.
std::function<void(Host&)> spoiled_write(std::function<void(Bytes&)> spoil) {
  return [spoil = std::move(spoil)](Host& host) {
    Bytes bytes = write_capsule(host);
    spoil(bytes);
    host.send(bytes);
  };
}

std::function<void(Host&)> spoiled_data(std::function<void(Bytes&)> spoil) {
  return [spoil = std::move(spoil)](Host& host) {
    uint16_t cid;
    const nvme::R2tPdu r2t = begin_write(host, cid);
    Bytes bytes = host.h2c_data(cid, r2t.tag, 0, Bytes(65536), true);
    spoil(bytes);
    host.send(bytes);
  };
}

void malformed_pdus() {
  nvme::TargetOptions options = any_port();
  options.max_h2c_data_bytes = 128 * 1024;
  TargetThread target(options);
  Session witness(target.port());
  const uint16_t invalid = code(FatalError::kInvalidHeaderField);
  const Malformed rows[] = {
      {"second ICReq",
       [](Host& h) {
         const nvme::IcPdu pdu = Host::ic_request({});
         h.send_bytes(&pdu, sizeof(pdu));
       },
       code(FatalError::kSequenceError)},
      {"unknown type", spoiled_write([](Bytes& b) { header_of(b).type = 0x0A; }), invalid},
      {"controller's type", spoiled_write([](Bytes& b) { header_of(b).type = 7; }), invalid},
      {"header length", spoiled_write([](Bytes& b) { header_of(b).header_length = 64; }), invalid},
      {"length below header", spoiled_write([](Bytes& b) { header_of(b).length = 71; }), invalid},
      {"length 0", spoiled_write([](Bytes& b) { header_of(b).length = 0; }), invalid},
      {"length 4 GiB", spoiled_write([](Bytes& b) { header_of(b).length = UINT32_MAX; }), invalid},
      {"capsule too large", [](Host& h) { h.send(write_capsule(h, 20480)); }, invalid},
      {"data offset in the header", spoiled_write([](Bytes& b) { header_of(b).data_offset = 68; }),
       invalid},
      {"data offset unaligned", spoiled_write([](Bytes& b) { header_of(b).data_offset = 74; }),
       invalid},
      {"data offset far out", spoiled_write([](Bytes& b) { header_of(b).data_offset = 252; }),
       invalid},
      {"digest flag unasked", spoiled_write([](Bytes& b) { header_of(b).flags = 1; }), invalid},
      {"data digest flag unasked", spoiled_write([](Bytes& b) { header_of(b).flags = 2; }),
       invalid},
      {"data with a transport descriptor",
       [](Host& h) {
         const nvme::Sqe sqe = Host::describe(Host::io(IoOpcode::kWrite, 0, 1), 4096, false);
         h.send(h.capsule(sqe, Bytes(4096)));
       },
       invalid},
      {"data nobody asked for", [](Host& h) { h.send(h.h2c_data(1, 3, 0, Bytes(4096), true)); },
       invalid},
      {"data for a tag far out",
       [](Host& h) { h.send(h.h2c_data(1, 0xFFFF, 0, Bytes(4096), true)); }, invalid},
      {"another command's id", spoiled_data([](Bytes& b) { put_u16(b, 8, 999); }), invalid},
      {"offset ahead", spoiled_data([](Bytes& b) { put_u32(b, 12, 4096); }),
       code(FatalError::kDataOutOfRange)},
      {"offset wraps", spoiled_data([](Bytes& b) { put_u32(b, 12, UINT32_MAX - 3); }),
       code(FatalError::kDataOutOfRange)},
      {"length differs", spoiled_data([](Bytes& b) { put_u32(b, 16, 4096); }), invalid},
      {"not the last", spoiled_data([](Bytes& b) { header_of(b).flags = 0; }), invalid},
      {"no data", spoiled_data([](Bytes& b) { header_of(b).length = 24; }), invalid},
      {"last too early",
       [](Host& h) {
         uint16_t cid;
         const nvme::R2tPdu r2t = begin_write(h, cid);
         h.send(h.h2c_data(cid, r2t.tag, 0, Bytes(4096), true));
       },
       invalid},
      {"more than asked for",
       [](Host& h) {
         uint16_t cid;
         const nvme::R2tPdu r2t = begin_write(h, cid);
         h.send(h.h2c_data(cid, r2t.tag, 0, Bytes(65536 + 4096), true));
       },
       code(FatalError::kDataOutOfRange)},
      {"the same data twice",
       [](Host& h) {
         uint16_t cid;
         const nvme::R2tPdu r2t = begin_write(h, cid);
         h.send(h.h2c_data(cid, r2t.tag, 0, Bytes(4096), false));
         h.send(h.h2c_data(cid, r2t.tag, 0, Bytes(4096), false));
       },
       code(FatalError::kDataOutOfRange)},
      {"data PDU above the limit",
       [](Host& h) {
         uint16_t cid;
         const nvme::R2tPdu r2t = begin_write(h, cid);
         h.send(h.h2c_data(cid, r2t.tag, 0, Bytes(128 * 1024 + 4), true));
       },
       code(FatalError::kDataLimitExceeded)},
      {"the host terminates",
       [](Host& h) {
         nvme::TermReqPdu pdu{};
         pdu.header = {2, 0, sizeof(pdu), 0, sizeof(pdu)};
         h.send_bytes(&pdu, sizeof(pdu));
       },
       kNoTermReq},
      {"the host terminates at length",
       [](Host& h) {
         nvme::TermReqPdu pdu{};
         pdu.header = {2, 0, sizeof(pdu), 0, 1 << 20};
         h.send_bytes(&pdu, sizeof(pdu));
       },
       invalid},
  };
  for (const Malformed& row : rows) {
    Session session(target.port());
    row.act(session.io);
    uint16_t error = 0xFFFF;
    const bool closed = session.io.closed_by_target(&error);
    if (!CHECK(closed && error == row.error)) {
      std::fprintf(stderr, "  case: %s (error %u)\n", row.name, error);
    }
    // Neither the other queue of that controller nor anybody else notices.
    CHECK(session.admin.admin(nvme::AdminOpcode::kKeepAlive).ok());
    CHECK(witness.io.read(0, 1).ok());
  }
}

void term_request_echoes_the_header() {
  TargetThread target;
  Session session(target.port());
  Bytes bytes = write_capsule(session.io);
  header_of(bytes).data_offset = 74;
  session.io.send(bytes);
  HostPdu pdu;
  REQUIRE(session.io.receive(pdu));
  nvme::TermReqPdu term;
  std::memcpy(&term, pdu.header_bytes.data(), sizeof(term));
  CHECK(pdu.header.type == 3 && term.error == 1 && term.information_low == 3);
  CHECK(pdu.header.length == sizeof(term) + sizeof(PduHeader));
}

void digests_that_do_not_match() {
  TargetThread target;
  Session witness(target.port());
  {
    Session session(target.port(), {true, true});
    Bytes bytes = read_capsule(session.io);
    bytes[72] ^= std::byte{1};
    session.io.send(bytes);
    uint16_t error = 0;
    CHECK(session.io.closed_by_target(&error) && error == code(FatalError::kHeaderDigest));
  }
  Session session(target.port(), {true, true});
  Bytes bytes = write_capsule(session.io);
  bytes[100] ^= std::byte{1};
  session.io.send(bytes);
  nvme::CapsuleCmdPdu sent;
  std::memcpy(&sent, bytes.data(), sizeof(sent));
  const Outcome in_capsule = session.io.await(sent.sqe.cid);
  CHECK(in_capsule.failed_with(Status::kTransientTransportError) && !in_capsule.do_not_retry);

  // One bad PDU of several: the others are still taken, and the command fails once.
  uint16_t cid;
  const nvme::R2tPdu r2t = begin_write(session.io, cid);
  Bytes first = session.io.h2c_data(cid, r2t.tag, 0, Bytes(32768), false);
  first[200] ^= std::byte{1};
  session.io.send(first);
  session.io.send(session.io.h2c_data(cid, r2t.tag, 32768, Bytes(32768), true));
  CHECK(session.io.await(cid).failed_with(Status::kTransientTransportError));
  uint64_t submitted = 1;
  target.on_reactor([&](auto&) { submitted = target.volume->submitted; });
  CHECK(submitted == 0);
  const Bytes data = pattern(8192, 3);
  CHECK(session.io.write(0, data, true).ok() && session.io.read(0, 2).data == data);
  CHECK(witness.io.read(0, 1).ok());
}

// Every PDU one byte at a time, and all of them at once.
void fragments() {
  TargetThread target;
  Session session(target.port(), {true, true});
  Bytes stream;
  std::vector<uint16_t> cids;
  for (int i = 0; i < 6; ++i) {
    const Bytes capsule = i % 2 == 0 ? write_capsule(session.io, 8192) : read_capsule(session.io);
    nvme::CapsuleCmdPdu sent;
    std::memcpy(&sent, capsule.data(), sizeof(sent));
    cids.push_back(sent.sqe.cid);
    stream.insert(stream.end(), capsule.begin(), capsule.end());
  }
  session.io.send(stream);
  for (size_t i = 0; i < cids.size(); ++i) CHECK(session.io.await(cids[i], 4096).ok());
  for (size_t i = 0; i < stream.size(); ++i) {
    if (!session.io.send_bytes(&stream[i], 1)) break;
    if (i % 512 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (size_t i = 0; i < cids.size(); ++i) CHECK(session.io.await(cids[i], 4096).ok());
}

void padded_data() {
  TargetThread target;
  Session session(target.port());
  const Bytes data = pattern(4096, 8);
  const nvme::Sqe sqe = Host::describe(Host::io(IoOpcode::kWrite, 5, 1), 4096, true);
  Bytes bytes = session.io.capsule(sqe, data);
  bytes.insert(bytes.begin() + 72, 56, std::byte{0xEE});
  header_of(bytes).data_offset = 128;
  header_of(bytes).length += 56;
  session.io.send(bytes);
  CHECK(session.io.await(0).ok());
  CHECK(session.io.read(5, 1).data == data);
}

void too_slow_to_connect() {
  nvme::TargetOptions options = any_port();
  options.connect_timeout_ms = 200;
  TargetThread target(options);
  Session witness(target.port());
  Host silent(target.port());
  Host half(target.port());
  const nvme::IcPdu pdu = Host::ic_request({});
  half.send_bytes(&pdu, 64);
  Host negotiated(target.port());
  CHECK(negotiated.initialize());
  // A Connect that is refused does not buy time, one that waits for the volume does.
  Host refused(target.port());
  CHECK(refused.initialize() && !refused.connect("nqn.none", 0).ok());
  CHECK(silent.closed_by_target());
  CHECK(half.closed_by_target());
  CHECK(negotiated.closed_by_target());
  CHECK(refused.closed_by_target());
  target.on_reactor([&](auto&) { target.exports.open_delay_ms = 500; });
  Host patient(target.port());
  CHECK(patient.initialize() && patient.connect(kVolumeNqn, 0).ok());
  CHECK(witness.io.read(0, 1).ok());
}

// A host that asks and never reads: its buffers stay within the budget, it is dropped, and the
// witness does not wait for it.
void never_reads() {
  nvme::TargetOptions options = any_port();
  options.connection_buffer_bytes = 1 << 20;
  options.send_stall_ms = 500;
  TargetThread target(options);
  Session witness(target.port());
  Session greedy(target.port());
  const int small = 4096;
  setsockopt(greedy.io.fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
  const timeval timeout{0, 200'000};
  setsockopt(greedy.io.fd(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
  size_t sent = 0;
  for (; sent < 20000; ++sent) {
    nvme::Sqe sqe = Host::describe(Host::io(IoOpcode::kRead, 0, 64), 64 * 4096, false);
    if (!greedy.io.send(greedy.io.capsule(sqe))) break;
  }
  CHECK(target.buffer_bytes() < (1 << 20) + 6 * 64 * 1024);
  for (int i = 0; i < 50; ++i) CHECK(witness.io.read(0, 1).ok());
  CHECK(target.eventually([&](nvme::Target& t) { return t.sessions()[1].io_queues == 0; }));
  CHECK(target.buffer_bytes() <= 4 * 64 * 1024);
  CHECK(witness.io.read(0, 1).ok());
}

}  // namespace

int main() {
  bad_first_pdus();
  malformed_pdus();
  term_request_echoes_the_header();
  digests_that_do_not_match();
  fragments();
  padded_data();
  too_slow_to_connect();
  never_reads();
  return finish("nvme_pdu_test");
}
