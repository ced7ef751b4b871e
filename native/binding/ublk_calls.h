// Block devices of ublk as JavaScript sees them.
#pragma once

#include <napi.h>

namespace pando {

void register_ublk_calls(Napi::Env env, Napi::Object exports);

}  // namespace pando
