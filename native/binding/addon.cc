// Registration: what JavaScript sees, and nothing else.
#include <napi.h>

#include "args.h"
#include "block_io.h"
#include "crc32c.h"
#include "device_calls.h"
#include "engine.h"
#include "fold_calls.h"
#include "front_end_calls.h"
#include "index_block.h"
#include "key_calls.h"
#include "load_calls.h"
#include "nbd_device_calls.h"
#include "pool_calls.h"
#include "process_calls.h"
#include "ublk_calls.h"

namespace pando {
namespace {

/// Equal to ABI_VERSION in native.ts; raised whenever a function of the surface changes.
constexpr uint32_t kAbiVersion = 14;

Napi::Value Abi(const Napi::CallbackInfo& info) {
  Napi::Object abi = Napi::Object::New(info.Env());
  abi.Set("version", kAbiVersion);
  abi.Set("sectorBytes", kSectorSize);
  abi.Set("slotsPerSpan", kSlotsPerSpan);
  abi.Set("indexBlockBytes", kIndexBlockBytes);
  return abi;
}

Napi::Value Crc32c(const Napi::CallbackInfo& info) {
  Args args(info, "crc32c");
  const auto data = args.bytes(0, "data");
  const uint64_t seed = args.is_null(1) ? 0 : args.number(1, "seed");
  if (!args.ok()) return info.Env().Undefined();
  const uint32_t crc = crc32c(data.Data(), data.ByteLength(), static_cast<uint32_t>(seed));
  return Napi::Number::New(info.Env(), crc);
}

Napi::Object Register(Napi::Env env, Napi::Object exports) {
  exports.Set("abi", Napi::Function::New(env, Abi));
  exports.Set("crc32c", Napi::Function::New(env, Crc32c));
  register_device_calls(env, exports);
  register_pool_calls(env, exports);
  register_fold_calls(env, exports);
  register_front_end_calls(env, exports);
  register_load_calls(env, exports);
  register_nbd_device_calls(env, exports);
  register_ublk_calls(env, exports);
  register_process_calls(env, exports);
  register_key_calls(env, exports);
  napi_add_env_cleanup_hook(
      env, [](void* raw) { stop_engines(static_cast<napi_env>(raw)); }, static_cast<napi_env>(env));
  return exports;
}

}  // namespace
}  // namespace pando

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  return pando::Register(env, exports);
}

NODE_API_MODULE(pando, Init)
