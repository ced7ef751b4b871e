// What a daemon does to its own process before it serves block devices, and the runtime cannot do.
//
// All of this is the calling thread's, which has to be the first one: the other threads keep the
// mounts that they had, until the program is executed again and they are no more.
#include "process_calls.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <vector>

#include "args.h"

namespace pando {
namespace {

void fail(Napi::Env env, const std::string& what) {
  errno_error(env, errno, what).ThrowAsJavaScriptException();
}

/// mountsSeparate(): from here on this thread has a copy of all mounts; what others mount does not
/// come to it, nor the other way round
Napi::Value MountsSeparate(const Napi::CallbackInfo& info) {
  if (unshare(CLONE_NEWNS) != 0) {
    fail(info.Env(), "separate the mounts");
  } else if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    fail(info.Env(), "make the mounts private");
  }
  return info.Env().Undefined();
}

/// mountDetach(path): gone from this thread's mounts, whoever uses it
Napi::Value MountDetach(const Napi::CallbackInfo& info) {
  Args args(info, "mountDetach");
  const std::string path = args.string(0, "path");
  if (!args.ok()) return args.env().Undefined();
  if (umount2(path.c_str(), MNT_DETACH) != 0) fail(args.env(), "detach " + path);
  return args.env().Undefined();
}

/// executeAgain(arguments, name, value): the program that the first argument names, as the same
/// process, with one more variable in its environment. Returns only by an error
Napi::Value ExecuteAgain(const Napi::CallbackInfo& info) {
  Args args(info, "executeAgain");
  const Napi::Object list = args.object(0, "arguments");
  const std::string name = args.string(1, "name");
  const std::string value = args.string(2, "value");
  if (!args.ok()) return args.env().Undefined();
  std::vector<std::string> words;
  const uint32_t count = list.IsArray() ? list.As<Napi::Array>().Length() : 0;
  for (uint32_t at = 0; at < count; ++at) words.push_back(list.Get(at).ToString().Utf8Value());
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  // The runtime has marked them to end here; without them the next one would have none.
  for (int standard = 0; standard <= 2; ++standard) fcntl(standard, F_SETFD, 0);
  if (!words.empty() && setenv(name.c_str(), value.c_str(), 1) == 0) {
    execv(words.front().c_str(), pointers.data());
  }
  fail(args.env(), "execute this program again");
  return args.env().Undefined();
}

}  // namespace

void register_process_calls(Napi::Env env, Napi::Object exports) {
  exports.Set("mountsSeparate", Napi::Function::New(env, MountsSeparate));
  exports.Set("mountDetach", Napi::Function::New(env, MountDetach));
  exports.Set("executeAgain", Napi::Function::New(env, ExecuteAgain));
}

}  // namespace pando
