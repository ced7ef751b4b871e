// The pool as JavaScript sees it. Each function checks its arguments on the calling thread, then
// goes on on the reactor.
#include "pool_calls.h"

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "args.h"
#include "engine.h"
#include "volume.h"

namespace pando {
namespace {

Napi::Value undefined(Args& args) {
  return args.env().Undefined();
}

/// On the reactor: the volume, or a rejection.
Volume* volume_or_reject(Engine& engine, uint64_t id, const Settle& settle) {
  Volume* volume = engine.pool().find_volume(id);
  if (volume == nullptr) settle(ENOENT, "no such open volume", nullptr);
  return volume;
}

/// poolOpen(device, options, onEvent): handle
Napi::Value PoolOpen(const Napi::CallbackInfo& info) {
  Args args(info, "poolOpen");
  const uint64_t handle = args.number(0, "device");
  const Napi::Object from = args.object(1, "options");
  const Napi::Function on_event = args.function(2, "onEvent");
  PoolOptions options{};
  options.block_size = static_cast<uint32_t>(args.number_field(from, "blockSizeBytes"));
  options.data_offset_bytes = args.number_field(from, "dataOffsetBytes");
  options.index_cache_bytes = args.number_field(from, "indexCacheBytes");
  options.dirty_limit = args.number_field(from, "dirtyLimit");
  options.extents_low_blocks = args.number_field(from, "extentsLowBlocks");
  options.journal.offset_bytes = args.number_field(from, "journalOffsetBytes");
  options.journal.block_count = args.number_field(from, "journalBlocks");
  options.journal.next_sequence = args.number_field(from, "nextSequence");
  options.journal.epoch = args.number_field(from, "epoch");
  options.boot_id = args.string_field(from, "bootId");
  const std::string shared_path = args.string_field(from, "sharedPath");
  if (args.ok() && options.boot_id.size() > 40) args.fail("bootId", "at most 40 bytes");
  const std::vector<uint8_t> uuid = args.bytes_field(from, "uuid", 16);
  std::copy(uuid.begin(), uuid.end(), options.journal.pool_uuid.begin());
  if (!args.ok()) return undefined(args);
  auto device = find_device(handle);
  if (device == nullptr) return args.fail("device", "an open device"), undefined(args);

  try {
    auto engine = std::make_shared<Engine>(args.env(), next_engine_id(), device, options,
                                           shared_path, on_event);
    add_engine(engine);
    engine->start();
    return to_js_number(args.env(), engine->id());
  } catch (const std::system_error& error) {
    errno_error(args.env(), error.code().value(), "map " + shared_path)
        .ThrowAsJavaScriptException();
    return undefined(args);
  }
}

/// poolClose(pool). Its volumes are closed already; in a simulation they may be left as they are
/// (the process is said to have died).
Napi::Value PoolClose(const Napi::CallbackInfo& info) {
  Args args(info, "poolClose");
  const auto engine = engine_arg(args);
  if (engine == nullptr) return undefined(args);
  engine->stop();
  remove_engine(engine->id());
  return undefined(args);
}

/// poolPoison(pool, what)
Napi::Value PoolPoison(const Napi::CallbackInfo& info) {
  Args args(info, "poolPoison");
  const auto engine = engine_arg(args);
  const std::string what = args.string(1, "what");
  if (!args.ok()) return undefined(args);
  engine->on_reactor([engine, what] { engine->pool().poison(EIO, what); });
  return undefined(args);
}

/// poolDrain(pool): number of things that ran. Simulation only.
Napi::Value PoolDrain(const Napi::CallbackInfo& info) {
  Args args(info, "poolDrain");
  const auto engine = engine_arg(args);
  if (engine == nullptr) return undefined(args);
  return to_js_number(args.env(), engine->drain(args.env()));
}

/// volumeOpen(pool, {id, name, uuid, sizeBytes, readOnly, lineage, bornHere}): Promise
Napi::Value VolumeOpen(const Napi::CallbackInfo& info) {
  Args args(info, "volumeOpen");
  const auto engine = engine_arg(args);
  const Napi::Object from = args.object(1, "options");
  VolumeOptions options;
  options.id = args.number_field(from, "id");
  options.name = args.string_field(from, "name");
  const std::vector<uint8_t> uuid = args.bytes_field(from, "uuid", 16);
  std::copy(uuid.begin(), uuid.end(), options.uuid.begin());
  options.size_bytes = args.number_field(from, "sizeBytes");
  options.read_only = args.boolean_field(from, "readOnly");
  if (args.ok()) options.lineage = args.numbers(from.Get("lineage"), "lineage");
  options.born_here = args.boolean_field(from, "bornHere");
  options.requests_per_second = args.number_field(from, "requestsPerSecond");
  options.bytes_per_second = args.number_field(from, "bytesPerSecond");
  if (args.ok() && options.lineage.empty()) args.fail("lineage", "at least one layer");
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [engine, options](const Settle& settle) {
    if (engine->pool().find_volume(options.id) != nullptr) {
      settle(EEXIST, "the volume is open", nullptr);
      return;
    }
    engine->pool().open_volume(options);
    settle(0, "", nullptr);
  });
}

/// volumeClose(pool, volume): Promise, when its last request has ended
Napi::Value VolumeClose(const Napi::CallbackInfo& info) {
  Args args(info, "volumeClose");
  const auto engine = engine_arg(args);
  const uint64_t id = args.number(1, "volume");
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [engine, id](const Settle& settle) {
    if (volume_or_reject(*engine, id, settle) == nullptr) return;
    engine->pool().close_volume(id, [settle] { settle(0, "", nullptr); });
  });
}

