// Front ends as JavaScript sees them. They live on the reactor thread, beside the volumes that they
// serve.
#include "front_end_calls.h"

#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "args.h"
#include "engine.h"
#include "volume.h"

namespace pando {
namespace {

/// Runs `listen`, which throws, on the reactor.
Napi::Value listen_promise(const Args& args, const std::shared_ptr<Engine>& engine,
                           std::function<void(Engine&)> listen) {
  return make_promise(args.env(), engine, [=](const Settle& settle) {
    try {
      listen(*engine);
      settle(0, "", nullptr);
    } catch (const std::system_error& error) {
      // The reason is appended again where the error is made.
      std::string what = error.what();
      what.erase(what.rfind(": " + error.code().message()));
      settle(error.code().value(), what, nullptr);
    } catch (const std::invalid_argument& error) {
      settle(EINVAL, error.what(), nullptr);
    } catch (const std::runtime_error& error) {
      settle(EIO, error.what(), nullptr);
    }
  });
}

/// nbdListen(pool, path): Promise
Napi::Value NbdListen(const Napi::CallbackInfo& info) {
  Args args(info, "nbdListen");
  const auto engine = live_engine_arg(args);
  const std::string path = args.string(1, "path");
  if (!args.ok()) return args.env().Undefined();
  return listen_promise(args, engine, [path](Engine& self) {
    auto server = std::make_unique<NbdServer>(self.reactor(), self, path);
    server->start();
    self.nbd = std::move(server);
  });
}

/// [{address, port}]
std::vector<nvme::Place> places_field(Args& args, const Napi::Object& object, const char* name) {
  std::vector<nvme::Place> places;
  if (!args.ok()) return places;
  const Napi::Value list = object.Get(name);
  if (!list.IsArray()) {
    args.fail(name, "an array of places");
    return places;
  }
  const auto array = list.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length() && args.ok(); ++i) {
    const Napi::Value entry = array.Get(i);
    if (!entry.IsObject()) {
      args.fail(name, "an array of places");
      break;
    }
    const auto place = entry.As<Napi::Object>();
    const std::string address = args.string_field(place, "address");
    places.push_back({address, static_cast<uint16_t>(args.number_field(place, "port"))});
  }
  return places;
}

nvme::TlsMode tls_field(Args& args, const Napi::Object& object, const char* name) {
  const std::string mode = args.string_field(object, name);
  if (mode == "allowed") return nvme::TlsMode::kAllowed;
  if (mode == "required") return nvme::TlsMode::kRequired;
  if (args.ok() && mode != "off") args.fail(name, "off, allowed or required");
  return nvme::TlsMode::kOff;
}

/// targetListen(pool, {listen, advertised, tls, connections, hostConnections}): Promise, when it
/// listens in every place
Napi::Value TargetListen(const Napi::CallbackInfo& info) {
  Args args(info, "targetListen");
  const auto engine = live_engine_arg(args);
  const Napi::Object from = args.object(1, "options");
  nvme::TargetOptions options;
  options.listen = places_field(args, from, "listen");
  options.advertised = places_field(args, from, "advertised");
  options.tls = tls_field(args, from, "tls");
  options.max_connections = static_cast<uint32_t>(args.number_field(from, "connections"));
  options.max_host_connections = static_cast<uint32_t>(args.number_field(from, "hostConnections"));
  if (!args.ok()) return args.env().Undefined();
  return listen_promise(args, engine, [options](Engine& self) {
    auto target = std::make_unique<nvme::Target>(self.reactor(), self, options);
    target->start();
    self.target = std::move(target);
  });
}

/// frontEndsStop(pool): Promise, when the last connection has gone and the last volume is let go
Napi::Value FrontEndsStop(const Napi::CallbackInfo& info) {
  Args args(info, "frontEndsStop");
  const auto engine = live_engine_arg(args);
  if (!args.ok()) return args.env().Undefined();
  return make_promise(args.env(), engine, [engine](const Settle& settle) {
    engine->stop_front_ends([settle] { settle(0, "", nullptr); });
  });
}

/// targetDisconnect(pool, subsystemNqn, hostNqn): ends what the host has there, at once; a promise
/// of {controllers, ended}
Napi::Value TargetDisconnect(const Napi::CallbackInfo& info) {
  Args args(info, "targetDisconnect");
  const auto engine = live_engine_arg(args);
  const std::string subsystem = args.string(1, "subsystemNqn");
  const std::string host = args.string(2, "hostNqn");
  if (!args.ok()) return args.env().Undefined();
  return make_promise(args.env(), engine, [engine, subsystem, host](const Settle& settle) {
    const auto report = [settle](nvme::FenceReport fence) {
      settle(0, "", [fence](Napi::Env env) -> Napi::Value {
        Napi::Object result = Napi::Object::New(env);
        result.Set("controllers", fence.controllers);
        result.Set("ended", fence.ended);
        return result;
      });
    };
    if (engine->target == nullptr) return report({0, true});
    engine->target->disconnect(subsystem, host, report);
  });
}

/// targetSessions(pool, host): Promise of those who are connected; of one host, or "" for all
Napi::Value TargetSessions(const Napi::CallbackInfo& info) {
  Args args(info, "targetSessions");
  const auto engine = live_engine_arg(args);
  const std::string host = args.string(1, "host");
  if (!args.ok()) return args.env().Undefined();
  return make_promise(args.env(), engine, [engine, host](const Settle& settle) {
    std::vector<nvme::Session> sessions;
    if (engine->target != nullptr) sessions = engine->target->sessions(host);
    settle(0, "", [sessions = std::move(sessions)](Napi::Env env) -> Napi::Value {
      Napi::Array list = Napi::Array::New(env, sessions.size());
      for (uint32_t i = 0; i < sessions.size(); ++i) {
        const nvme::Session& session = sessions[i];
        Napi::Object entry = Napi::Object::New(env);
        entry.Set("subsystemNqn", session.subsystem_nqn);
        entry.Set("hostNqn", session.host_nqn);
        entry.Set("peer", session.peer);
        entry.Set("controllerId", session.controller_id);
        entry.Set("ioQueues", session.io_queues);
        entry.Set("authenticated", session.authenticated);
        entry.Set("tls", session.secure);
        entry.Set("connectedMs", to_js_number(env, session.connected_ms));
        list.Set(i, entry);
      }
      return list;
    });
  });
}

/// targetVolumeChanged(pool, volume): its size has changed, hosts are told to look again
Napi::Value TargetVolumeChanged(const Napi::CallbackInfo& info) {
  Args args(info, "targetVolumeChanged");
  const auto engine = live_engine_arg(args);
  const uint64_t id = args.number(1, "volume");
  if (!args.ok()) return args.env().Undefined();
  engine->on_reactor([engine, id] {
    const Volume* volume = engine->pool().find_volume(id);
    if (engine->target != nullptr && volume != nullptr) engine->target->volume_changed(volume);
  });
  return args.env().Undefined();
}

/// targetExportsChanged(pool, hostNqns): discovery lists something else to these hosts now
Napi::Value TargetExportsChanged(const Napi::CallbackInfo& info) {
  Args args(info, "targetExportsChanged");
  const auto engine = live_engine_arg(args);
  const auto hosts = args.strings(1, "hostNqns");
  if (!args.ok()) return args.env().Undefined();
  engine->on_reactor([engine, hosts] {
    if (engine->target != nullptr) engine->target->exports_changed(hosts);
  });
  return args.env().Undefined();
}

}  // namespace

void register_front_end_calls(Napi::Env env, Napi::Object exports) {
  exports.Set("nbdListen", Napi::Function::New(env, NbdListen));
  exports.Set("targetListen", Napi::Function::New(env, TargetListen));
  exports.Set("frontEndsStop", Napi::Function::New(env, FrontEndsStop));
  exports.Set("targetDisconnect", Napi::Function::New(env, TargetDisconnect));
  exports.Set("targetSessions", Napi::Function::New(env, TargetSessions));
  exports.Set("targetVolumeChanged", Napi::Function::New(env, TargetVolumeChanged));
  exports.Set("targetExportsChanged", Napi::Function::New(env, TargetExportsChanged));
}

}  // namespace pando
