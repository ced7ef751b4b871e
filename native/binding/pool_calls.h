#pragma once

#include <napi.h>

namespace pando {

/// The pool: opening and closing, volumes, checkpoint, extents, index answers, block I/O for tests
/// and tools.
void register_pool_calls(Napi::Env env, Napi::Object exports);

}  // namespace pando
