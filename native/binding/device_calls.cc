// Data devices as JavaScript sees them: opened and locked here, read by recovery, then handed to a
// pool. And the controls of the simulated one.
#include "device_calls.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <system_error>
#include <utility>

#include "args.h"
#include "buffer.h"
#include "devices.h"

namespace pando {
namespace {

std::shared_ptr<Device> device_arg(Args& args, size_t index) {
  const uint64_t handle = args.number(index, "device");
  if (!args.ok()) return nullptr;
  auto device = find_device(handle);
  if (device == nullptr) args.fail("device", "an open device");
  return device;
}

std::shared_ptr<Device> sim_arg(Args& args, size_t index) {
  auto device = device_arg(args, index);
  if (device != nullptr && device->sim == nullptr) {
    args.fail("device", "a simulated device");
    return nullptr;
  }
  return device;
}

/// deviceOpen(path): handle. Throws with the errno's name; EWOULDBLOCK (EAGAIN) if another process
/// has it.
Napi::Value DeviceOpen(const Napi::CallbackInfo& info) {
  Args args(info, "deviceOpen");
  const std::string path = args.string(0, "path");
  if (!args.ok()) return info.Env().Undefined();
  try {
    auto device = std::make_shared<Device>();
    device->file = std::make_unique<DeviceFile>(path);
    return to_js_number(info.Env(), add_device(std::move(device)));
  } catch (const std::system_error& error) {
    errno_error(info.Env(), error.code().value(), "open " + path).ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
}

Napi::Value DeviceInfo(const Napi::CallbackInfo& info) {
  Args args(info, "deviceInfo");
  const auto device = device_arg(args, 0);
  if (device == nullptr) return info.Env().Undefined();
  Napi::Object result = Napi::Object::New(info.Env());
  const bool file = device->file != nullptr;
  result.Set("sizeBytes", to_js_number(info.Env(), file ? device->file->size_bytes()
                                                        : device->sim->size_bytes()));
  result.Set("blockDevice",
             Napi::Boolean::New(info.Env(), file && device->file->is_block_device()));
  result.Set("atomicUnit", file ? device->file->atomic_unit() : device->sim->atomic_unit());
  result.Set("volatileCache", file ? device->file->volatile_cache() : true);
  return result;
}

/// deviceRead(device, offset, length): Uint8Array. Offset and length are multiples of 4 KiB.
Napi::Value DeviceRead(const Napi::CallbackInfo& info) {
  Args args(info, "deviceRead");
  const auto device = device_arg(args, 0);
  const uint64_t offset = args.number(1, "offset");
  const uint64_t length = args.number(2, "length");
  if (!args.ok()) return info.Env().Undefined();
  if (offset % 4096 != 0 || length % 4096 != 0 || length == 0 || length > (1 << 20)) {
    args.fail("length", "1 to 256 sectors, at a sector's offset");
    return info.Env().Undefined();
  }
  BufferPool pool;
  Buffer buffer = pool.take(length);
  if (device->sim != nullptr) {
    if (offset + length > device->sim->size_bytes()) {
      errno_error(info.Env(), EIO, "read beyond the end").ThrowAsJavaScriptException();
      return info.Env().Undefined();
    }
    device->sim->read_now(offset, static_cast<uint32_t>(length), buffer.data());
  } else {
    uint64_t done = 0;
    while (done < length) {
      const ssize_t got = pread(device->file->fd(), buffer.data() + done, length - done,
                                static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        errno_error(info.Env(), got < 0 ? errno : EIO, "read the data device")
            .ThrowAsJavaScriptException();
        return info.Env().Undefined();
      }
      done += static_cast<uint64_t>(got);
    }
  }
  Napi::Uint8Array result = Napi::Uint8Array::New(info.Env(), length);
  std::memcpy(result.Data(), buffer.data(), length);
  return result;
}

Napi::Value DeviceFlush(const Napi::CallbackInfo& info) {
  Args args(info, "deviceFlush");
  const auto device = device_arg(args, 0);
  if (device == nullptr) return info.Env().Undefined();
  if (device->sim != nullptr) {
    device->sim->flush_now();
  } else if (fdatasync(device->file->fd()) != 0) {
    errno_error(info.Env(), errno, "flush the data device").ThrowAsJavaScriptException();
  }
  return info.Env().Undefined();
}

/// A pool that uses the device keeps it until it is closed itself.
Napi::Value DeviceClose(const Napi::CallbackInfo& info) {
  Args args(info, "deviceClose");
  const uint64_t handle = args.number(0, "device");
  if (args.ok()) remove_device(handle);
  return info.Env().Undefined();
}

/// preallocate(path, bytes): makes the file and gives it all its blocks (fallocate).
Napi::Value Preallocate(const Napi::CallbackInfo& info) {
  Args args(info, "preallocate");
  const std::string path = args.string(0, "path");
  const uint64_t bytes = args.number(1, "bytes");
  if (!args.ok()) return info.Env().Undefined();
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  int error = fd < 0 ? errno : 0;
  if (fd >= 0) {
    error = posix_fallocate(fd, 0, static_cast<off_t>(bytes));
    ::close(fd);
  }
  if (error != 0) {
    errno_error(info.Env(), error, "allocate " + path).ThrowAsJavaScriptException();
  }
  return info.Env().Undefined();
}

class AllocateWorker final : public Napi::AsyncWorker {
 public:
  AllocateWorker(Napi::Env env, std::string path, uint64_t offset, uint64_t bytes)
      : AsyncWorker(env),
        path_(std::move(path)),
        offset_(offset),
        bytes_(bytes),
        deferred_(Napi::Promise::Deferred::New(env)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    const int fd = open(path_.c_str(), O_RDWR | O_CLOEXEC);
    error_ = fd < 0 ? errno : 0;
    if (fd < 0) return;
    error_ = posix_fallocate(fd, static_cast<off_t>(offset_), static_cast<off_t>(bytes_));
    ::close(fd);
  }

  void OnOK() override {
    if (error_ == 0) {
      deferred_.Resolve(Env().Undefined());
    } else {
      deferred_.Reject(errno_error(Env(), error_, "allocate " + path_).Value());
    }
  }

 private:
  std::string path_;
  uint64_t offset_;
  uint64_t bytes_;
  int error_ = 0;
  Napi::Promise::Deferred deferred_;
};

/// allocate(path, offset, bytes): Promise. Gives that part of the file its blocks; nothing before
/// it is touched, so the file may be in use.
Napi::Value Allocate(const Napi::CallbackInfo& info) {
  Args args(info, "allocate");
  const std::string path = args.string(0, "path");
  const uint64_t offset = args.number(1, "offset");
  const uint64_t bytes = args.number(2, "bytes");
  if (!args.ok()) return info.Env().Undefined();
  // Napi::AsyncWorker deletes itself when it has settled.
  auto worker = std::make_unique<AllocateWorker>(info.Env(), path, offset, bytes);
  const Napi::Promise promise = worker->promise();
  worker.release()->Queue();
  return promise;
}

Napi::Value SimDiskCreate(const Napi::CallbackInfo& info) {
  Args args(info, "simDiskCreate");
  const uint64_t size = args.number(0, "sizeBytes");
  const uint64_t unit = args.number(1, "atomicUnit");
  if (args.ok() && (size % 4096 != 0 || (unit != 512 && unit != 4096))) {
    args.fail("atomicUnit", "512 or 4096, and the size whole sectors");
  }
  if (!args.ok()) return info.Env().Undefined();
  auto device = std::make_shared<Device>();
  device->sim = std::make_unique<SimDisk>(size, static_cast<uint32_t>(unit));
  return to_js_number(info.Env(), add_device(std::move(device)));
}

Napi::Value SimDiskFork(const Napi::CallbackInfo& info) {
  Args args(info, "simDiskFork");
  const auto device = sim_arg(args, 0);
  if (device == nullptr) return info.Env().Undefined();
  auto copy = std::make_shared<Device>();
  copy->sim = std::make_unique<SimDisk>(device->sim->fork());
  copy->shared = device->shared;
  return to_js_number(info.Env(), add_device(std::move(copy)));
}

Napi::Value SimDiskWrite(const Napi::CallbackInfo& info) {
  Args args(info, "simDiskWrite");
  const auto device = sim_arg(args, 0);
  const uint64_t offset = args.number(1, "offset");
  const auto data = args.bytes(2, "data");
  if (!args.ok()) return info.Env().Undefined();
  device->sim->write_now(offset, static_cast<uint32_t>(data.ByteLength()),
                         reinterpret_cast<const std::byte*>(data.Data()));
  return info.Env().Undefined();
}

/// simDiskPending(device): [{kind, offset, length}], in the order of submission.
Napi::Value SimDiskPending(const Napi::CallbackInfo& info) {
  Args args(info, "simDiskPending");
  const auto device = sim_arg(args, 0);
  if (device == nullptr) return info.Env().Undefined();
  static constexpr const char* kKinds[] = {"read", "write", "write-durable", "flush", "discard"};
  Napi::Array result = Napi::Array::New(info.Env());
  for (size_t i = 0; i < device->sim->pending_count(); ++i) {
    const DiskOp op = device->sim->pending(i);
    Napi::Object entry = Napi::Object::New(info.Env());
    entry.Set("kind", kKinds[static_cast<size_t>(op.kind)]);
    entry.Set("offset", to_js_number(info.Env(), op.offset));
    entry.Set("length", op.length);
    result.Set(static_cast<uint32_t>(i), entry);
  }
  return result;
}

Napi::Value SimDiskPendingCount(const Napi::CallbackInfo& info) {
  Args args(info, "simDiskPendingCount");
  const auto device = sim_arg(args, 0);
  if (device == nullptr) return info.Env().Undefined();
  return to_js_number(info.Env(), device->sim->pending_count());
}

/// simDiskComplete(device, index, errno, seed)
Napi::Value SimDiskComplete(const Napi::CallbackInfo& info) {
  Args args(info, "simDiskComplete");
  const auto device = sim_arg(args, 0);
  const uint64_t index = args.number(1, "index");
  const uint64_t error = args.number(2, "errno");
  const uint64_t seed = args.number(3, "seed");
  if (args.ok() && index >= device->sim->pending_count()) {
    args.fail("index", "that of a pending operation");
  }
  if (args.ok()) device->sim->complete(index, static_cast<int>(error), seed);
  return info.Env().Undefined();
}

/// simDiskTransfer(device, index, length): a short transfer
Napi::Value SimDiskTransfer(const Napi::CallbackInfo& info) {
  Args args(info, "simDiskTransfer");
  const auto device = sim_arg(args, 0);
  const uint64_t index = args.number(1, "index");
  const uint64_t length = args.number(2, "length");
  if (!args.ok()) return info.Env().Undefined();
  const bool pending = index < device->sim->pending_count();
  const uint32_t unit = device->sim->atomic_unit();
  const DiskOpKind kind = pending ? device->sim->pending(index).kind : DiskOpKind::kFlush;
  if (kind == DiskOpKind::kFlush || kind == DiskOpKind::kDiscard) {
    args.fail("index", "that of a pending read or write");
  } else if (length == 0 || length % unit != 0 || length >= device->sim->pending(index).length) {
    args.fail("length", "whole atomic units, less than are left");
  } else {
    device->sim->transfer(index, static_cast<uint32_t>(length));
  }
  return info.Env().Undefined();
}

/// simDiskDigest(device): everything that was done to it so far, as one number
Napi::Value SimDiskDigest(const Napi::CallbackInfo& info) {
  Args args(info, "simDiskDigest");
  const auto device = sim_arg(args, 0);
  if (device == nullptr) return info.Env().Undefined();
  return to_js_number(info.Env(), device->sim->digest());
}

/// simDiskCutPower(device, survivors: 0 none, 1 all, 2 completed, 3 random, 4 chosen, seed)
Napi::Value SimDiskCutPower(const Napi::CallbackInfo& info) {
  Args args(info, "simDiskCutPower");
  const auto device = sim_arg(args, 0);
  const uint64_t survivors = args.number(1, "survivors");
  const uint64_t seed = args.number(2, "seed");
  if (args.ok() && survivors > static_cast<uint64_t>(Survivors::kChosen)) {
    args.fail("survivors", "0 to 4");
  }
  if (args.ok()) {
    device->sim->cut_power(static_cast<Survivors>(survivors), seed);
    device->shared.clear();
  }
  return info.Env().Undefined();
}

/// simDiskSurvivorSets(device, limit): how many contents a power cut could leave now
Napi::Value SimDiskSurvivorSets(const Napi::CallbackInfo& info) {
  Args args(info, "simDiskSurvivorSets");
  const auto device = sim_arg(args, 0);
  const uint64_t limit = args.number(1, "limit");
  if (!args.ok()) return info.Env().Undefined();
  return to_js_number(info.Env(), device->sim->survivor_sets(limit));
}

/// simSharedRead(device): the memory that outlives the process; empty after a power cut
Napi::Value SimSharedRead(const Napi::CallbackInfo& info) {
  Args args(info, "simSharedRead");
  const auto device = sim_arg(args, 0);
  if (device == nullptr) return info.Env().Undefined();
  Napi::Uint8Array result = Napi::Uint8Array::New(info.Env(), device->shared.size());
  const auto* from = reinterpret_cast<const uint8_t*>(device->shared.data());
  std::copy(from, from + device->shared.size(), result.Data());
  return result;
}

Napi::Value SimDiskKill(const Napi::CallbackInfo& info) {
  Args args(info, "simDiskKill");
  const auto device = sim_arg(args, 0);
  const uint64_t seed = args.number(1, "seed");
  if (args.ok()) device->sim->kill(seed);
  return info.Env().Undefined();
}

}  // namespace

void register_device_calls(Napi::Env env, Napi::Object exports) {
  exports.Set("deviceOpen", Napi::Function::New(env, DeviceOpen));
  exports.Set("deviceInfo", Napi::Function::New(env, DeviceInfo));
  exports.Set("deviceRead", Napi::Function::New(env, DeviceRead));
  exports.Set("deviceFlush", Napi::Function::New(env, DeviceFlush));
  exports.Set("deviceClose", Napi::Function::New(env, DeviceClose));
  exports.Set("preallocate", Napi::Function::New(env, Preallocate));
  exports.Set("allocate", Napi::Function::New(env, Allocate));
  exports.Set("simDiskCreate", Napi::Function::New(env, SimDiskCreate));
  exports.Set("simDiskFork", Napi::Function::New(env, SimDiskFork));
  exports.Set("simDiskWrite", Napi::Function::New(env, SimDiskWrite));
  exports.Set("simDiskPending", Napi::Function::New(env, SimDiskPending));
  exports.Set("simDiskPendingCount", Napi::Function::New(env, SimDiskPendingCount));
  exports.Set("simDiskComplete", Napi::Function::New(env, SimDiskComplete));
  exports.Set("simDiskTransfer", Napi::Function::New(env, SimDiskTransfer));
  exports.Set("simDiskDigest", Napi::Function::New(env, SimDiskDigest));
  exports.Set("simDiskCutPower", Napi::Function::New(env, SimDiskCutPower));
  exports.Set("simDiskSurvivorSets", Napi::Function::New(env, SimDiskSurvivorSets));
  exports.Set("simSharedRead", Napi::Function::New(env, SimSharedRead));
  exports.Set("simDiskKill", Napi::Function::New(env, SimDiskKill));
}

}  // namespace pando