/// volumeFlush(pool, volume): Promise
Napi::Value VolumeFlush(const Napi::CallbackInfo& info) {
  Args args(info, "volumeFlush");
  const auto engine = engine_arg(args);
  const uint64_t id = args.number(1, "volume");
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [engine, id](const Settle& settle) {
    if (volume_or_reject(*engine, id, settle) == nullptr) return;
    engine->pool().flush_volume(id, [settle](int error) { settle(error, "flush", nullptr); });
  });
}

/// volumeFreeze(pool, volumes): Promise. Whatever it ends with, every volume has to be thawed.
Napi::Value VolumeFreeze(const Napi::CallbackInfo& info) {
  Args args(info, "volumeFreeze");
  const auto engine = engine_arg(args);
  const std::vector<uint64_t> ids = args.numbers(info[1], "volumes");
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [engine, ids](const Settle& settle) {
    for (uint64_t id : ids) {
      if (volume_or_reject(*engine, id, settle) == nullptr) return;
    }
    engine->pool().freeze(ids, [settle](int error) { settle(error, "freeze", nullptr); });
  });
}

/// volumeThaw(pool, volume, newLayer or 0): Promise
Napi::Value VolumeThaw(const Napi::CallbackInfo& info) {
  Args args(info, "volumeThaw");
  const auto engine = engine_arg(args);
  const uint64_t id = args.number(1, "volume");
  const uint64_t layer = args.number(2, "newLayer");
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [engine, id, layer](const Settle& settle) {
    if (volume_or_reject(*engine, id, settle) == nullptr) return;
    engine->pool().thaw(id, layer);
    settle(0, "", nullptr);
  });
}

/// volumeResize(pool, volume, sizeBytes): Promise. Grows only.
Napi::Value VolumeResize(const Napi::CallbackInfo& info) {
  Args args(info, "volumeResize");
  const auto engine = engine_arg(args);
  const uint64_t id = args.number(1, "volume");
  const uint64_t size = args.number(2, "sizeBytes");
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [engine, id, size](const Settle& settle) {
    Volume* volume = volume_or_reject(*engine, id, settle);
    if (volume == nullptr) return;
    if (size < volume->size_bytes()) {
      settle(EINVAL, "a volume does not shrink", nullptr);
      return;
    }
    engine->pool().resize_volume(id, size);
    settle(0, "", nullptr);
  });
}

