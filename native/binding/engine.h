// One open pool as JavaScript holds it: the reactor thread, the pool on it, and the way of messages
// between the two sides.
//
// Two ways to run, chosen by the device. With a real device the reactor has a thread of its own;
// calls are posted to it, and what it has to say comes back through a thread-safe function. With a
// simulated disk everything runs on the JavaScript thread, step by step: calls run at once, and
// what they have to say waits in an outbox until drain(), so nothing calls back into JavaScript in
// the middle of a step.
#pragma once

#include <napi.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "args.h"
#include "block_io.h"
#include "devices.h"
#include "nbd_device_server.h"
#include "nbd_server.h"
#include "nvme_target.h"
#include "pool.h"
#include "reactor.h"
#include "ublk_server.h"
#include "unflushed_log.h"

namespace pando {

struct IndexQuestion {
  uint64_t token;
  uint64_t layer;
  uint32_t span;
};

class Engine final : public PoolHost, public Exports, public std::enable_shared_from_this<Engine> {
 public:
  using JsTask = std::function<void(Napi::Env)>;

  /// `shared_path`: where the memory that outlives the process is; a simulated device has its own.
  /// Throws std::system_error.
  Engine(Napi::Env env, uint64_t id, std::shared_ptr<Device> device, const PoolOptions& options,
         const std::string& shared_path, Napi::Function on_event);
  ~Engine() override;

  // On the JavaScript thread.
  void start();
  void on_reactor(std::function<void()> function);
  /// Stops the reactor thread and lets the event loop go. Volumes must be closed, unless the pool
  /// is abandoned.
  void stop();
  /// Simulation: runs what was deferred and what waits for JavaScript; returns how much that was.
  size_t drain(Napi::Env env);
  bool simulated() const { return device_->sim != nullptr; }
  uint64_t id() const { return id_; }
  napi_env env() const { return env_; }

  // On the worker's thread: who answers index questions.
  void serve_index(Napi::Env env, Napi::Function on_questions);
  void stop_serving_index();

  // On the reactor thread.
  Pool& pool() { return *pool_; }
  Reactor& reactor() { return *reactor_; }
  BufferPool& buffers() { return *buffers_; }
  void to_js(JsTask task);
  /// Calls the event callback with what `make` returns.
  void emit(std::function<Napi::Object(Napi::Env)> make);
  void answer_open(uint64_t token, OpenResult result);
  void answer_list(uint64_t token, std::vector<ExportEntry> entries);
  void answer_authentication(uint64_t token, AuthAnswer answer);
  void answer_tls_key(uint64_t token, TlsKey key);

  // PoolHost
  void index_wanted(uint64_t token, uint64_t layer, uint32_t span) override;
  void extents_wanted(bool waiting) override;
  void checkpoint_wanted(const char* reason) override;
  void blocks_freed(std::vector<BlockRun> runs) override;
  void pool_failed(int error, const std::string& what) override;
  void defer(std::function<void()> function) override;
  void later(uint64_t delay_ms, std::function<void()> function) override;
  uint64_t now_ns() override;

  // Exports
  void open(OpenRequest request, std::function<void(OpenResult)> done) override;
  void close(FrontEnd front_end, BlockVolume* volume, const std::string& host_nqn) override;
  void list(FrontEnd front_end, std::string host_nqn,
            std::function<void(std::vector<ExportEntry>)> done) override;
  void authenticate(AuthStep step, std::function<void(AuthAnswer)> done) override;
  void authentication_ended(uint64_t connection) override;
  void tls_key(TlsHello hello, std::function<void(TlsKey)> done) override;
  void refused(std::string peer, std::string reason) override;

  /// On the reactor thread only; null while not listening.
  std::unique_ptr<NbdServer> nbd;
  std::unique_ptr<NbdDeviceServer> nbd_devices;
  std::unique_ptr<nvme::Target> target;
  /// `done` runs when the last connection has gone.
  void stop_front_ends(std::function<void()> done);
  /// Requests from JavaScript that are under way. A simulated pool may end before they do.
  std::set<std::shared_ptr<void>> requests;

 private:
  void ring_index_service();  // with index_mutex_ held

  uint64_t id_;
  napi_env env_;
  std::shared_ptr<Device> device_;

 public:
  /// On the reactor thread only; null until a device is served. It outlives the reactor, which has
  /// operations of it that never end.
  std::unique_ptr<UblkServer> ublk;

 private:
  std::unique_ptr<Reactor> reactor_;         // real device only
  std::unique_ptr<BufferPool> own_buffers_;  // simulation only
  BufferPool* buffers_;
  std::unique_ptr<UringDisk> uring_disk_;
  std::unique_ptr<SharedMemory> shared_;  // real device only
  std::unique_ptr<Pool> pool_;
  std::thread thread_;
  bool stopped_ = false;

  Napi::FunctionReference on_event_;
  Napi::ThreadSafeFunction main_;
  std::vector<std::function<void()>> deferred_;  // simulation
  std::vector<JsTask> outbox_;                   // simulation
  // Simulation: time stands still until nothing else is left to run.
  std::multimap<uint64_t, std::function<void()>> due_;
  uint64_t now_ms_ = 0;

  std::mutex index_mutex_;  // guards the next three
  std::vector<IndexQuestion> index_questions_;
  Napi::ThreadSafeFunction index_service_;
  bool index_served_ = false;

  uint64_t next_token_ = 1;
  std::map<uint64_t, std::function<void(OpenResult)>> opens_;
  std::map<uint64_t, std::function<void(std::vector<ExportEntry>)>> lists_;
  std::map<uint64_t, std::function<void(AuthAnswer)>> authentications_;
  std::map<uint64_t, std::function<void(TlsKey)>> tls_keys_;
};

/// From any thread.
std::shared_ptr<Engine> find_engine(uint64_t id);
/// The open pool that argument 0 names, or a pending TypeError and null.
std::shared_ptr<Engine> engine_arg(Args& args);
/// The same, of a pool whose reactor has a thread, as sockets and block devices need one.
std::shared_ptr<Engine> live_engine_arg(Args& args);
/// A Uint32Array of first block and count in turn.
std::vector<BlockRun> runs_arg(Args& args, size_t index);
void add_engine(std::shared_ptr<Engine> engine);
void remove_engine(uint64_t id);
uint64_t next_engine_id();
/// The environment ends: so do the engines that it opened.
void stop_engines(napi_env env);

/// Makes a promise, runs `start` on the reactor with a way to settle it. `settle(error, what,
/// value)`: error 0 resolves with what `value` makes.
using Settle =
    std::function<void(int error, std::string what, std::function<Napi::Value(Napi::Env)> value)>;
Napi::Value make_promise(Napi::Env env, const std::shared_ptr<Engine>& engine,
                         std::function<void(Settle)> start);

}  // namespace pando
