#pragma once

#include <napi.h>

namespace pando {

/// Data devices, real and simulated. All on the JavaScript thread, synchronous.
void register_device_calls(Napi::Env env, Napi::Object exports);

}  // namespace pando
