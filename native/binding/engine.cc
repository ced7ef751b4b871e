#include "engine.h"

#include <ctime>
#include <utility>

#include "args.h"
#include "assert.h"
#include "volume.h"

namespace pando {
namespace {

using Engines = std::map<uint64_t, std::shared_ptr<Engine>>;

/// Not destroyed at exit(): after an error that nobody caught there is no clean-up before it, and
/// the threads of open pools run until the process is gone.
union EnginesToTheEnd {
  Engines map;
  EnginesToTheEnd() : map() {}
  ~EnginesToTheEnd() {}
};

std::mutex engines_mutex;
EnginesToTheEnd engines_to_the_end;
Engines& engines = engines_to_the_end.map;
std::atomic<uint64_t> engine_ids{1};

const char* front_end_name(FrontEnd front_end) {
  switch (front_end) {
    case FrontEnd::kNbd:
      return "nbd";
    case FrontEnd::kNvmeTcp:
      return "nvme-tcp";
    case FrontEnd::kUblk:
      return "ublk";
    case FrontEnd::kNbdDevice:
      return "nbd-device";
  }
  return "";
}

}  // namespace

std::shared_ptr<Engine> find_engine(uint64_t id) {
  std::lock_guard lock(engines_mutex);
  const auto found = engines.find(id);
  return found == engines.end() ? nullptr : found->second;
}

std::shared_ptr<Engine> engine_arg(Args& args) {
  const uint64_t id = args.number(0, "pool");
  if (!args.ok()) return nullptr;
  auto engine = find_engine(id);
  if (engine == nullptr) args.fail("pool", "an open pool");
  return engine;
}

std::shared_ptr<Engine> live_engine_arg(Args& args) {
  auto engine = engine_arg(args);
  if (engine != nullptr && engine->simulated()) {
    args.fail("pool", "a pool that is not simulated");
    return nullptr;
  }
  return engine;
}

std::vector<BlockRun> runs_arg(Args& args, size_t index) {
  std::vector<BlockRun> runs;
  const auto flat = args.words(index, "runs");
  if (!args.ok()) return runs;
  for (size_t i = 0; i + 1 < flat.ElementLength(); i += 2) runs.push_back({flat[i], flat[i + 1]});
  return runs;
}

void add_engine(std::shared_ptr<Engine> engine) {
  std::lock_guard lock(engines_mutex);
  engines.emplace(engine->id(), std::move(engine));
}

void remove_engine(uint64_t id) {
  std::shared_ptr<Engine> last;  // dies after the lock
  std::lock_guard lock(engines_mutex);
  const auto found = engines.find(id);
  if (found == engines.end()) return;
  last = std::move(found->second);
  engines.erase(found);
}

uint64_t next_engine_id() {
  return engine_ids++;
}

void stop_engines(napi_env env) {
  std::vector<std::shared_ptr<Engine>> of_env;
  {
    std::lock_guard lock(engines_mutex);
    for (const auto& [id, engine] : engines) {
      if (engine->env() == env) of_env.push_back(engine);
    }
  }
  for (const auto& engine : of_env) {
    engine->stop();
    remove_engine(engine->id());
  }
}

Engine::Engine(Napi::Env env, uint64_t id, std::shared_ptr<Device> device,
               const PoolOptions& options, const std::string& shared_path, Napi::Function on_event)
    : id_(id), env_(env), device_(std::move(device)), on_event_(Napi::Persistent(on_event)) {
  constexpr size_t kSharedBytes = 4 << 20;
  constexpr size_t kSimulatedSharedBytes = 64 << 10;
  Disk* disk;
  std::span<std::byte> shared;
  if (simulated()) {
    own_buffers_ = std::make_unique<BufferPool>();
    buffers_ = own_buffers_.get();
    disk = device_->sim.get();
    device_->shared.assign(UnflushedLog::kHeaderBytes + kSimulatedSharedBytes, std::byte{0});
    shared = device_->shared;
  } else {
    shared_ =
        std::make_unique<SharedMemory>(shared_path, UnflushedLog::kHeaderBytes + kSharedBytes);
    shared = shared_->bytes();
    reactor_ = std::make_unique<Reactor>();
    buffers_ = &reactor_->buffers();
    uring_disk_ = std::make_unique<UringDisk>(reactor_->ring(), *device_->file);
    disk = uring_disk_.get();
    main_ = Napi::ThreadSafeFunction::New(env, on_event, "pando", 0, 1);
  }
  pool_ = std::make_unique<Pool>(*disk, *buffers_, *this, options, shared);
}

Engine::~Engine() {
  PANDO_ASSERT(!thread_.joinable());
}

void Engine::start() {
  if (simulated()) return;
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "pando-reactor");
    reactor_->run();
  });
}

