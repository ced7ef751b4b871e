#pragma once

#include <napi.h>

namespace pando {

/// Folds of a layer into its child, and blocks that were released without a record.
void register_fold_calls(Napi::Env env, Napi::Object exports);

}  // namespace pando
