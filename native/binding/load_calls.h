#pragma once

#include <napi.h>

namespace pando {

/// The in-process load generator: what the engine does without a front end.
void register_load_calls(Napi::Env env, Napi::Object exports);

}  // namespace pando
