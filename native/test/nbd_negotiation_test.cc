// The handshake: every option, right and wrong, and what the client is told of its volume.
#include "nbd_client.h"

namespace {

using namespace pando;
using namespace pando::test;

template <typename Wire>
Wire as(const Bytes& data) {
  Wire wire{};
  REQUIRE(data.size() >= sizeof(wire));
  std::memcpy(&wire, data.data(), sizeof(wire));
  return wire;
}

constexpr uint16_t kFlags = nbd::kTransmitHasFlags | nbd::kTransmitSendFlush |
                            nbd::kTransmitSendFua | nbd::kTransmitSendTrim |
                            nbd::kTransmitSendWriteZeroes | nbd::kTransmitCanMultiConn;

void go_describes_the_volume() {
  NbdFixture fixture({.block_size = 16384});
  NbdClient client(fixture);
  client.greet();
  const auto answers = client.ask(
      nbd::kOptGo, NbdClient::choice("volume", {nbd::kInfoName, nbd::kInfoBlockSize, 999}));
  REQUIRE(answers.size() == 4);
  const auto info = as<nbd::InfoExport>(answers[0].data);
  CHECK(info.type == nbd::kInfoExport && info.size_bytes == 64 << 20);
  CHECK(info.transmission_flags == kFlags);
  const auto block = as<nbd::InfoBlockSize>(answers[1].data);
  CHECK(block.type == nbd::kInfoBlockSize && block.minimum == 4096);
  CHECK(block.preferred == 16384 && block.maximum == kMaxIoBytes);
  CHECK(answers[2].text() == std::string("\0\1volume", 8));
  CHECK(answers[3].type == nbd::kRepAck && answers[3].data.empty());
  CHECK(fixture.exports().open_count(&fixture.volume()) == 1);
  CHECK(fixture.exports().requests().back().front_end == FrontEnd::kNbd);

  CHECK(client.run({nbd::kCmdRead, 0, 4096}).data == Bytes(4096));
  client.post({nbd::kCmdDisconnect});
  CHECK(client.ended());
  CHECK(fixture.turn_until([&] { return fixture.server().connections() == 0; }));
  CHECK(fixture.exports().open_count(&fixture.volume()) == 0);
}

void info_opens_and_closes() {
  NbdFixture fixture({.read_only = true});
  NbdClient client(fixture);
  client.greet();
  client.ask(nbd::kOptStructuredReply);
  for (int i = 0; i < 2; ++i) {
    const auto answers = client.ask(nbd::kOptInfo, NbdClient::choice("volume"));
    REQUIRE(answers.size() == 3);
    CHECK(as<nbd::InfoExport>(answers[0].data).transmission_flags ==
          (kFlags | nbd::kTransmitReadOnly | nbd::kTransmitSendDf));
    CHECK(fixture.exports().open_count(&fixture.volume()) == 0);
  }
  CHECK(client.ask(nbd::kOptGo, NbdClient::choice("volume")).back().type == nbd::kRepAck);
  CHECK(fixture.exports().open_count(&fixture.volume()) == 1);
}

void old_way_in_by_export_name() {
  for (const bool no_zeroes : {true, false}) {
    NbdFixture fixture;
    NbdClient client(fixture);
    client.greet(nbd::kClientFixedNewstyle | (no_zeroes ? nbd::kClientNoZeroes : 0));
    Bytes name = NbdClient::string("volume");
    name.erase(name.begin(), name.begin() + 4);
    client.send_option(nbd::kOptExportName, name);
    const auto reply = client.receive<nbd::ExportNameReply>();
    CHECK(reply.size_bytes == 64 << 20 && reply.transmission_flags == kFlags);
    if (!no_zeroes) CHECK(client.receive_bytes(124) == Bytes(124));
    CHECK(client.run({nbd::kCmdRead, 4096, 4096}).data == Bytes(4096));
  }
  NbdFixture fixture;
  NbdClient client(fixture);
  client.greet();
  client.send_option(nbd::kOptExportName, Bytes(3, std::byte{'x'}));
  CHECK(client.ended());
}

void open_errors_are_told_and_survived() {
  NbdFixture fixture;
  fixture.exports().refuse("busy", OpenStatus::kBusy);
  fixture.exports().refuse("denied", OpenStatus::kDenied);
  fixture.exports().refuse("broken", OpenStatus::kError);
  NbdClient client(fixture);
  client.greet();
  const auto ask = [&](const std::string& name) {
    return client.ask(nbd::kOptGo, NbdClient::choice(name)).back();
  };
  CHECK(ask("nothing").type == nbd::kRepErrUnknown);
  CHECK(ask("").type == nbd::kRepErrUnknown);
  CHECK(ask("busy").type == nbd::kRepErrPolicy);
  CHECK(ask("busy").text() == "the volume is served by another front end");
  CHECK(ask("denied").type == nbd::kRepErrPolicy);
  CHECK(ask("broken").type == nbd::kRepErrPolicy);
  CHECK(ask("volume").type == nbd::kRepAck);
}

void list_names_everything() {
  NbdFixture fixture({.name = "a"});
  std::vector<std::unique_ptr<MemoryVolume>> more;
  for (int i = 0; i < 3000; ++i) {  // more than one piece of the answer
    more.push_back(std::make_unique<MemoryVolume>(
        MemoryVolume::Options{.name = "volume-" + std::to_string(i), .size_bytes = 4096}));
    fixture.exports().add(more.back().get());
  }
  NbdClient client(fixture);
  client.greet();
  const auto answers = client.ask(nbd::kOptList);
  REQUIRE(answers.size() == 3002);
  CHECK(answers[0].type == nbd::kRepServer && answers[0].data == NbdClient::string("a"));
  CHECK(answers[1].data == NbdClient::string("volume-0"));
  CHECK(answers[3000].data == NbdClient::string("volume-999"));
  CHECK(client.ask(nbd::kOptList, Bytes(1)).back().type == nbd::kRepErrInvalid);
  CHECK(client.ask(nbd::kOptList).size() == 3002);
}

void metadata_contexts() {
  NbdFixture fixture;
  NbdClient client(fixture);
  client.greet();
  const auto ask = [&](uint32_t option, const std::vector<std::string>& queries) {
    return client.ask(option, NbdClient::contexts("volume", queries));
  };
  CHECK(ask(nbd::kOptSetMetaContext, {"base:allocation"}).back().type == nbd::kRepErrInvalid);
  client.ask(nbd::kOptStructuredReply);
  CHECK(ask(nbd::kOptListMetaContext, {}).size() == 2);
  CHECK(ask(nbd::kOptListMetaContext, {"base:"}).size() == 2);
  CHECK(ask(nbd::kOptListMetaContext, {"qemu:"}).size() == 1);
  CHECK(ask(nbd::kOptSetMetaContext, {"base:"}).size() == 1);
  CHECK(ask(nbd::kOptSetMetaContext, {"base:allocation", "qemu:dirty-bitmap:x"}).size() == 2);
  const auto answers = ask(nbd::kOptSetMetaContext, {"x:y", "base:allocation"});
  REQUIRE(answers.size() == 2);
  CHECK(answers[0].type == nbd::kRepMetaContext);
  CHECK(answers[0].text() == std::string("\0\0\0\1base:allocation", 19));
  client.ask(nbd::kOptGo, NbdClient::choice("volume"));
  CHECK(client.run({nbd::kCmdBlockStatus, 0, 4096}).error == nbd::kOk);

  // Chosen for one export, it does not count for another; the last choice replaces the others.
  for (const bool replaced : {false, true}) {
    NbdClient other(fixture);
    other.greet();
    other.ask(nbd::kOptStructuredReply);
    other.ask(nbd::kOptSetMetaContext,
              NbdClient::contexts(replaced ? "volume" : "elsewhere", {"base:allocation"}));
    if (replaced) other.ask(nbd::kOptSetMetaContext, NbdClient::contexts("volume", {}));
    other.ask(nbd::kOptGo, NbdClient::choice("volume"));
    CHECK(other.run({nbd::kCmdBlockStatus, 0, 4096}).error == nbd::kEinval);
  }
}

void wrong_options_cost_an_error_only() {
  NbdFixture fixture;
  NbdClient client(fixture);
  client.greet();
  const auto type = [&](uint32_t option, const Bytes& data) {
    return client.ask(option, data).back().type;
  };
  CHECK(type(5, {}) == nbd::kRepErrUnsup);   // NBD_OPT_STARTTLS
  CHECK(type(11, {}) == nbd::kRepErrUnsup);  // NBD_OPT_EXTENDED_HEADERS
  CHECK(type(nbd::kOptStructuredReply, Bytes(1)) == nbd::kRepErrInvalid);
  CHECK(type(nbd::kOptGo, {}) == nbd::kRepErrInvalid);
  CHECK(type(nbd::kOptGo, Bytes(5)) == nbd::kRepErrInvalid);
  CHECK(type(nbd::kOptGo, Bytes(64, std::byte{0xff})) == nbd::kRepErrInvalid);
  Bytes more = NbdClient::choice("volume");
  more.push_back({});
  CHECK(type(nbd::kOptGo, more) == nbd::kRepErrInvalid);
  CHECK(type(nbd::kOptGo, NbdClient::choice(std::string(4097, 'n'))) == nbd::kRepErrInvalid);
  CHECK(type(nbd::kOptGo, NbdClient::choice(std::string(4096, 'n'))) == nbd::kRepErrUnknown);
  CHECK(type(nbd::kOptListMetaContext, Bytes(7)) == nbd::kRepErrInvalid);
  CHECK(type(nbd::kOptListMetaContext, Bytes(64, std::byte{0xff})) == nbd::kRepErrInvalid);
  CHECK(type(nbd::kOptGo, Bytes(100 << 10)) == nbd::kRepErrTooBig);
  CHECK(type(99, Bytes(32 << 10)) == nbd::kRepErrUnsup);
  CHECK(type(99, Bytes((32 << 10) + 1)) == nbd::kRepErrTooBig);
  CHECK(fixture.exports().open_count(&fixture.volume()) == 0);

  // Options in one piece with what follows them, requests included, byte by byte or all at once.
  Bytes all;
  const Bytes choice = NbdClient::choice("volume");
  NbdClient::append(all, nbd::OptionHeader{nbd::kOptionMagic, nbd::kOptStructuredReply, 0});
  NbdClient::append(
      all, nbd::OptionHeader{nbd::kOptionMagic, nbd::kOptGo, static_cast<uint32_t>(choice.size())});
  NbdClient::append_bytes(all, choice);
  NbdClient::append(all, nbd::Request{nbd::kRequestMagic, 0, nbd::kCmdRead, 5, 0, 4096});
  NbdClient slow(fixture);
  slow.greet();
  for (const std::byte byte : all) {
    REQUIRE(slow.send(byte));
    fixture.reactor().turn(0);
  }
  REQUIRE(client.send(all));
  for (NbdClient* each : {&client, &slow}) {
    CHECK(each->option_answer(nbd::kOptStructuredReply).type == nbd::kRepAck);
    for (const uint32_t expected : {nbd::kRepInfo, nbd::kRepInfo, nbd::kRepAck}) {
      CHECK(each->option_answer(nbd::kOptGo).type == expected);
    }
    CHECK(each->reply().cookie == 5);
  }
}

void abort_is_acknowledged() {
  NbdFixture fixture;
  NbdClient client(fixture);
  client.greet();
  CHECK(client.ask(nbd::kOptAbort).back().type == nbd::kRepAck);
  CHECK(client.ended());
}

void answers_of_the_control_plane_may_take_their_time() {
  NbdFixture fixture;
  fixture.exports().defer();
  NbdClient client(fixture);
  client.greet();
  client.send_option(nbd::kOptList, {});
  CHECK(client.quiet());
  fixture.exports().answer();
  CHECK(client.option_answer(nbd::kOptList).type == nbd::kRepServer);
  CHECK(client.option_answer(nbd::kOptList).type == nbd::kRepAck);
  client.send_option(nbd::kOptGo, NbdClient::choice("volume"));
  CHECK(client.quiet());
  fixture.exports().answer();
  for (const uint32_t expected : {nbd::kRepInfo, nbd::kRepInfo, nbd::kRepAck}) {
    CHECK(client.option_answer(nbd::kOptGo).type == expected);
  }
  client.send_option(nbd::kOptAbort, Bytes(12));  // too late: no request looks like that
  CHECK(client.ended());

  // The client is gone when the answer comes: what was opened is closed.
  NbdClient impatient(fixture);
  impatient.greet();
  impatient.send_option(nbd::kOptGo, NbdClient::choice("volume"));
  CHECK(fixture.turn_until([&] { return fixture.exports().owed() == 1; }));
  impatient.close();
  fixture.settle();
  fixture.exports().answer();
  CHECK(fixture.turn_until([&] { return fixture.server().connections() == 0; }));
  CHECK(fixture.exports().open_count(&fixture.volume()) == 0);
}

}  // namespace

int main() {
  go_describes_the_volume();
  info_opens_and_closes();
  old_way_in_by_export_name();
  open_errors_are_told_and_survived();
  list_names_everything();
  metadata_contexts();
  wrong_options_cost_an_error_only();
  abort_is_acknowledged();
  answers_of_the_control_plane_may_take_their_time();
  return finish("nbd_negotiation_test");
}
