// Folds as JavaScript drives them; what each message means is in the table of ARCHITECTURE.md.
#include "fold_calls.h"

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "args.h"
#include "engine.h"

namespace pando {
namespace {

Napi::Value undefined(Args& args) {
  return args.env().Undefined();
}

std::vector<uint32_t> spans_arg(Args& args, const Napi::Value& value) {
  std::vector<uint32_t> spans;
  for (uint64_t span : args.numbers(value, "spans")) {
    if (span > UINT32_MAX) args.fail("spans", "numbers below 2^32");
    spans.push_back(static_cast<uint32_t>(span));
  }
  return spans;
}

/// foldHold(pool, layer, spans): Promise<{spans: number[], blocks: Uint8Array}>, the dirty ones
Napi::Value FoldHold(const Napi::CallbackInfo& info) {
  Args args(info, "foldHold");
  const auto engine = engine_arg(args);
  const uint64_t layer = args.number(1, "layer");
  const std::vector<uint32_t> held = spans_arg(args, info[2]);
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [=](const Settle& settle) {
    engine->pool().fold_hold(layer, held, [settle](int error, std::vector<DirtyCopy> taken) {
      auto copies = std::make_shared<std::vector<DirtyCopy>>(std::move(taken));
      settle(error, "commit the journal", [copies](Napi::Env env) -> Napi::Value {
        const auto count = static_cast<uint32_t>(copies->size());
        Napi::Array spans = Napi::Array::New(env, count);
        Napi::Uint8Array blocks = Napi::Uint8Array::New(env, size_t{count} * kIndexBlockBytes);
        for (uint32_t i = 0; i < count; ++i) {
          const DirtyCopy& copy = (*copies)[i];
          spans.Set(i, copy.span);
          std::memcpy(blocks.Data() + size_t{i} * kIndexBlockBytes, copy.bytes.data(),
                      kIndexBlockBytes);
        }
        Napi::Object result = Napi::Object::New(env);
        result.Set("spans", spans);
        result.Set("blocks", blocks);
        return result;
      });
    });
  });
}

/// foldApply(pool, parent, child, spans, adopted: Uint8Array of 64 bytes for each): Promise
Napi::Value FoldApply(const Napi::CallbackInfo& info) {
  Args args(info, "foldApply");
  const auto engine = engine_arg(args);
  const uint64_t parent = args.number(1, "parent");
  const uint64_t child = args.number(2, "child");
  const std::vector<uint32_t> spans = spans_arg(args, info[3]);
  std::vector<SlotMask> adopted(spans.size());
  if (args.ok()) {
    const auto bytes = args.bytes(4, "adopted");
    if (args.ok() && bytes.ByteLength() != spans.size() * sizeof(SlotMask)) {
      args.fail("adopted", "64 bytes for each span");
    } else if (args.ok() && !adopted.empty()) {
      std::memcpy(adopted.data(), bytes.Data(), bytes.ByteLength());
    }
  }
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [=](const Settle& settle) {
    engine->pool().fold_apply(parent, child, spans, adopted);
    settle(0, "", nullptr);
  });
}

/// foldLetGo(pool, layer, spans): Promise
Napi::Value FoldLetGo(const Napi::CallbackInfo& info) {
  Args args(info, "foldLetGo");
  const auto engine = engine_arg(args);
  const uint64_t layer = args.number(1, "layer");
  const std::vector<uint32_t> spans = spans_arg(args, info[2]);
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [=](const Settle& settle) {
    engine->pool().fold_let_go(layer, spans);
    settle(0, "", nullptr);
  });
}

/// foldUnlink(pool, parent, child): Promise
Napi::Value FoldUnlink(const Napi::CallbackInfo& info) {
  Args args(info, "foldUnlink");
  const auto engine = engine_arg(args);
  const uint64_t parent = args.number(1, "parent");
  const uint64_t child = args.number(2, "child");
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [=](const Settle& settle) {
    engine->pool().fold_unlink(parent, child);
    settle(0, "", nullptr);
  });
}

/// blocksRelease(pool, runs: Uint32Array of (first block, count))
Napi::Value BlocksRelease(const Napi::CallbackInfo& info) {
  Args args(info, "blocksRelease");
  const auto engine = engine_arg(args);
  std::vector<BlockRun> runs = args.ok() ? runs_arg(args, 1) : std::vector<BlockRun>{};
  if (!args.ok()) return undefined(args);
  engine->on_reactor([engine, runs = std::move(runs)] { engine->pool().release_blocks(runs); });
  return undefined(args);
}

/// blocksPunch(pool, runs: Uint32Array of (first block, count)): Promise
Napi::Value BlocksPunch(const Napi::CallbackInfo& info) {
  Args args(info, "blocksPunch");
  const auto engine = engine_arg(args);
  const std::vector<BlockRun> runs = args.ok() ? runs_arg(args, 1) : std::vector<BlockRun>{};
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [=](const Settle& settle) {
    engine->pool().punch_blocks(runs,
                                [settle](int error) { settle(error, "punch holes", nullptr); });
  });
}

}  // namespace

void register_fold_calls(Napi::Env env, Napi::Object exports) {
  exports.Set("foldHold", Napi::Function::New(env, FoldHold));
  exports.Set("foldApply", Napi::Function::New(env, FoldApply));
  exports.Set("foldLetGo", Napi::Function::New(env, FoldLetGo));
  exports.Set("foldUnlink", Napi::Function::New(env, FoldUnlink));
  exports.Set("blocksRelease", Napi::Function::New(env, BlocksRelease));
  exports.Set("blocksPunch", Napi::Function::New(env, BlocksPunch));
}

}  // namespace pando
