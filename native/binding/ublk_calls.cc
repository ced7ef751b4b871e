// Block devices of ublk as JavaScript sees them. What goes to the control device blocks; what
// serves a device's requests is on the reactor.
#include "ublk_calls.h"

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "args.h"
#include "control_promise.h"
#include "engine.h"
#include "ublk_control.h"
#include "ublk_server.h"

namespace pando {
namespace {

/// ublkX(id): Promise
template <void (*Function)(uint32_t)>
Napi::Value ControlById(const Napi::CallbackInfo& info) {
  Args args(info, "ublk");
  const auto id = static_cast<uint32_t>(args.number(0, "device"));
  if (!args.ok()) return args.env().Undefined();
  return control_promise(args.env(), [id]() -> MakeValue {
    Function(id);
    return nullptr;
  });
}

/// ublkMissing(): Promise of the features that this kernel lacks, as flags; 0: none
Napi::Value UblkMissing(const Napi::CallbackInfo& info) {
  return control_promise(info.Env(), []() -> MakeValue {
    const uint64_t missing = ublk::kNeeded & ~ublk::features();
    return [missing](Napi::Env env) -> Napi::Value { return to_js_number(env, missing); };
  });
}

/// ublkAdd({owner, sizeBytes, blockBytes, atomicBytes, readOnly}): Promise<device>
Napi::Value UblkAdd(const Napi::CallbackInfo& info) {
  Args args(info, "ublkAdd");
  const Napi::Object from = args.object(0, "options");
  ublk::NewDevice device;
  device.owner = args.hex_field(from, "owner");
  device.size_bytes = args.number_field(from, "sizeBytes");
  device.block_bytes = static_cast<uint32_t>(args.number_field(from, "blockBytes"));
  device.atomic_bytes = static_cast<uint32_t>(args.number_field(from, "atomicBytes"));
  device.read_only = args.boolean_field(from, "readOnly");
  if (!args.ok()) return args.env().Undefined();
  return control_promise(args.env(), [device]() -> MakeValue {
    const uint32_t id = ublk::add_device(device);
    return [id](Napi::Env env) -> Napi::Value { return Napi::Number::New(env, id); };
  });
}

const char* state_name(uint16_t state) {
  switch (static_cast<ublk::State>(state)) {
    case ublk::State::kDead:
      return "dead";
    case ublk::State::kLive:
      return "live";
    case ublk::State::kQuiesced:
      return "quiesced";
  }
  return "unknown";
}

/// ublkInfo(device): Promise<{owner, state, serverPid, sizeBytes}>
Napi::Value UblkInfo(const Napi::CallbackInfo& info) {
  Args args(info, "ublkInfo");
  const auto id = static_cast<uint32_t>(args.number(0, "device"));
  if (!args.ok()) return args.env().Undefined();
  return control_promise(args.env(), [id]() -> MakeValue {
    const ublk::DeviceInfo device = ublk::device_info(id);
    const uint64_t size_bytes = ublk::device_size_bytes(id);
    return [device, size_bytes](Napi::Env env) -> Napi::Value {
      Napi::Object result = Napi::Object::New(env);
      char owner[17];
      std::snprintf(owner, sizeof(owner), "%016llx",
                    static_cast<unsigned long long>(device.server_flags));
      result.Set("owner", owner);
      result.Set("state", state_name(device.state));
      result.Set("serverPid", device.server_pid);
      result.Set("sizeBytes", to_js_number(env, size_bytes));
      return result;
    };
  });
}

UblkServer& server_of(Engine& engine) {
  if (engine.ublk == nullptr) {
    engine.ublk = std::make_unique<UblkServer>(engine.reactor(), engine);
  }
  return *engine.ublk;
}

/// ublkServe(pool, device, volume): Promise, when the device can be started
Napi::Value UblkServe(const Napi::CallbackInfo& info) {
  Args args(info, "ublkServe");
  const auto engine = live_engine_arg(args);
  const auto id = static_cast<uint32_t>(args.number(1, "device"));
  const std::string volume = args.string(2, "volume");
  if (!args.ok()) return args.env().Undefined();
  return make_promise(args.env(), engine, [engine, id, volume](const Settle& settle) {
    const std::string what = "serve " + volume + " as ublk device " + std::to_string(id);
    server_of(*engine).serve(id, volume,
                             [settle, what](int error) { settle(error, what, nullptr); });
  });
}

/// ublkRelease(pool, device): Promise, when the kernel has nothing of it any more
Napi::Value UblkRelease(const Napi::CallbackInfo& info) {
  Args args(info, "ublkRelease");
  const auto engine = live_engine_arg(args);
  const auto id = static_cast<uint32_t>(args.number(1, "device"));
  if (!args.ok()) return args.env().Undefined();
  return make_promise(args.env(), engine, [engine, id](const Settle& settle) {
    const std::string what = "let go of ublk device " + std::to_string(id);
    server_of(*engine).release(id, [settle, what](int error) { settle(error, what, nullptr); });
  });
}

}  // namespace

void register_ublk_calls(Napi::Env env, Napi::Object exports) {
  exports.Set("ublkMissing", Napi::Function::New(env, UblkMissing));
  exports.Set("ublkAdd", Napi::Function::New(env, UblkAdd));
  exports.Set("ublkInfo", Napi::Function::New(env, UblkInfo));
  exports.Set("ublkStart", Napi::Function::New(env, ControlById<ublk::start_device>));
  exports.Set("ublkStartRecovery", Napi::Function::New(env, ControlById<ublk::start_recovery>));
  exports.Set("ublkEndRecovery", Napi::Function::New(env, ControlById<ublk::end_recovery>));
  exports.Set("ublkStop", Napi::Function::New(env, ControlById<ublk::stop_device>));
  exports.Set("ublkDelete", Napi::Function::New(env, ControlById<ublk::delete_device>));
  exports.Set("ublkServe", Napi::Function::New(env, UblkServe));
  exports.Set("ublkRelease", Napi::Function::New(env, UblkRelease));
}

}  // namespace pando