/// volumeLimit(pool, volume, requestsPerSecond, bytesPerSecond): Promise. 0: no limit.
Napi::Value VolumeLimit(const Napi::CallbackInfo& info) {
  Args args(info, "volumeLimit");
  const auto engine = engine_arg(args);
  const uint64_t id = args.number(1, "volume");
  const uint64_t requests = args.number(2, "requestsPerSecond");
  const uint64_t bytes = args.number(3, "bytesPerSecond");
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [engine, id, requests, bytes](const Settle& settle) {
    Volume* volume = volume_or_reject(*engine, id, settle);
    if (volume == nullptr) return;
    volume->set_limits(requests, bytes);
    settle(0, "", nullptr);
  });
}

/// checkpointBegin(pool): Promise<{tail, dirty, changes: Uint32Array of (first block, count, 1
/// allocated | 0 freed)}>
Napi::Value CheckpointBegin(const Napi::CallbackInfo& info) {
  Args args(info, "checkpointBegin");
  const auto engine = engine_arg(args);
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [engine](const Settle& settle) {
    engine->pool().checkpoint_begin([settle](const Pool::CheckpointStart& start) {
      settle(start.error, "commit the journal", [start](Napi::Env env) -> Napi::Value {
        Napi::Object result = Napi::Object::New(env);
        result.Set("tail", to_js_number(env, start.tail));
        result.Set("dirty", to_js_number(env, start.dirty));
        Napi::Uint32Array changes = Napi::Uint32Array::New(env, start.changes.size() * 3);
        for (size_t i = 0; i < start.changes.size(); ++i) {
          changes[i * 3] = start.changes[i].first_block;
          changes[i * 3 + 1] = start.changes[i].count;
          changes[i * 3 + 2] = start.changes[i].allocate ? 1 : 0;
        }
        result.Set("changes", changes);
        return result;
      });
    });
  });
}

/// checkpointTake(pool, limit): Promise<{layers: number[], spans: number[], inherited: number[],
/// blocks: Uint8Array}>
Napi::Value CheckpointTake(const Napi::CallbackInfo& info) {
  Args args(info, "checkpointTake");
  const auto engine = engine_arg(args);
  const uint64_t limit = args.number(1, "limit");
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [engine, limit](const Settle& settle) {
    engine->pool().checkpoint_take(limit, [settle](int error, std::vector<DirtyCopy> taken) {
      auto copies = std::make_shared<std::vector<DirtyCopy>>(std::move(taken));
      settle(error, "commit the journal", [copies](Napi::Env env) -> Napi::Value {
        const auto count = static_cast<uint32_t>(copies->size());
        Napi::Array layers = Napi::Array::New(env, count);
        Napi::Array spans = Napi::Array::New(env, count);
        Napi::Uint8Array blocks = Napi::Uint8Array::New(env, size_t{count} * kIndexBlockBytes);
        for (uint32_t i = 0; i < count; ++i) {
          const DirtyCopy& copy = (*copies)[i];
          layers.Set(i, to_js_number(env, copy.layer));
          spans.Set(i, copy.span);
          std::memcpy(blocks.Data() + size_t{i} * kIndexBlockBytes, copy.bytes.data(),
                      kIndexBlockBytes);
        }
        Napi::Object result = Napi::Object::New(env);
        result.Set("layers", layers);
        result.Set("spans", spans);
        result.Set("blocks", blocks);
        return result;
      });
    });
  });
}

/// checkpointStored(pool): Promise. What was taken last is durable in the store.
Napi::Value CheckpointStored(const Napi::CallbackInfo& info) {
  Args args(info, "checkpointStored");
  const auto engine = engine_arg(args);
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [engine](const Settle& settle) {
    engine->pool().checkpoint_stored();
    settle(0, "", nullptr);
  });
}

/// checkpointEnd(pool, success): Promise
Napi::Value CheckpointEnd(const Napi::CallbackInfo& info) {
  Args args(info, "checkpointEnd");
  const auto engine = engine_arg(args);
  const bool success = args.boolean(1, "success");
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [engine, success](const Settle& settle) {
    engine->pool().checkpoint_end(success);
    settle(0, "", nullptr);
  });
}