void Engine::on_reactor(std::function<void()> function) {
  if (simulated()) {
    function();
  } else {
    reactor_->post(std::move(function));
  }
}

void Engine::stop() {
  if (std::exchange(stopped_, true)) return;
  stop_serving_index();
  if (simulated()) {
    pool_->abandon();
    pool_.reset();
    // They hold this engine, so it ends only after them.
    const auto dropped = std::exchange(requests, {});
    outbox_.clear();
    deferred_.clear();
    due_.clear();
    return;
  }
  reactor_->stop();
  thread_.join();
  // What is still under way on the device uses the pool's memory; the reactor's own wake-up read is
  // all that may stay.
  constexpr uint64_t kTurnUs = 10'000;
  for (int turns = 0; reactor_->ring().in_flight() > 1 && turns < 1'000; ++turns) {
    reactor_->turn(kTurnUs);
  }
  if (nbd != nullptr || nbd_devices != nullptr || target != nullptr ||
      (ublk != nullptr && !ublk->left())) {
    // They were not stopped, or do not end: only at the end of the process. What they use is left
    // to it.
    static_cast<void>(nbd.release());
    static_cast<void>(nbd_devices.release());
    static_cast<void>(target.release());
    static_cast<void>(ublk.release());
    static_cast<void>(pool_.release());
    static_cast<void>(reactor_.release());
  }
  pool_.reset();
  main_.Release();
}

void Engine::stop_front_ends(std::function<void()> done) {
  auto left = std::make_shared<int>(1);
  const auto one_less = [left, done = std::move(done)] {
    if (--*left == 0) done();
  };
  if (nbd != nullptr) {
    ++*left;
    nbd->stop([this, one_less] {
      defer([this] { nbd.reset(); });
      one_less();
    });
  }
  if (nbd_devices != nullptr) {
    ++*left;
    nbd_devices->leave([this, one_less] {
      defer([this] { nbd_devices.reset(); });
      one_less();
    });
  }
  if (target != nullptr) {
    ++*left;
    target->stop([this, one_less] {
      defer([this] { target.reset(); });
      one_less();
    });
  }
  if (ublk != nullptr) {
    ++*left;
    ublk->leave(one_less);
  }
  one_less();
}

void Engine::defer(std::function<void()> function) {
  if (simulated()) {
    deferred_.push_back(std::move(function));
  } else {
    reactor_->post(std::move(function));
  }
}

void Engine::later(uint64_t delay_ms, std::function<void()> function) {
  if (simulated()) {
    due_.emplace(now_ms_ + delay_ms, std::move(function));
  } else {
    reactor_->add_timer(delay_ms, std::move(function));
  }
}

