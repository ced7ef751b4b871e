// Reading arguments and making errors, in one way. A wrong argument is a TypeError that names the
// function and the argument.
#pragma once

#include <napi.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

namespace pando {

/// One call's arguments. After a failed read `ok()` is false, a TypeError is pending, and the
/// caller returns at once.
class Args {
 public:
  Args(const Napi::CallbackInfo& info, const char* function) : info_(info), function_(function) {}

  bool ok() const { return ok_; }
  Napi::Env env() const { return info_.Env(); }

  /// A whole number from 0 to 2^53 - 1.
  uint64_t number(size_t index, const char* name) { return to_number(info_[index], name); }
  std::string string(size_t index, const char* name) { return to_string(info_[index], name); }
  bool boolean(size_t index, const char* name) {
    if (!info_[index].IsBoolean()) return fail(name, "a boolean"), false;
    return info_[index].As<Napi::Boolean>();
  }
  Napi::Function function(size_t index, const char* name) {
    if (!info_[index].IsFunction()) fail(name, "a function");
    return ok_ ? info_[index].As<Napi::Function>() : Napi::Function();
  }
  Napi::Object object(size_t index, const char* name) {
    if (!info_[index].IsObject()) fail(name, "an object");
    return ok_ ? info_[index].As<Napi::Object>() : Napi::Object();
  }
  /// The bytes stay JavaScript's: good until the call returns.
  Napi::Uint8Array bytes(size_t index, const char* name) {
    const bool right = info_[index].IsTypedArray() &&
                       info_[index].As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array;
    if (!right) fail(name, "a Uint8Array");
    return ok_ ? info_[index].As<Napi::Uint8Array>() : Napi::Uint8Array();
  }
  Napi::Uint32Array words(size_t index, const char* name) {
    const bool right = info_[index].IsTypedArray() &&
                       info_[index].As<Napi::TypedArray>().TypedArrayType() == napi_uint32_array;
    if (!right) fail(name, "a Uint32Array");
    return ok_ ? info_[index].As<Napi::Uint32Array>() : Napi::Uint32Array();
  }
  bool is_null(size_t index) const { return info_[index].IsNull() || info_[index].IsUndefined(); }

  uint64_t number_field(const Napi::Object& object, const char* name) {
    return ok_ ? to_number(object.Get(name), name) : 0;
  }
  std::string string_field(const Napi::Object& object, const char* name) {
    return ok_ ? to_string(object.Get(name), name) : std::string();
  }
  /// 64 bits as hexadecimal digits.
  uint64_t hex_field(const Napi::Object& object, const char* name) {
    const std::string text = string_field(object, name);
    char* end = nullptr;
    const uint64_t value = std::strtoull(text.c_str(), &end, 16);
    if (ok_ && (text.empty() || text.size() > 16 || *end != 0)) fail(name, "hexadecimal digits");
    return value;
  }
  bool boolean_field(const Napi::Object& object, const char* name) {
    if (!ok_) return false;
    const Napi::Value value = object.Get(name);
    if (!value.IsBoolean()) return fail(name, "a boolean"), false;
    return value.As<Napi::Boolean>();
  }
  /// `length` bytes exactly.
  std::vector<uint8_t> bytes_field(const Napi::Object& object, const char* name, size_t length) {
    std::vector<uint8_t> result(length);
    if (!ok_) return result;
    const Napi::Value value = object.Get(name);
    if (!value.IsTypedArray() || value.As<Napi::TypedArray>().ByteLength() != length) {
      fail(name, "a Uint8Array of the right length");
      return result;
    }
    std::memcpy(result.data(), value.As<Napi::Uint8Array>().Data(), length);
    return result;
  }
  std::vector<uint64_t> numbers(const Napi::Value& value, const char* name) {
    std::vector<uint64_t> result;
    if (!ok_) return result;
    if (!value.IsArray()) {
      fail(name, "an array of numbers");
      return result;
    }
    const auto array = value.As<Napi::Array>();
    for (uint32_t i = 0; i < array.Length() && ok_; ++i) {
      result.push_back(to_number(array.Get(i), name));
    }
    return result;
  }

  std::vector<std::string> strings(size_t index, const char* name) {
    std::vector<std::string> result;
    if (!ok_) return result;
    if (!info_[index].IsArray()) {
      fail(name, "an array of strings");
      return result;
    }
    const auto array = info_[index].As<Napi::Array>();
    for (uint32_t i = 0; i < array.Length() && ok_; ++i) {
      result.push_back(to_string(array.Get(i), name));
    }
    return result;
  }

  void fail(const char* name, const char* expected) {
    if (!ok_) return;
    ok_ = false;
    const std::string message =
        std::string(function_) + ": expected " + name + " to be " + expected;
    Napi::TypeError::New(env(), message).ThrowAsJavaScriptException();
  }

 private:
  uint64_t to_number(const Napi::Value& value, const char* name) {
    constexpr double kLimit = 9007199254740992.0;  // 2^53
    if (value.IsNumber()) {
      const double number = value.As<Napi::Number>().DoubleValue();
      if (number >= 0 && number < kLimit &&
          number == static_cast<double>(static_cast<uint64_t>(number))) {
        return static_cast<uint64_t>(number);
      }
    }
    fail(name, "a whole number from 0 on");
    return 0;
  }
  std::string to_string(const Napi::Value& value, const char* name) {
    if (!value.IsString()) return fail(name, "a string"), std::string();
    return value.As<Napi::String>().Utf8Value();
  }

  const Napi::CallbackInfo& info_;
  const char* function_;
  bool ok_ = true;
};

/// An Error whose `code` is the errno's name ("EIO").
Napi::Error errno_error(Napi::Env env, int error, const std::string& what);
/// "EIO" for EIO; "E" and the number for one that we do not expect.
std::string errno_name(int error);

inline Napi::Number to_js_number(Napi::Env env, uint64_t value) {
  return Napi::Number::New(env, static_cast<double>(value));
}

}  // namespace pando