/// extentsLend(pool, runs: Uint32Array of (first block, count), exhausted)
Napi::Value ExtentsLend(const Napi::CallbackInfo& info) {
  Args args(info, "extentsLend");
  const auto engine = engine_arg(args);
  const bool exhausted = args.boolean(2, "exhausted");
  std::vector<BlockRun> runs = args.ok() ? runs_arg(args, 1) : std::vector<BlockRun>{};
  if (!args.ok()) return undefined(args);
  engine->on_reactor(
      [engine, runs = std::move(runs), exhausted] { engine->pool().lend(runs, exhausted); });
  return undefined(args);
}

/// indexServe(pool, onQuestions): the calling thread's environment answers index questions from now
/// on.
Napi::Value IndexServe(const Napi::CallbackInfo& info) {
  Args args(info, "indexServe");
  const auto engine = engine_arg(args);
  const Napi::Function on_questions = args.function(1, "onQuestions");
  if (args.ok()) engine->serve_index(args.env(), on_questions);
  return undefined(args);
}

/// indexAnswer(pool, token, owner, block or null, failed)
Napi::Value IndexAnswer(const Napi::CallbackInfo& info) {
  Args args(info, "indexAnswer");
  const auto engine = engine_arg(args);
  const uint64_t token = args.number(1, "token");
  const uint64_t owner = args.number(2, "owner");
  std::vector<std::byte> bytes;
  if (args.ok() && !args.is_null(3)) {
    const auto block = args.bytes(3, "block");
    if (args.ok() && block.ByteLength() != kIndexBlockBytes) {
      args.fail("block", "2,112 bytes");
    } else if (args.ok()) {
      bytes.resize(kIndexBlockBytes);
      std::memcpy(bytes.data(), block.Data(), kIndexBlockBytes);
    }
  }
  const bool failed = args.is_null(4) ? false : args.boolean(4, "failed");
  if (!args.ok()) return undefined(args);
  engine->on_reactor([engine, token, owner, failed, bytes = std::move(bytes)] {
    engine->pool().index_answer(token, owner, bytes.empty() ? nullptr : bytes.data(), failed);
  });
  return undefined(args);
}

/// One request from JavaScript, with everything that it needs to live.
struct JsIo : std::enable_shared_from_this<JsIo> {
  BlockIo io;
  Buffer buffer;
  std::vector<MapExtent> extents;
  Settle settle;
  Engine* engine;
};

void js_io_done(BlockIo* io) {
  static constexpr const char* kStatuses[] = {"ok",      "io-error",  "no-space", "out-of-range",
                                              "invalid", "read-only", "closed"};
  auto* request = static_cast<JsIo*>(io->context);
  const auto owned = request->shared_from_this();
  request->engine->requests.erase(owned);
  const char* status = kStatuses[static_cast<size_t>(io->status)];
  std::vector<uint8_t> data;
  if (io->op == IoOp::kRead && io->status == IoStatus::kOk) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(owned->buffer.data());
    data.assign(bytes, bytes + io->length_bytes);
  }
  owned->settle(0, "", [status, data, extents = owned->extents](Napi::Env env) -> Napi::Value {
    Napi::Object result = Napi::Object::New(env);
    result.Set("status", status);
    Napi::Uint8Array bytes = Napi::Uint8Array::New(env, data.size());
    std::copy(data.begin(), data.end(), bytes.Data());
    result.Set("data", bytes);
    Napi::Array map = Napi::Array::New(env, extents.size());
    for (uint32_t i = 0; i < extents.size(); ++i) {
      Napi::Object extent = Napi::Object::New(env);
      extent.Set("lengthBytes", to_js_number(env, extents[i].length_bytes));
      extent.Set("data", extents[i].data);
      map.Set(i, extent);
    }
    result.Set("extents", map);
    return result;
  });
}

