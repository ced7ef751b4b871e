#include "args.h"

namespace pando {

std::string errno_name(int error) {
  const char* name = strerrorname_np(error);
  return name != nullptr ? name : "E" + std::to_string(error);
}

Napi::Error errno_error(Napi::Env env, int error, const std::string& what) {
  Napi::Error result = Napi::Error::New(env, what + ": " + std::strerror(error));
  result.Set("code", Napi::String::New(env, errno_name(error)));
  return result;
}

}  // namespace pando
