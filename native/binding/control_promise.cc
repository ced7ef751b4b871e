#include "control_promise.h"

#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "args.h"
#include "engine.h"

namespace pando {
namespace {

/// Runs `work` on a thread of the pool; settles a promise with what it gives. Deletes itself.
class ControlWorker final : public Napi::AsyncWorker {
 public:
  ControlWorker(Napi::Env env, std::function<MakeValue()> work)
      : AsyncWorker(env), work_(std::move(work)), deferred_(env) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    try {
      value_ = work_();
    } catch (const std::system_error& error) {
      error_ = error.code().value();
      // The sentence of ours; the errno's own comes with errno_error().
      what_ = error.what();
      const size_t end = what_.rfind(": ");
      if (end != std::string::npos) what_.resize(end);
    }
  }

  void OnOK() override {
    if (error_ != 0) {
      deferred_.Reject(errno_error(Env(), error_, what_).Value());
    } else {
      deferred_.Resolve(value_ ? value_(Env()) : Env().Undefined());
    }
  }

 private:
  std::function<MakeValue()> work_;
  Napi::Promise::Deferred deferred_;
  MakeValue value_;
  int error_ = 0;
  std::string what_;
};

}  // namespace

Napi::Promise control_promise(Napi::Env env, std::function<MakeValue()> work) {
  auto worker = std::make_unique<ControlWorker>(env, std::move(work));
  const Napi::Promise promise = worker->promise();
  worker.release()->Queue();  // it owns itself from here on
  return promise;
}

}  // namespace pando