/// volumeIo(pool, volume, op, offset, length, data or null, fua): Promise<{status, data, extents}>.
/// op: 0 read, 1 write, 2 flush, 3 discard, 4 write zeroes, 5 map. For tests and tools; front ends
/// never come this way.
Napi::Value VolumeIo(const Napi::CallbackInfo& info) {
  Args args(info, "volumeIo");
  const auto engine = engine_arg(args);
  const uint64_t id = args.number(1, "volume");
  const uint64_t op = args.number(2, "op");
  const uint64_t offset = args.number(3, "offset");
  const uint64_t length = args.number(4, "length");
  const bool fua = args.boolean(6, "fua");
  std::vector<uint8_t> data;
  if (args.ok() && op == static_cast<uint64_t>(IoOp::kWrite)) {
    const auto bytes = args.bytes(5, "data");
    if (args.ok()) data.assign(bytes.Data(), bytes.Data() + bytes.ByteLength());
    if (args.ok() && data.size() != length) args.fail("data", "as long as the request");
  }
  if (args.ok() && op > static_cast<uint64_t>(IoOp::kMap)) args.fail("op", "0 to 5");
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [=, data = std::move(data)](const Settle& settle) {
    Volume* volume = volume_or_reject(*engine, id, settle);
    if (volume == nullptr) return;
    auto request = std::make_shared<JsIo>();
    request->settle = settle;
    request->engine = engine.get();
    engine->requests.insert(request);
    BlockIo& io = request->io;
    io.op = static_cast<IoOp>(op);
    io.fua = fua;
    io.offset_bytes = offset;
    io.length_bytes = length;
    const bool carries_data = io.op == IoOp::kRead || io.op == IoOp::kWrite;
    if (carries_data && length > 0 && length <= kMaxIoBytes) {
      request->buffer = engine->buffers().take(length);
      io.data = request->buffer.data();
      if (io.op == IoOp::kWrite) std::memcpy(io.data, data.data(), length);
    }
    io.extents = &request->extents;
    io.context = request.get();
    io.done = js_io_done;
    volume->submit(&io);
  });
}

/// exportsAnswerOpen(pool, token, status, volume, authenticate): answers an "open" event; status: 0
/// ok, 1 not found, 2 denied, 3 busy, 4 error
Napi::Value ExportsAnswerOpen(const Napi::CallbackInfo& info) {
  Args args(info, "exportsAnswerOpen");
  const auto engine = engine_arg(args);
  const uint64_t token = args.number(1, "token");
  const uint64_t status = args.number(2, "status");
  const uint64_t id = args.number(3, "volume");
  const bool authenticate = args.boolean(4, "authenticate");
  if (args.ok() && status > static_cast<uint64_t>(OpenStatus::kError))
    args.fail("status", "0 to 4");
  if (!args.ok()) return undefined(args);
  engine->on_reactor([engine, token, status, id, authenticate] {
    OpenResult result{static_cast<OpenStatus>(status), nullptr, authenticate};
    if (result.status == OpenStatus::kOk) result.volume = engine->pool().find_volume(id);
    engine->answer_open(token, result);
  });
  return undefined(args);
}

/// exportsAnswerAuth(pool, token, verdict, message): answers an "auth" event; verdict: 0 pending, 1
/// authenticated, 2 failed
Napi::Value ExportsAnswerAuth(const Napi::CallbackInfo& info) {
  Args args(info, "exportsAnswerAuth");
  const auto engine = engine_arg(args);
  const uint64_t token = args.number(1, "token");
  const uint64_t verdict = args.number(2, "verdict");
  if (args.ok() && verdict > static_cast<uint64_t>(AuthVerdict::kFailed)) {
    args.fail("verdict", "0 to 2");
  }
  AuthAnswer answer{static_cast<AuthVerdict>(verdict), {}};
  if (args.ok() && !args.is_null(3)) {
    const Napi::Uint8Array message = args.bytes(3, "message");
    if (args.ok()) {
      const auto* data = reinterpret_cast<const std::byte*>(message.Data());
      answer.message.assign(data, data + message.ByteLength());
    }
  }
  if (!args.ok()) return undefined(args);
  engine->on_reactor([engine, token, answer = std::move(answer)] {
    engine->answer_authentication(token, answer);
  });
  return undefined(args);
}

