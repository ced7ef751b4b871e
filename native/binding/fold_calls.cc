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

/// Masks of `spans.size()` spans from the bytes of argument `index`.
std::vector<SlotMask> masks_arg(Args& args, size_t index, const std::vector<uint32_t>& spans) {
  std::vector<SlotMask> masks(spans.size());
  if (!args.ok()) return masks;
  const auto bytes = args.bytes(index, "adopted");
  if (!args.ok()) return masks;
  if (bytes.ByteLength() != spans.size() * sizeof(SlotMask)) {
    args.fail("adopted", "64 bytes for each span");
  } else if (!masks.empty()) {
    std::memcpy(masks.data(), bytes.Data(), bytes.ByteLength());
  }
  return masks;
}

/// HeldBlocks of native.ts
Napi::Value held_blocks(Napi::Env env, const std::vector<DirtyCopy>& copies) {
  const auto count = static_cast<uint32_t>(copies.size());
  Napi::Array spans = Napi::Array::New(env, count);
  Napi::Uint8Array blocks = Napi::Uint8Array::New(env, size_t{count} * kIndexBlockBytes);
  for (uint32_t i = 0; i < count; ++i) {
    spans.Set(i, copies[i].span);
    std::memcpy(blocks.Data() + size_t{i} * kIndexBlockBytes, copies[i].bytes.data(),
                kIndexBlockBytes);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("spans", spans);
  result.Set("blocks", blocks);
  return result;
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
      settle(error, "commit the journal",
             [copies](Napi::Env env) { return held_blocks(env, *copies); });
    });
  });
}

using Apply = void (Pool::*)(uint64_t parent, uint64_t child, const std::vector<uint32_t>& spans,
                             const std::vector<SlotMask>& adopted);

/// NAME(pool, parent, child, spans, adopted: Uint8Array of 64 bytes for each): Promise
Napi::Value apply_to_pool(const Napi::CallbackInfo& info, const char* name, Apply apply) {
  Args args(info, name);
  const auto engine = engine_arg(args);
  const uint64_t parent = args.number(1, "parent");
  const uint64_t child = args.number(2, "child");
  const std::vector<uint32_t> spans = spans_arg(args, info[3]);
  const std::vector<SlotMask> adopted = masks_arg(args, 4, spans);
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [=](const Settle& settle) {
    (engine->pool().*apply)(parent, child, spans, adopted);
    settle(0, "", nullptr);
  });
}

Napi::Value FoldApply(const Napi::CallbackInfo& info) {
  return apply_to_pool(info, "foldApply", &Pool::fold_apply);
}

Napi::Value FoldAbsorb(const Napi::CallbackInfo& info) {
  return apply_to_pool(info, "foldAbsorb", &Pool::fold_absorb);
}

/// foldHoldAll(pool, layer, limit): Promise<HeldBlocks | null>
Napi::Value FoldHoldAll(const Napi::CallbackInfo& info) {
  Args args(info, "foldHoldAll");
  const auto engine = engine_arg(args);
  const uint64_t layer = args.number(1, "layer");
  const uint64_t limit = args.number(2, "limit");
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [=](const Settle& settle) {
    engine->pool().fold_hold_all(
        layer, limit, [settle](int error, bool held, std::vector<DirtyCopy> taken) {
          auto copies = std::make_shared<std::vector<DirtyCopy>>(std::move(taken));
          settle(error, "commit the journal", [copies, held](Napi::Env env) -> Napi::Value {
            return held ? held_blocks(env, *copies) : env.Null();
          });
        });
  });
}

/// foldLetGoAll(pool, layer): Promise
Napi::Value FoldLetGoAll(const Napi::CallbackInfo& info) {
  Args args(info, "foldLetGoAll");
  const auto engine = engine_arg(args);
  const uint64_t layer = args.number(1, "layer");
  if (!args.ok()) return undefined(args);
  return make_promise(args.env(), engine, [=](const Settle& settle) {
    engine->pool().fold_let_go_all(layer);
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
  exports.Set("foldHoldAll", Napi::Function::New(env, FoldHoldAll));
  exports.Set("foldAbsorb", Napi::Function::New(env, FoldAbsorb));
  exports.Set("foldLetGoAll", Napi::Function::New(env, FoldLetGoAll));
  exports.Set("foldUnlink", Napi::Function::New(env, FoldUnlink));
  exports.Set("blocksRelease", Napi::Function::New(env, BlocksRelease));
  exports.Set("blocksPunch", Napi::Function::New(env, BlocksPunch));
}

}  // namespace pando
