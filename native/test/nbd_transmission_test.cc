// The requests: each command with simple and with structured replies, errors, flags, limits, and
// completions that come late and out of order.
#include <algorithm>
#include <map>
#include <random>

#include "nbd_client.h"

namespace {

using namespace pando;
using namespace pando::test;
using Completion = MemoryVolume::Completion;

struct Extent {
  uint32_t length;
  uint32_t state;
  bool operator==(const Extent&) const = default;
};
constexpr uint32_t kHole = nbd::kStateHole | nbd::kStateZero;

std::vector<Extent> extents_of(const NbdClient::Reply& reply) {
  REQUIRE(reply.chunk_type == nbd::kChunkBlockStatus && reply.data.size() >= 4);
  std::vector<Extent> extents;
  for (size_t at = 4; at + 8 <= reply.data.size(); at += 8) {
    nbd::BlockDescriptor descriptor;
    std::memcpy(&descriptor, reply.data.data() + at, sizeof(descriptor));
    extents.push_back({descriptor.length, descriptor.state});
  }
  return extents;
}

/// What a read returned, without the head of a structured reply.
Bytes data_of(const NbdClient::Reply& reply, uint64_t offset) {
  if (!reply.structured) return reply.data;
  REQUIRE(reply.chunk_type == nbd::kChunkOffsetData && reply.data.size() > 8);
  nbd::Be64 start;
  std::memcpy(&start, reply.data.data(), sizeof(start));
  CHECK(start == offset);
  return {reply.data.begin() + 8, reply.data.end()};
}

void every_command(bool structured, Completion completion) {
  NbdFixture fixture({.completion = completion});
  auto& volume = fixture.volume();
  NbdClient client(fixture);
  client.go(structured);

  const Bytes data = pattern(kMaxIoBytes, 1);  // the largest, in many pieces
  CHECK(client.write(1 << 20, data) == nbd::kOk);
  CHECK(std::equal(data.begin(), data.end(), volume.data().begin() + (1 << 20)));
  const auto read = client.run({nbd::kCmdRead, 1 << 20, kMaxIoBytes});
  CHECK(read.structured == structured);
  CHECK(data_of(read, 1 << 20) == data);

  CHECK(client.run({nbd::kCmdFlush}).error == nbd::kOk);
  CHECK(volume.seen().back().op == IoOp::kFlush);

  CHECK(client.run({nbd::kCmdTrim, 1 << 20, 8192}).error == nbd::kOk);
  CHECK(volume.seen().back().op == IoOp::kDiscard && !volume.seen().back().fua);
  CHECK(!volume.allocated(1 << 20) && volume.allocated((1 << 20) + 8192));
  CHECK(client.run({nbd::kCmdWriteZeroes, (1 << 20) + 8192, 4096}).error == nbd::kOk);
  CHECK(volume.seen().back().op == IoOp::kWriteZeroes);
  CHECK(data_of(client.run({nbd::kCmdRead, (1 << 20) + 4096, 8192}), (1 << 20) + 4096) ==
        Bytes(8192));
  // Longer than any request with data: the whole volume at once.
  CHECK(client.run({nbd::kCmdWriteZeroes, 0, 64 << 20, nbd::kCmdFlagNoHole}).error == nbd::kOk);
  CHECK(std::all_of(volume.data().begin(), volume.data().end(),
                    [](std::byte byte) { return byte == std::byte{0}; }));
}

void fua_reaches_the_volume() {
  NbdFixture fixture;
  NbdClient client(fixture);
  client.go(true);
  const auto fua_seen = [&](uint16_t type) {
    NbdClient::Request request{type, 0, 4096, nbd::kCmdFlagFua};
    if (type == nbd::kCmdWrite) request.payload = pattern(4096, 2);
    CHECK(client.run(request).error == nbd::kOk);
    return fixture.volume().seen().back().fua;
  };
  CHECK(fua_seen(nbd::kCmdWrite));
  CHECK(fixture.volume().durable()[1] == fixture.volume().data()[1]);
  CHECK(fixture.volume().durable()[1] != std::byte{0});
  CHECK(fua_seen(nbd::kCmdTrim));
  CHECK(fua_seen(nbd::kCmdWriteZeroes));
  CHECK(!fua_seen(nbd::kCmdRead));  // accepted, means nothing
  CHECK(!fua_seen(nbd::kCmdBlockStatus));
  CHECK(!fua_seen(nbd::kCmdFlush));
}

void block_status(Completion completion) {
  NbdFixture fixture({.size_bytes = 256 << 20, .completion = completion});
  NbdClient client(fixture);
  client.go(true);
  const uint32_t size = 256 << 20;
  const auto ask = [&](uint64_t offset, uint32_t length, uint16_t flags = 0) {
    return extents_of(client.run({nbd::kCmdBlockStatus, offset, length, flags}));
  };
  CHECK(ask(0, size) == std::vector<Extent>({{size, kHole}}));
  client.write(8192, Bytes(4096));
  client.write(100 << 20, Bytes(1 << 20));
  const std::vector<Extent> all{
      {8192, kHole}, {4096, 0}, {(100 << 20) - 12288, kHole}, {1 << 20, 0}, {155 << 20, kHole}};
  CHECK(ask(0, size) == all);
  CHECK(ask(8192, 4096) == std::vector<Extent>({{4096, 0}}));
  CHECK(ask(4096, 8192) == std::vector<Extent>({{4096, kHole}, {4096, 0}}));
  // One descriptor, but whole: past the steps in which the volume is asked.
  CHECK(ask(12288, size - 12288, nbd::kCmdFlagReqOne) ==
        std::vector<Extent>({{(100 << 20) - 12288, kHole}}));
  CHECK(ask(8192, 65536, nbd::kCmdFlagReqOne) == std::vector<Extent>({{4096, 0}}));

  // More pieces than one reply holds: what is told is right, and asking on gets the rest.
  for (uint32_t block = 0; block < 10000; block += 2) {
    std::memset(fixture.volume().data().data() + block * 4096, 1, 4096);
    client.post({nbd::kCmdWrite, block * 4096, 4096, 0, block, Bytes(4096)});
    client.reply();
  }
  uint64_t at = 0;
  size_t pieces = 0;
  while (at < 10000 * 4096) {
    for (const Extent& extent : ask(at, 10000 * 4096 - static_cast<uint32_t>(at))) {
      CHECK(extent.length == 4096 && extent.state == (at / 4096 % 2 == 0 ? 0 : kHole));
      at += extent.length;
      ++pieces;
    }
  }
  CHECK(at == 10000 * 4096 && pieces == 10000);

  fixture.volume().fail(IoOp::kMap, IoStatus::kIoError, 1, 2);           // in the third step
  CHECK(client.run({nbd::kCmdBlockStatus, 0, size}).error == nbd::kOk);  // stops before it
  CHECK(client.run({nbd::kCmdBlockStatus, 64 << 20, 192 << 20}).error == nbd::kEio);
}

void wrong_requests(bool structured) {
  NbdFixture fixture;
  NbdClient client(fixture);
  client.go(structured);
  const uint64_t size = fixture.volume().size_bytes();
  const auto error = [&](NbdClient::Request request) {
    request.cookie = 0x1234567890;
    if (request.type == nbd::kCmdWrite) request.payload.resize(request.length);
    const auto reply = client.run(request);
    CHECK(reply.structured ==
          (structured && (request.type == nbd::kCmdRead || request.type == nbd::kCmdBlockStatus)));
    return reply.error;
  };
  for (const uint16_t type :
       {nbd::kCmdRead, nbd::kCmdWrite, nbd::kCmdTrim, nbd::kCmdWriteZeroes, nbd::kCmdBlockStatus}) {
    const bool writes = type == nbd::kCmdWrite || type == nbd::kCmdWriteZeroes;
    const uint32_t outside = writes ? nbd::kEnospc : nbd::kEinval;
    const bool known = type != nbd::kCmdBlockStatus || structured;
    CHECK(error({type, 512, 4096}) == nbd::kEinval);
    CHECK(error({type, 0, 512}) == nbd::kEinval);
    CHECK(error({type, 0, 0}) == nbd::kEinval);
    CHECK(error({type, size, 4096}) == (known ? outside : nbd::kEinval));
    CHECK(error({type, size - 4096, 8192}) == (known ? outside : nbd::kEinval));
    CHECK(error({type, UINT64_MAX - 4095, 4096}) == (known ? outside : nbd::kEinval));
    CHECK(error({type, 0, 4096, 1 << 10}) == nbd::kEinval);
    CHECK(error({type, size - 4096, 4096}) == (known ? nbd::kOk : nbd::kEinval));
  }
  CHECK(error({nbd::kCmdRead, 0, kMaxIoBytes + 4096}) == nbd::kEinval);
  CHECK(error({nbd::kCmdRead, 0, 0xfffff000}) == nbd::kEinval);
  // The payload of a refused write is read away, to the most that any client may send.
  CHECK(error({nbd::kCmdWrite, 0, kMaxIoBytes + 4096}) == nbd::kEinval);
  CHECK(error({nbd::kCmdWrite, 0, nbd::kDefaultMaxPayloadBytes}) == nbd::kEinval);
  CHECK(error({99, 0, 4096}) == nbd::kEinval);
  CHECK(error({5, 0, 4096}) == nbd::kEinval);  // NBD_CMD_CACHE, not offered
  CHECK(error({nbd::kCmdFlush, 0, 0, nbd::kCmdFlagReqOne}) == nbd::kEinval);
  CHECK(error({nbd::kCmdTrim, 0, 4096, nbd::kCmdFlagNoHole}) == nbd::kEinval);
  CHECK(error({nbd::kCmdRead, 0, 4096, nbd::kCmdFlagDf}) == (structured ? nbd::kOk : nbd::kEinval));
  CHECK(std::none_of(fixture.volume().data().begin(), fixture.volume().data().end(),
                     [](std::byte byte) { return byte != std::byte{0}; }));
}

void errors_of_the_volume() {
  const std::pair<IoStatus, uint32_t> pairs[] = {
      {IoStatus::kIoError, nbd::kEio},       {IoStatus::kNoSpace, nbd::kEnospc},
      {IoStatus::kOutOfRange, nbd::kEinval}, {IoStatus::kInvalid, nbd::kEinval},
      {IoStatus::kReadOnly, nbd::kEperm},    {IoStatus::kClosed, nbd::kEshutdown},
  };
  for (const bool structured : {false, true}) {
    NbdFixture fixture({.completion = Completion::kInOrder});
    NbdClient client(fixture);
    client.go(structured);
    for (const auto& [status, expected] : pairs) {
      fixture.volume().fail(IoOp::kRead, status);
      fixture.volume().fail(IoOp::kWrite, status);
      fixture.volume().fail(IoOp::kFlush, status);
      CHECK(client.run({nbd::kCmdRead, 0, 65536}).error == expected);
      CHECK(client.write(0, Bytes(65536)) == expected);
      CHECK(client.run({nbd::kCmdFlush}).error == expected);
      CHECK(client.run({nbd::kCmdRead, 0, 4096}).error == nbd::kOk);
    }
  }
  NbdFixture fixture({.read_only = true});
  NbdClient client(fixture);
  client.go(true);
  CHECK(client.write(0, Bytes(4096)) == nbd::kEperm);
  CHECK(client.run({nbd::kCmdTrim, 0, 4096}).error == nbd::kEperm);
  CHECK(client.run({nbd::kCmdWriteZeroes, 0, 4096}).error == nbd::kEperm);
  CHECK(client.run({nbd::kCmdFlush}).error == nbd::kOk);
  CHECK(client.run({nbd::kCmdRead, 0, 4096}).error == nbd::kOk);
}

/// Everything at once against a plain copy: replies in any order find their request by cookie.
void many_at_once_against_a_model(uint64_t seed, Completion completion) {
  constexpr uint32_t kBlocks = 512;
  NbdFixture fixture(
      {.size_bytes = kBlocks * 4096, .completion = completion, .seed = seed, .delay_ms = seed % 3});
  NbdClient client(fixture);
  client.go(seed % 2 == 0);
  std::mt19937_64 random(seed);
  Bytes model(kBlocks * 4096);

  for (int round = 0; round < 12; ++round) {
    // Requests of a round touch disjoint ranges, so that their order does not matter.
    std::map<uint64_t, NbdClient::Request> posted;
    uint64_t block = random() % 8;
    while (posted.size() < 100) {
      const uint64_t count = 1 + random() % 6;
      if (block + count > kBlocks) break;
      NbdClient::Request request{nbd::kCmdRead, block * 4096, static_cast<uint32_t>(count * 4096)};
      request.cookie = random();
      const auto kind = random() % 10;
      if (kind < 5) {
        request.type = nbd::kCmdWrite;
        request.payload = pattern(request.length, static_cast<uint32_t>(random()));
      } else if (kind < 7) {
        request.type = kind == 5 ? nbd::kCmdTrim : nbd::kCmdWriteZeroes;
      }
      client.post(request);
      const auto cookie = request.cookie;
      posted.emplace(cookie, std::move(request));
      block += count + random() % 3;
    }
    while (!posted.empty()) {
      // The length of a simple read reply is known by its cookie only, as for any client.
      std::array<std::byte, 16> head;
      REQUIRE(client.peek(head.data(), head.size()));
      nbd::Be64 cookie;
      std::memcpy(&cookie, head.data() + 8, sizeof(cookie));
      const auto found = posted.find(cookie);
      REQUIRE(found != posted.end());
      const auto& request = found->second;
      const auto reply = client.reply(request.type == nbd::kCmdRead ? request.length : 0);
      CHECK(reply.error == nbd::kOk);
      const auto at = model.begin() + static_cast<ptrdiff_t>(request.offset);
      if (request.type == nbd::kCmdRead) {
        CHECK(data_of(reply, request.offset) == Bytes(at, at + request.length));
      } else if (request.type == nbd::kCmdWrite) {
        std::copy(request.payload.begin(), request.payload.end(), at);
      } else {
        std::fill(at, at + request.length, std::byte{0});
      }
      posted.erase(found);
    }
  }
  CHECK(fixture.volume().data() == model);
  CHECK(completion == Completion::kInline || seed % 3 == 0 ||
        fixture.volume().most_in_flight() > 20);
}

void growing_shows_at_once() {
  NbdFixture fixture({.size_bytes = 1 << 20});
  NbdClient client(fixture);
  client.go(false);
  CHECK(client.run({nbd::kCmdRead, 1 << 20, 4096}).error == nbd::kEinval);
  fixture.volume().grow(2 << 20);
  CHECK(client.run({nbd::kCmdRead, 1 << 20, 4096}).error == nbd::kOk);
}

void flush_on_one_connection_covers_another() {
  NbdFixture fixture({.size_bytes = 1 << 20});
  fixture.volume().track_durable();
  NbdClient writer(fixture), flusher(fixture);
  writer.go(true);
  flusher.go(true);
  CHECK(fixture.exports().open_count(&fixture.volume()) == 2);
  const Bytes data = pattern(4096, 9);
  CHECK(writer.write(0, data) == nbd::kOk);
  CHECK(!std::equal(data.begin(), data.end(), fixture.volume().durable().begin()));
  CHECK(flusher.run({nbd::kCmdFlush}).error == nbd::kOk);
  CHECK(std::equal(data.begin(), data.end(), fixture.volume().durable().begin()));
}

}  // namespace

int main() {
  for (const auto completion : {Completion::kInline, Completion::kShuffled}) {
    every_command(false, completion);
    every_command(true, completion);
    block_status(completion);
    for (uint64_t seed = 1; seed <= 6; ++seed) many_at_once_against_a_model(seed, completion);
  }
  fua_reaches_the_volume();
  wrong_requests(false);
  wrong_requests(true);
  errors_of_the_volume();
  growing_shows_at_once();
  flush_on_one_connection_covers_another();
  return finish("nbd_transmission_test");
}