/// exportsAnswerList(pool, token, names, tls): answers a "list" event
Napi::Value ExportsAnswerList(const Napi::CallbackInfo& info) {
  Args args(info, "exportsAnswerList");
  const auto engine = engine_arg(args);
  const uint64_t token = args.number(1, "token");
  std::vector<ExportEntry> entries;
  if (args.ok() && !info[2].IsArray()) args.fail("names", "an array of strings");
  if (!args.ok()) return undefined(args);
  const bool secure = args.boolean(3, "tls");
  if (!args.ok()) return undefined(args);
  const auto names = info[2].As<Napi::Array>();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    entries.push_back({names.Get(i).ToString().Utf8Value(), secure});
  }
  engine->on_reactor(
      [engine, token, entries = std::move(entries)] { engine->answer_list(token, entries); });
  return undefined(args);
}

/// exportsAnswerTlsKey(pool, token, key): answers a "tlsKey" event; key: {identity, sha384, secret,
/// hostNqn, subsystemNqn}, or null
Napi::Value ExportsAnswerTlsKey(const Napi::CallbackInfo& info) {
  Args args(info, "exportsAnswerTlsKey");
  const auto engine = engine_arg(args);
  const uint64_t token = args.number(1, "token");
  TlsKey key;
  if (args.ok() && !args.is_null(2)) {
    const Napi::Object from = args.object(2, "key");
    key.identity = args.string_field(from, "identity");
    key.sha384 = args.boolean_field(from, "sha384");
    const auto secret = args.bytes_field(from, "secret", key.sha384 ? 48 : 32);
    const auto* bytes = reinterpret_cast<const std::byte*>(secret.data());
    key.secret.assign(bytes, bytes + secret.size());
    key.host_nqn = args.string_field(from, "hostNqn");
    key.subsystem_nqn = args.string_field(from, "subsystemNqn");
  }
  if (!args.ok()) return undefined(args);
  engine->on_reactor([engine, token, key = std::move(key)] { engine->answer_tls_key(token, key); });
  return undefined(args);
}

/// layerDeltas(pool): Promise<{layer, owned, mapped}[]>: blocks beyond what the store counts
Napi::Value LayerDeltas(const Napi::CallbackInfo& info) {
  Args args(info, "layerDeltas");
  const auto engine = engine_arg(args);
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [engine](const Settle& settle) {
    settle(0, "", [deltas = engine->pool().index().layer_deltas()](Napi::Env env) -> Napi::Value {
      Napi::Array result = Napi::Array::New(env, deltas.size());
      for (uint32_t i = 0; i < deltas.size(); ++i) {
        Napi::Object entry = Napi::Object::New(env);
        entry.Set("layer", to_js_number(env, deltas[i].layer));
        entry.Set("owned", Napi::Number::New(env, static_cast<double>(deltas[i].owned)));
        entry.Set("mapped", Napi::Number::New(env, static_cast<double>(deltas[i].mapped)));
        result.Set(i, entry);
      }
      return result;
    });
  });
}