uint64_t Engine::now_ns() {
  if (simulated()) return now_ms_ * 1'000'000;
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

size_t Engine::drain(Napi::Env env) {
  PANDO_ASSERT(simulated());
  size_t count = 0;
  for (auto& function : std::exchange(deferred_, {})) {
    function();
    ++count;
  }
  for (auto& task : std::exchange(outbox_, {})) {
    task(env);
    ++count;
  }
  if (count == 0 && !due_.empty()) {
    auto next = due_.extract(due_.begin());
    now_ms_ = next.key();
    next.mapped()();
    ++count;
  }
  return count;
}

void Engine::to_js(JsTask task) {
  if (simulated()) {
    outbox_.push_back(std::move(task));
    return;
  }
  auto boxed = std::make_unique<JsTask>(std::move(task));
  const napi_status status =
      main_.BlockingCall(boxed.get(), [](Napi::Env env, Napi::Function, JsTask* raw) {
        const std::unique_ptr<JsTask> owned(raw);
        if (env != nullptr) (*owned)(env);
      });
  if (status == napi_ok) static_cast<void>(boxed.release());  // the callback owns it now
}

void Engine::emit(std::function<Napi::Object(Napi::Env)> make) {
  to_js([self = shared_from_this(), make = std::move(make)](Napi::Env env) {
    Napi::HandleScope scope(env);
    self->on_event_.Call({make(env)});
  });
}

void Engine::index_wanted(uint64_t token, uint64_t layer, uint32_t span) {
  if (simulated()) {
    emit([=](Napi::Env env) {
      Napi::Object event = Napi::Object::New(env);
      event.Set("type", "index");
      event.Set("token", to_js_number(env, token));
      event.Set("layer", to_js_number(env, layer));
      event.Set("span", span);
      return event;
    });
    return;
  }
  std::lock_guard lock(index_mutex_);
  index_questions_.push_back({token, layer, span});
  if (index_served_ && index_questions_.size() == 1) ring_index_service();
}

void Engine::serve_index(Napi::Env env, Napi::Function on_questions) {
  std::lock_guard lock(index_mutex_);
  PANDO_ASSERT(!index_served_);
  index_service_ = Napi::ThreadSafeFunction::New(env, on_questions, "pando-index", 0, 1);
  index_service_.Unref(env);
  index_served_ = true;
  if (!index_questions_.empty()) ring_index_service();
}

void Engine::ring_index_service() {
  // The service takes every question there is at its turn, so one ring is enough for many.
  auto id_box = std::make_unique<uint64_t>(id_);
  const napi_status status = index_service_.NonBlockingCall(
      id_box.get(), [](Napi::Env env, Napi::Function callback, uint64_t* raw_id) {
        const std::unique_ptr<uint64_t> id(raw_id);
        const auto self = env == nullptr ? nullptr : find_engine(*id);
        if (self == nullptr) return;
        std::vector<IndexQuestion> questions;
        {
          std::lock_guard guard(self->index_mutex_);
          questions.swap(self->index_questions_);
        }
        if (questions.empty()) return;
        Napi::HandleScope scope(env);
        Napi::Array array = Napi::Array::New(env, questions.size());
        for (uint32_t i = 0; i < questions.size(); ++i) {
          Napi::Object question = Napi::Object::New(env);
          question.Set("token", to_js_number(env, questions[i].token));
          question.Set("layer", to_js_number(env, questions[i].layer));
          question.Set("span", questions[i].span);
          array.Set(i, question);
        }
        callback.Call({array});
      });
  if (status == napi_ok) static_cast<void>(id_box.release());  // the callback owns it now
}

void Engine::stop_serving_index() {
  std::lock_guard lock(index_mutex_);
  if (!std::exchange(index_served_, false)) return;
  index_service_.Release();
}

void Engine::extents_wanted(bool waiting) {
  emit([waiting](Napi::Env env) {
    Napi::Object event = Napi::Object::New(env);
    event.Set("type", "extents");
    event.Set("waiting", waiting);
    return event;
  });
}

void Engine::checkpoint_wanted(const char* reason) {
  emit([reason](Napi::Env env) {
    Napi::Object event = Napi::Object::New(env);
    event.Set("type", "checkpoint");
    event.Set("reason", reason);
    return event;
  });
}

void Engine::blocks_freed(std::vector<BlockRun> runs) {
  emit([runs = std::move(runs)](Napi::Env env) {
    Napi::Object event = Napi::Object::New(env);
    event.Set("type", "freed");
    Napi::Uint32Array flat = Napi::Uint32Array::New(env, runs.size() * 2);
    for (size_t i = 0; i < runs.size(); ++i) {
      flat[i * 2] = runs[i].first;
      flat[i * 2 + 1] = runs[i].count;
    }
    event.Set("runs", flat);
    return event;
  });
}

void Engine::pool_failed(int error, const std::string& what) {
  emit([error, what](Napi::Env env) {
    Napi::Object event = Napi::Object::New(env);
    event.Set("type", "failed");
    event.Set("code", errno_name(error));
    event.Set("what", what);
    return event;
  });
}

void Engine::open(OpenRequest request, std::function<void(OpenResult)> done) {
  const uint64_t token = next_token_++;
  opens_.emplace(token, std::move(done));
  emit([token, request = std::move(request)](Napi::Env env) {
    Napi::Object event = Napi::Object::New(env);
    event.Set("type", "open");
    event.Set("token", to_js_number(env, token));
    event.Set("frontEnd", front_end_name(request.front_end));
    event.Set("name", request.name);
    event.Set("hostNqn", request.host_nqn);
    event.Set("peer", request.peer);
    event.Set("tls", request.secure);
    return event;
  });
}

void Engine::answer_open(uint64_t token, OpenResult result) {
  auto node = opens_.extract(token);
  PANDO_ASSERT(!node.empty());
  node.mapped()(result);
}

void Engine::close(FrontEnd front_end, BlockVolume* volume, const std::string& host_nqn) {
  const uint64_t id = static_cast<Volume*>(volume)->id();
  emit([front_end, id, host_nqn](Napi::Env env) {
    Napi::Object event = Napi::Object::New(env);
    event.Set("type", "close");
    event.Set("frontEnd", front_end_name(front_end));
    event.Set("volume", to_js_number(env, id));
    event.Set("hostNqn", host_nqn);
    return event;
  });
}

void Engine::list(FrontEnd front_end, std::string host_nqn,
                  std::function<void(std::vector<ExportEntry>)> done) {
  const uint64_t token = next_token_++;
  lists_.emplace(token, std::move(done));
  emit([token, front_end, host_nqn = std::move(host_nqn)](Napi::Env env) {
    Napi::Object event = Napi::Object::New(env);
    event.Set("type", "list");
    event.Set("token", to_js_number(env, token));
    event.Set("frontEnd", front_end_name(front_end));
    event.Set("hostNqn", host_nqn);
    return event;
  });
}

void Engine::answer_list(uint64_t token, std::vector<ExportEntry> entries) {
  auto node = lists_.extract(token);
  PANDO_ASSERT(!node.empty());
  node.mapped()(std::move(entries));
}

void Engine::authenticate(AuthStep step, std::function<void(AuthAnswer)> done) {
  const uint64_t token = next_token_++;
  authentications_.emplace(token, std::move(done));
  emit([token, step = std::move(step)](Napi::Env env) {
    Napi::Object event = Napi::Object::New(env);
    event.Set("type", "auth");
    event.Set("token", to_js_number(env, token));
    event.Set("connection", to_js_number(env, step.connection));
    event.Set("subsystemNqn", step.subsystem_nqn);
    event.Set("hostNqn", step.host_nqn);
    event.Set("peer", step.peer);
    if (step.message.empty()) {
      event.Set("message", env.Null());
      return event;
    }
    Napi::Uint8Array message = Napi::Uint8Array::New(env, step.message.size());
    std::memcpy(message.Data(), step.message.data(), step.message.size());
    event.Set("message", message);
    return event;
  });
}

void Engine::answer_authentication(uint64_t token, AuthAnswer answer) {
  auto node = authentications_.extract(token);
  PANDO_ASSERT(!node.empty());
  node.mapped()(std::move(answer));
}

void Engine::authentication_ended(uint64_t connection) {
  emit([connection](Napi::Env env) {
    Napi::Object event = Napi::Object::New(env);
    event.Set("type", "authEnd");
    event.Set("connection", to_js_number(env, connection));
    return event;
  });
}

void Engine::tls_key(TlsHello hello, std::function<void(TlsKey)> done) {
  const uint64_t token = next_token_++;
  tls_keys_.emplace(token, std::move(done));
  emit([token, hello = std::move(hello)](Napi::Env env) {
    Napi::Object event = Napi::Object::New(env);
    event.Set("type", "tlsKey");
    event.Set("token", to_js_number(env, token));
    event.Set("peer", hello.peer);
    Napi::Uint8Array bytes = Napi::Uint8Array::New(env, hello.hello.size());
    std::memcpy(bytes.Data(), hello.hello.data(), hello.hello.size());
    event.Set("hello", bytes);
    return event;
  });
}

void Engine::answer_tls_key(uint64_t token, TlsKey key) {
  auto node = tls_keys_.extract(token);
  PANDO_ASSERT(!node.empty());
  node.mapped()(std::move(key));
}

void Engine::refused(std::string peer, std::string reason) {
  emit([peer = std::move(peer), reason = std::move(reason)](Napi::Env env) {
    Napi::Object event = Napi::Object::New(env);
    event.Set("type", "refused");
    event.Set("peer", peer);
    event.Set("reason", reason);
    return event;
  });
}

Napi::Value make_promise(Napi::Env env, const std::shared_ptr<Engine>& engine,
                         std::function<void(Settle)> start) {
  auto deferred = std::make_shared<Napi::Promise::Deferred>(env);
  const Settle settle = [deferred, weak = std::weak_ptr(engine)](
                            int error, std::string what,
                            std::function<Napi::Value(Napi::Env)> value) {
    const auto owner = weak.lock();
    if (owner == nullptr) return;
    owner->to_js([deferred, error, what = std::move(what), value = std::move(value)](Napi::Env js) {
      Napi::HandleScope scope(js);
      if (error != 0) {
        deferred->Reject(errno_error(js, error, what).Value());
      } else {
        deferred->Resolve(value ? value(js) : js.Undefined());
      }
    });
  };
  engine->on_reactor([start = std::move(start), settle] { start(settle); });
  return deferred->Promise();
}

}  // namespace pando
