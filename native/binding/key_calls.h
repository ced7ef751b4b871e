#pragma once

#include <napi.h>

namespace pando {

void register_key_calls(Napi::Env env, Napi::Object exports);

}  // namespace pando