/// poolStats(pool): Promise<Record<string, number>>
Napi::Value PoolStats(const Napi::CallbackInfo& info) {
  Args args(info, "poolStats");
  const auto engine = engine_arg(args);
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [engine](const Settle& settle) {
    const Pool& pool = engine->pool();
    const PoolCounters& c = pool.counters();
    const std::vector<std::pair<const char*, uint64_t>> values = {
        {"reads", c.reads},
        {"writes", c.writes},
        {"discards", c.discards},
        {"flushes", c.flushes},
        {"readBytes", c.read_bytes},
        {"writtenBytes", c.written_bytes},
        {"inPlaceWrites", c.in_place_writes},
        {"allocatingWrites", c.allocating_writes},
        {"indexWaits", c.index_waits},
        {"extentWaits", c.extent_waits},
        {"journalWaits", c.journal_waits},
        {"overlapWaits", c.overlap_waits},
        {"gateWaits", c.gate_waits},
        {"foldWaits", c.fold_waits},
        {"limitWaits", c.limit_waits},
        {"noSpace", c.no_space},
        {"ioErrors", c.io_errors},
        {"discardedOwnedSlots", c.freed_owned_discards},
        {"discardedSharedSlots", c.freed_shared_discards},
        {"indexHits", pool.index().hits()},
        {"indexMisses", pool.index().misses()},
        {"indexAnswers", pool.index().answers()},
        {"indexAnswerNanoseconds", pool.index().answer_ns()},
        {"indexEvictions", pool.index().evictions()},
        {"indexStaleAnswers", pool.index().stale_answers()},
        {"indexInheritedDepthMax", pool.index().inherited_depth_max()},
        {"indexEntries", pool.index().entry_count()},
        {"indexDirty", pool.index().dirty_count()},
        {"commitRounds", pool.committer().rounds()},
        {"journalWrites", pool.committer().journal_writes()},
        {"journalTail", pool.journal().tail()},
        {"journalSequence", pool.journal().durable_sequence()},
        {"journalUsedBlocks", pool.journal().used_blocks()},
        {"lentBlocks", pool.extents().free_blocks()},
        {"pendingFreeBlocks", pool.releases().pending_blocks()},
        {"releasesHeldByIo", pool.releases().held_by_io()},
        {"releasesHeldByReads", pool.releases().held_by_reads()},
    };
    settle(0, "", [values](Napi::Env env) -> Napi::Value {
      Napi::Object result = Napi::Object::New(env);
      for (const auto& [name, value] : values) result.Set(name, to_js_number(env, value));
      return result;
    });
  });
}

}  // namespace

void register_pool_calls(Napi::Env env, Napi::Object exports) {
  exports.Set("poolOpen", Napi::Function::New(env, PoolOpen));
  exports.Set("poolClose", Napi::Function::New(env, PoolClose));
  exports.Set("poolPoison", Napi::Function::New(env, PoolPoison));
  exports.Set("poolDrain", Napi::Function::New(env, PoolDrain));
  exports.Set("poolStats", Napi::Function::New(env, PoolStats));
  exports.Set("volumeOpen", Napi::Function::New(env, VolumeOpen));
  exports.Set("volumeClose", Napi::Function::New(env, VolumeClose));
  exports.Set("volumeFlush", Napi::Function::New(env, VolumeFlush));
  exports.Set("volumeFreeze", Napi::Function::New(env, VolumeFreeze));
  exports.Set("volumeThaw", Napi::Function::New(env, VolumeThaw));
  exports.Set("volumeResize", Napi::Function::New(env, VolumeResize));
  exports.Set("volumeLimit", Napi::Function::New(env, VolumeLimit));
  exports.Set("volumeIo", Napi::Function::New(env, VolumeIo));
  exports.Set("exportsAnswerOpen", Napi::Function::New(env, ExportsAnswerOpen));
  exports.Set("exportsAnswerAuth", Napi::Function::New(env, ExportsAnswerAuth));
  exports.Set("exportsAnswerList", Napi::Function::New(env, ExportsAnswerList));
  exports.Set("exportsAnswerTlsKey", Napi::Function::New(env, ExportsAnswerTlsKey));
  exports.Set("layerDeltas", Napi::Function::New(env, LayerDeltas));
  exports.Set("checkpointBegin", Napi::Function::New(env, CheckpointBegin));
  exports.Set("checkpointTake", Napi::Function::New(env, CheckpointTake));
  exports.Set("checkpointStored", Napi::Function::New(env, CheckpointStored));
  exports.Set("checkpointEnd", Napi::Function::New(env, CheckpointEnd));
  exports.Set("extentsLend", Napi::Function::New(env, ExtentsLend));
  exports.Set("indexServe", Napi::Function::New(env, IndexServe));
  exports.Set("indexAnswer", Napi::Function::New(env, IndexAnswer));
}

}  // namespace pando
