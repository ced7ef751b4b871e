// The load generator as JavaScript sees it: one call runs one load and gives its result.
#include "load_calls.h"

#include <cerrno>
#include <exception>
#include <memory>
#include <new>
#include <utility>

#include "args.h"
#include "engine.h"
#include "load_generator.h"
#include "nvme_load.h"
#include "volume.h"

namespace pando {
namespace {

Napi::Object lane_to_js(Napi::Env env, const LoadLane& lane) {
  constexpr double kNsPerUs = 1000;
  Napi::Object result = Napi::Object::New(env);
  result.Set("ops", to_js_number(env, lane.ops));
  result.Set("bytes", to_js_number(env, lane.bytes));
  Napi::Object latency = Napi::Object::New(env);
  for (const auto& [name, percent] : {std::pair{"p50Us", 50.0}, std::pair{"p90Us", 90.0},
                                      std::pair{"p99Us", 99.0}, std::pair{"p999Us", 99.9}}) {
    latency.Set(name, static_cast<double>(lane.latency.percentile_ns(percent)) / kNsPerUs);
  }
  latency.Set("maxUs", static_cast<double>(lane.latency.max_ns()) / kNsPerUs);
  result.Set("latency", latency);
  return result;
}

Napi::Value result_to_js(Napi::Env env, const LoadResult& from) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("seconds", from.seconds);
  result.Set("iops", from.iops());
  result.Set("reads", lane_to_js(env, from.reads));
  result.Set("writes", lane_to_js(env, from.writes));
  result.Set("flushes", lane_to_js(env, from.flushes));
  uint64_t errors = 0;
  for (const uint64_t count : from.errors) errors += count;
  result.Set("errors", to_js_number(env, errors));
  result.Set("verifyErrors", to_js_number(env, from.verify_errors));
  result.Set("verifiedBlocks", to_js_number(env, from.verified_blocks));
  return result;
}

/// loadRun(pool, volume, options): Promise<result>
Napi::Value LoadRun(const Napi::CallbackInfo& info) {
  Args args(info, "loadRun");
  const auto engine = engine_arg(args);
  const uint64_t id = args.number(1, "volume");
  const Napi::Object from = args.object(2, "options");
  LoadOptions options;
  const uint64_t pattern = args.number_field(from, "pattern");
  options.pattern = static_cast<LoadPattern>(pattern);
  options.read_percent = static_cast<uint32_t>(args.number_field(from, "readPercent"));
  options.block_bytes = static_cast<uint32_t>(args.number_field(from, "blockBytes"));
  options.depth = static_cast<uint32_t>(args.number_field(from, "depth"));
  options.region_bytes = args.number_field(from, "regionBytes");
  options.duration_ms = args.number_field(from, "durationMs");
  options.op_count = args.number_field(from, "opCount");
  options.flush_every = args.number_field(from, "flushEvery");
  options.seed = args.number_field(from, "seed");
  options.verify = args.boolean_field(from, "verify");
  if (args.ok() && pattern > static_cast<uint64_t>(LoadPattern::kRandomReadWrite)) {
    args.fail("pattern", "0 to 4");
  }
  if (args.ok() && engine->simulated()) args.fail("pool", "a pool that is not simulated");
  if (!args.ok()) return args.env().Undefined();

  return make_promise(args.env(), engine, [engine, id, options](const Settle& settle) {
    Volume* volume = engine->pool().find_volume(id);
    if (volume == nullptr) {
      settle(ENOENT, "no such open volume", nullptr);
      return;
    }
    if (const char* error = load_options_error(options, *volume)) {
      settle(EINVAL, error, nullptr);
      return;
    }
    try {
      auto generator = std::make_shared<LoadGenerator>(engine->reactor(), *volume, options);
      // The closure keeps the generator until its last callback has run.
      generator->start([settle, generator](const LoadResult& result) {
        settle(0, "", [result](Napi::Env env) { return result_to_js(env, result); });
      });
    } catch (const std::bad_alloc&) {
      settle(ENOMEM, "start the load", nullptr);
    }
  });
}

}  // namespace

/// Runs on a thread of libuv's pool: the load has a ring of its own and nothing of any pool.
class NvmeLoadWorker final : public Napi::AsyncWorker {
 public:
  NvmeLoadWorker(Napi::Env env, nvme::NvmeLoadOptions options)
      : Napi::AsyncWorker(env),
        options_(std::move(options)),
        deferred_(Napi::Promise::Deferred::New(env)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    try {
      result_ = nvme::run_nvme_load(options_);
    } catch (const std::exception& error) {
      SetError(error.what());
    }
  }

  void OnOK() override {
    const Napi::Env env = Env();
    Napi::Object result = Napi::Object::New(env);
    const uint64_t ops = result_.reads.ops + result_.writes.ops;
    result.Set("seconds", result_.seconds);
    result.Set("iops", result_.seconds > 0 ? static_cast<double>(ops) / result_.seconds : 0);
    result.Set("reads", lane_to_js(env, result_.reads));
    result.Set("writes", lane_to_js(env, result_.writes));
    result.Set("errors", to_js_number(env, result_.errors));
    result.Set("firstError",
               result_.errors == 0 ? std::string() : nvme::status_text(result_.first_error));
    result.Set("volumeBytes", to_js_number(env, result_.volume_bytes));
    deferred_.Resolve(result);
  }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  nvme::NvmeLoadOptions options_;
  nvme::NvmeLoadResult result_;
  Napi::Promise::Deferred deferred_;
};

/// nvmeLoadRun(options): Promise<result>
Napi::Value NvmeLoadRun(const Napi::CallbackInfo& info) {
  Args args(info, "nvmeLoadRun");
  const Napi::Object from = args.object(0, "options");
  nvme::NvmeLoadOptions options;
  options.place.address = args.string_field(from, "address");
  options.place.port = static_cast<uint16_t>(args.number_field(from, "port"));
  options.identity = {args.string_field(from, "subsystemNqn"), args.string_field(from, "hostNqn")};
  const uint64_t pattern = args.number_field(from, "pattern");
  options.pattern = static_cast<LoadPattern>(pattern);
  options.read_percent = static_cast<uint32_t>(args.number_field(from, "readPercent"));
  options.block_bytes = static_cast<uint32_t>(args.number_field(from, "blockBytes"));
  options.queues = static_cast<uint32_t>(args.number_field(from, "queues"));
  options.depth = static_cast<uint32_t>(args.number_field(from, "depth"));
  options.region_bytes = args.number_field(from, "regionBytes");
  options.duration_ms = args.number_field(from, "durationMs");
  options.op_count = args.number_field(from, "opCount");
  options.seed = args.number_field(from, "seed");
  if (args.ok() && pattern > static_cast<uint64_t>(LoadPattern::kRandomReadWrite)) {
    args.fail("pattern", "0 to 4");
  }
  if (!args.ok()) return args.env().Undefined();
  // Napi::AsyncWorker deletes itself when it has settled.
  auto worker = std::make_unique<NvmeLoadWorker>(args.env(), std::move(options));
  const Napi::Promise promise = worker->promise();
  worker.release()->Queue();
  return promise;
}

void register_load_calls(Napi::Env env, Napi::Object exports) {
  exports.Set("nvmeLoadRun", Napi::Function::New(env, NvmeLoadRun));
  exports.Set("loadRun", Napi::Function::New(env, LoadRun));
}

}  // namespace pando
