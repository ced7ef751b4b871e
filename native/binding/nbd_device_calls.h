// Block devices of the kernel's NBD driver as JavaScript sees them.
#pragma once

#include <napi.h>

namespace pando {

void register_nbd_device_calls(Napi::Env env, Napi::Object exports);

}  // namespace pando
