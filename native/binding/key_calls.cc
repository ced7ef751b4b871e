// The kernel's key rings (keyrings(7)), for which the runtime has no calls and a program would get
// a key by its arguments, which anybody can read.
//
// A root process may look into a ring and link to it, but reads and changes what is in it only if
// it possesses it: if the ring can be reached from one of its own. Those are the thread's, so all
// of this is called by the same one, the first.
#include "key_calls.h"

#include <linux/keyctl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "args.h"

namespace pando {
namespace {

/// More than the kernel takes for a key of this kind, and than a description can have.
constexpr size_t kMostBytes = 33 << 10;

/// Forgets what was in it.
class Secret {
 public:
  explicit Secret(size_t size) : bytes_(size) {}
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret() { explicit_bzero(bytes_.data(), bytes_.size()); }
  uint8_t* data() { return bytes_.data(); }
  size_t size() const { return bytes_.size(); }

 private:
  std::vector<uint8_t> bytes_;
};

int32_t serial_of(uint64_t number) {
  return static_cast<int32_t>(number);
}

Napi::Value failed(Napi::Env env, const std::string& what) {
  errno_error(env, errno, what).ThrowAsJavaScriptException();
  return env.Undefined();
}

/// keyringReach(keyring): from here on what is in it can be read and changed by this thread
Napi::Value KeyringReach(const Napi::CallbackInfo& info) {
  Args args(info, "keyringReach");
  const int32_t keyring = serial_of(args.number(0, "keyring"));
  if (!args.ok()) return args.env().Undefined();
  if (syscall(SYS_keyctl, KEYCTL_LINK, keyring, KEY_SPEC_PROCESS_KEYRING) < 0) {
    return failed(args.env(), "reach the key ring");
  }
  return args.env().Undefined();
}

/// {serial, type, userId, description}, or null if there is none to be seen
Napi::Value describe(Napi::Env env, int32_t serial) {
  // "type;user;group;permissions;description", and a zero
  std::vector<char> text(kMostBytes);
  const long size = syscall(SYS_keyctl, KEYCTL_DESCRIBE, serial, text.data(), text.size());
  if (size <= 0 || static_cast<size_t>(size) > text.size()) return env.Null();
  const std::string whole(text.data(), static_cast<size_t>(size) - 1);
  std::vector<std::string> words;
  size_t begin = 0;
  for (size_t end; words.size() < 4 && (end = whole.find(';', begin)) != std::string::npos;) {
    words.push_back(whole.substr(begin, end - begin));
    begin = end + 1;
  }
  if (words.size() < 4) return env.Null();
  Napi::Object key = Napi::Object::New(env);
  key.Set("serial", Napi::Number::New(env, serial));
  key.Set("type", Napi::String::New(env, words[0]));
  key.Set("userId", Napi::Number::New(env, std::strtod(words[1].c_str(), nullptr)));
  key.Set("description", Napi::String::New(env, whole.substr(begin)));
  return key;
}

/// keyDescribe(key)
Napi::Value KeyDescribe(const Napi::CallbackInfo& info) {
  Args args(info, "keyDescribe");
  const int32_t key = serial_of(args.number(0, "key"));
  if (!args.ok()) return args.env().Undefined();
  return describe(args.env(), key);
}

/// keyringList(keyring): without what goes meanwhile
Napi::Value KeyringList(const Napi::CallbackInfo& info) {
  Args args(info, "keyringList");
  const int32_t keyring = serial_of(args.number(0, "keyring"));
  if (!args.ok()) return args.env().Undefined();
  Napi::Env env = args.env();
  std::vector<int32_t> serials;
  for (;;) {
    const size_t room = serials.size() * sizeof(int32_t);
    const long size = syscall(SYS_keyctl, KEYCTL_READ, keyring, serials.data(), room);
    if (size < 0) return failed(env, "read the key ring");
    serials.resize(static_cast<size_t>(size) / sizeof(int32_t));
    if (static_cast<size_t>(size) <= room) break;
  }
  Napi::Array found = Napi::Array::New(env);
  uint32_t count = 0;
  for (const int32_t serial : serials) {
    const Napi::Value key = describe(env, serial);
    if (!key.IsNull()) found.Set(count++, key);
  }
  return found;
}

/// keyRead(key): its bytes
Napi::Value KeyRead(const Napi::CallbackInfo& info) {
  Args args(info, "keyRead");
  const int32_t key = serial_of(args.number(0, "key"));
  if (!args.ok()) return args.env().Undefined();
  Secret secret(kMostBytes);
  const long size = syscall(SYS_keyctl, KEYCTL_READ, key, secret.data(), secret.size());
  if (size < 0) return failed(args.env(), "read a key");
  if (static_cast<size_t>(size) > secret.size()) {
    errno = EMSGSIZE;
    return failed(args.env(), "read a key");
  }
  return Napi::Buffer<uint8_t>::Copy(args.env(), secret.data(), static_cast<size_t>(size));
}

/// keyAdd(keyring, type, description, secret): its serial; takes the place of one that is called
/// the same. A ring has no secret
Napi::Value KeyAdd(const Napi::CallbackInfo& info) {
  Args args(info, "keyAdd");
  const int32_t keyring = serial_of(args.number(0, "keyring"));
  const std::string type = args.string(1, "type");
  const std::string description = args.string(2, "description");
  const bool ring = args.is_null(3);
  const Napi::Uint8Array secret = ring ? Napi::Uint8Array() : args.bytes(3, "secret");
  if (!args.ok()) return args.env().Undefined();
  const void* bytes = ring ? nullptr : secret.Data();
  const size_t size = ring ? 0 : secret.ByteLength();
  const long serial = syscall(SYS_add_key, type.c_str(), description.c_str(), bytes, size, keyring);
  if (serial < 0) return failed(args.env(), "add a key");
  return Napi::Number::New(args.env(), static_cast<double>(serial));
}

/// keyUnlink(keyring, key): true if it was there
Napi::Value KeyUnlink(const Napi::CallbackInfo& info) {
  Args args(info, "keyUnlink");
  const int32_t keyring = serial_of(args.number(0, "keyring"));
  const int32_t key = serial_of(args.number(1, "key"));
  if (!args.ok()) return args.env().Undefined();
  const bool done = syscall(SYS_keyctl, KEYCTL_UNLINK, key, keyring) == 0;
  if (!done && errno != ENOENT && errno != ENOKEY) return failed(args.env(), "remove a key");
  return Napi::Boolean::New(args.env(), done);
}

}  // namespace

void register_key_calls(Napi::Env env, Napi::Object exports) {
  exports.Set("keyringReach", Napi::Function::New(env, KeyringReach));
  exports.Set("keyDescribe", Napi::Function::New(env, KeyDescribe));
  exports.Set("keyringList", Napi::Function::New(env, KeyringList));
  exports.Set("keyRead", Napi::Function::New(env, KeyRead));
  exports.Set("keyAdd", Napi::Function::New(env, KeyAdd));
  exports.Set("keyUnlink", Napi::Function::New(env, KeyUnlink));
}

}  // namespace pando
