// Block devices of the kernel's NBD driver as JavaScript sees them. What goes by netlink blocks;
// what serves a device's requests is on the reactor.
#include "nbd_device_calls.h"

#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "args.h"
#include "control_promise.h"
#include "engine.h"
#include "nbd_device_server.h"
#include "nbd_netlink.h"

namespace pando {
namespace {

/// Closes what JavaScript has handed over.
class HandedSocket {
 public:
  explicit HandedSocket(int fd) : fd_(fd) {}
  HandedSocket(const HandedSocket&) = delete;
  HandedSocket& operator=(const HandedSocket&) = delete;
  ~HandedSocket() { ::close(fd_); }
  int fd() const { return fd_; }

 private:
  int fd_;
};

/// nbdIsLoaded(): Promise<boolean>
Napi::Value NbdIsLoaded(const Napi::CallbackInfo& info) {
  return control_promise(info.Env(), []() -> MakeValue {
    const bool loaded = nbd::driver_is_loaded();
    return [loaded](Napi::Env env) -> Napi::Value { return Napi::Boolean::New(env, loaded); };
  });
}

/// nbdConnect({socket, flags, owner, sizeBytes, blockBytes}): Promise<device>
Napi::Value NbdConnect(const Napi::CallbackInfo& info) {
  Args args(info, "nbdConnect");
  const Napi::Object from = args.object(0, "options");
  const auto socket = static_cast<int>(args.number_field(from, "socket"));
  nbd::NewDevice device;
  device.owner = args.string_field(from, "owner");
  device.size_bytes = args.number_field(from, "sizeBytes");
  device.block_bytes = static_cast<uint32_t>(args.number_field(from, "blockBytes"));
  device.transmission_flags = static_cast<uint16_t>(args.number_field(from, "flags"));
  if (!args.ok()) return args.env().Undefined();
  auto handed = std::make_shared<HandedSocket>(socket);
  return control_promise(args.env(), [device, handed]() -> MakeValue {
    const uint32_t number = nbd::connect_device(device, handed->fd());
    return [number](Napi::Env env) -> Napi::Value { return Napi::Number::New(env, number); };
  });
}

/// nbdReconnect(device, {socket, owner, sizeBytes}): Promise
Napi::Value NbdReconnect(const Napi::CallbackInfo& info) {
  Args args(info, "nbdReconnect");
  const auto device = static_cast<uint32_t>(args.number(0, "device"));
  const Napi::Object from = args.object(1, "options");
  const auto socket = static_cast<int>(args.number_field(from, "socket"));
  const std::string owner = args.string_field(from, "owner");
  const uint64_t size = args.number_field(from, "sizeBytes");
  if (!args.ok()) return args.env().Undefined();
  auto handed = std::make_shared<HandedSocket>(socket);
  return control_promise(args.env(), [device, owner, size, handed]() -> MakeValue {
    nbd::reconnect_device(device, owner, size, handed->fd());
    return nullptr;
  });
}

/// nbdResize(device, {owner, sizeBytes}): Promise
Napi::Value NbdResize(const Napi::CallbackInfo& info) {
  Args args(info, "nbdResize");
  const auto device = static_cast<uint32_t>(args.number(0, "device"));
  const Napi::Object from = args.object(1, "options");
  const std::string owner = args.string_field(from, "owner");
  const uint64_t size = args.number_field(from, "sizeBytes");
  if (!args.ok()) return args.env().Undefined();
  return control_promise(args.env(), [device, owner, size]() -> MakeValue {
    nbd::resize_device(device, owner, size);
    return nullptr;
  });
}

/// nbdDisconnect(device): Promise
Napi::Value NbdDisconnect(const Napi::CallbackInfo& info) {
  Args args(info, "nbdDisconnect");
  const auto device = static_cast<uint32_t>(args.number(0, "device"));
  if (!args.ok()) return args.env().Undefined();
  return control_promise(args.env(), [device]() -> MakeValue {
    nbd::disconnect_device(device);
    return nullptr;
  });
}

NbdDeviceServer& server_of(Engine& engine) {
  if (engine.nbd_devices == nullptr) {
    engine.nbd_devices = std::make_unique<NbdDeviceServer>(engine.reactor(), engine);
  }
  return *engine.nbd_devices;
}

/// nbdServe(pool, volume): Promise<{socket, flags}>
Napi::Value NbdServe(const Napi::CallbackInfo& info) {
  Args args(info, "nbdServe");
  const auto engine = live_engine_arg(args);
  const std::string volume = args.string(1, "volume");
  if (!args.ok()) return args.env().Undefined();
  return make_promise(args.env(), engine, [engine, volume](const Settle& settle) {
    const std::string what = "serve " + volume + " as an nbd device";
    server_of(*engine).serve(volume, [settle, what](int error, int socket, uint16_t flags) {
      settle(error, what, [socket, flags](Napi::Env env) -> Napi::Value {
        Napi::Object result = Napi::Object::New(env);
        result.Set("socket", socket);
        result.Set("flags", flags);
        return result;
      });
    });
  });
}

/// nbdEnded(pool, volume): Promise<boolean>, when the volume is let go
Napi::Value NbdEnded(const Napi::CallbackInfo& info) {
  Args args(info, "nbdEnded");
  const auto engine = live_engine_arg(args);
  const std::string volume = args.string(1, "volume");
  if (!args.ok()) return args.env().Undefined();
  return make_promise(args.env(), engine, [engine, volume](const Settle& settle) {
    server_of(*engine).when_ended(volume, [settle](bool lost) {
      settle(0, "", [lost](Napi::Env env) -> Napi::Value { return Napi::Boolean::New(env, lost); });
    });
  });
}

/// nbdRelease(pool, volume): Promise
Napi::Value NbdRelease(const Napi::CallbackInfo& info) {
  Args args(info, "nbdRelease");
  const auto engine = live_engine_arg(args);
  const std::string volume = args.string(1, "volume");
  if (!args.ok()) return args.env().Undefined();
  return make_promise(args.env(), engine, [engine, volume](const Settle& settle) {
    server_of(*engine).release(volume);
    settle(0, "", nullptr);
  });
}

}  // namespace

void register_nbd_device_calls(Napi::Env env, Napi::Object exports) {
  exports.Set("nbdIsLoaded", Napi::Function::New(env, NbdIsLoaded));
  exports.Set("nbdConnect", Napi::Function::New(env, NbdConnect));
  exports.Set("nbdReconnect", Napi::Function::New(env, NbdReconnect));
  exports.Set("nbdResize", Napi::Function::New(env, NbdResize));
  exports.Set("nbdDisconnect", Napi::Function::New(env, NbdDisconnect));
  exports.Set("nbdServe", Napi::Function::New(env, NbdServe));
  exports.Set("nbdEnded", Napi::Function::New(env, NbdEnded));
  exports.Set("nbdRelease", Napi::Function::New(env, NbdRelease));
}

}  // namespace pando
