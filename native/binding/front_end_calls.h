#pragma once

#include <napi.h>

namespace pando {

/// NBD server and NVMe/TCP target of a pool: listening, stopping, fencing, and news for hosts.
void register_front_end_calls(Napi::Env env, Napi::Object exports);

}  // namespace pando
