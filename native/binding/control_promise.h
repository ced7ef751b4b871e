// Calls of the kernel that block: on a thread of the runtime's pool, as a promise.
#pragma once

#include <napi.h>

#include <functional>

namespace pando {

using MakeValue = std::function<Napi::Value(Napi::Env)>;

/// Resolves with what `work` gives (null: undefined), or rejects with the std::system_error that it
/// throws.
Napi::Promise control_promise(Napi::Env env, std::function<MakeValue()> work);

}  // namespace pando
