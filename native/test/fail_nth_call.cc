// A library that is loaded before all others (LD_PRELOAD) and lets one call of a process fail: the
// n-th of its kind. What a simulator cannot reach fails here: the memory of the real addon, its
// submissions to the kernel, and the system calls of the real LMDB.
//
//   PANDO_FAIL_CALL=allocation:120       the 120th that the addon asks for
//   PANDO_FAIL_CALL=submission:7:11      with this errno; also store-write, store-sync
//
// Number 0 fails none. Allocations are counted only if it is their turn. When the process ends by
// itself it says on stderr how many calls there were, and the one that fails says so at once.
#include <dlfcn.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

struct io_uring;
struct io_uring_cqe;
struct __kernel_timespec;

namespace {

enum class Kind { kAllocation, kSubmission, kStoreWrite, kStoreSync };
constexpr std::array<const char*, 4> kNames{"allocation", "submission", "store-write",
                                            "store-sync"};
enum class Module : uint8_t { kOther, kAddon, kLmdb };

struct Order {
  Order() {
    const char* text = std::getenv("PANDO_FAIL_CALL");
    if (text == nullptr) return;
    for (size_t at = 0; at < kNames.size(); ++at) {
      const size_t length = std::strlen(kNames[at]);
      if (std::strncmp(text, kNames[at], length) != 0 || text[length] != ':') continue;
      kind = static_cast<Kind>(at);
      char* rest = nullptr;
      number = std::strtoull(text + length + 1, &rest, 10);
      if (*rest == ':') error = std::atoi(rest + 1);
    }
  }
  ~Order();

  Kind kind = Kind::kSubmission;
  uint64_t number = 0;
  int error = EIO;
};

std::array<std::atomic<uint64_t>, kNames.size()> calls{};

Order& order() {
  static Order instance;
  return instance;
}

Order::~Order() {
  if (std::getenv("PANDO_FAIL_CALL") == nullptr) return;
  for (size_t at = 0; at < kNames.size(); ++at) {
    std::fprintf(stderr, "calls: %s %llu\n", kNames[at],
                 static_cast<unsigned long long>(calls[at].load()));
  }
}

/// Whose code calls, by the address that it returns to.
Module module_of(const void* address) {
  struct Known {
    const void* address = nullptr;
    Module module = Module::kOther;
  };
  thread_local std::array<Known, 512> known{};
  Known& entry = known[(reinterpret_cast<uintptr_t>(address) >> 2) % known.size()];
  if (entry.address == address) return entry.module;
  Dl_info info{};
  Module module = Module::kOther;
  if (dladdr(address, &info) != 0 && info.dli_fname != nullptr) {
    if (std::strstr(info.dli_fname, "/pando.node") != nullptr) module = Module::kAddon;
    if (std::strstr(info.dli_fname, "/lmdb-") != nullptr) module = Module::kLmdb;
  }
  entry = {address, module};
  return module;
}

bool fails(Kind kind) {
  const uint64_t number = calls[static_cast<size_t>(kind)].fetch_add(1) + 1;
  if (kind != order().kind || number != order().number) return false;
  char text[64];
  const int length =
      std::snprintf(text, sizeof text, "fails: %s %llu\n", kNames[static_cast<size_t>(kind)],
                    static_cast<unsigned long long>(number));
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, static_cast<size_t>(length));
  return true;
}

/// The function that this one stands before.
template <typename Function>
Function next(const char* name, void* library = RTLD_NEXT) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

/// Nothing but the addon sees it, so it is not among the next ones.
void* liburing() {
  static void* const library = dlopen("liburing.so.2", RTLD_LAZY | RTLD_NOLOAD);
  return library;
}

void* allocate(size_t size, const void* caller) {
  // There are very many, and whose they are takes time to find out.
  const bool counts = order().kind == Kind::kAllocation && module_of(caller) == Module::kAddon;
  if (counts && fails(Kind::kAllocation)) throw std::bad_alloc();
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}

bool store_fails(Kind kind, const void* caller) {
  if (module_of(caller) != Module::kLmdb || !fails(kind)) return false;
  errno = order().error;
  return true;
}

}  // namespace

#define CALLER __builtin_return_address(0)

void* operator new(size_t size) {
  return allocate(size, CALLER);
}
void* operator new[](size_t size) {
  return allocate(size, CALLER);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, size_t) noexcept {
  std::free(memory);
}

extern "C" {

int io_uring_submit(io_uring* ring) {
  if (fails(Kind::kSubmission)) return -order().error;
  static const auto real = next<int (*)(io_uring*)>("io_uring_submit", liburing());
  return real(ring);
}

int io_uring_submit_and_get_events(io_uring* ring) {
  if (fails(Kind::kSubmission)) return -order().error;
  static const auto real = next<int (*)(io_uring*)>("io_uring_submit_and_get_events", liburing());
  return real(ring);
}

int io_uring_submit_and_wait(io_uring* ring, unsigned count) {
  if (fails(Kind::kSubmission)) return -order().error;
  static const auto real =
      next<int (*)(io_uring*, unsigned)>("io_uring_submit_and_wait", liburing());
  return real(ring, count);
}

int io_uring_submit_and_wait_timeout(io_uring* ring, io_uring_cqe** entry, unsigned count,
                                     __kernel_timespec* timeout, void* signals) {
  if (fails(Kind::kSubmission)) return -order().error;
  static const auto real =
      next<int (*)(io_uring*, io_uring_cqe**, unsigned, __kernel_timespec*, void*)>(
          "io_uring_submit_and_wait_timeout", liburing());
  return real(ring, entry, count, timeout, signals);
}

ssize_t pwrite64(int file, const void* data, size_t size, off64_t offset) {
  if (store_fails(Kind::kStoreWrite, CALLER)) return -1;
  static const auto real = next<ssize_t (*)(int, const void*, size_t, off64_t)>("pwrite64");
  return real(file, data, size, offset);
}

ssize_t writev(int file, const struct iovec* parts, int count) {
  if (store_fails(Kind::kStoreWrite, CALLER)) return -1;
  static const auto real = next<ssize_t (*)(int, const struct iovec*, int)>("writev");
  return real(file, parts, count);
}

int fdatasync(int file) {
  if (store_fails(Kind::kStoreSync, CALLER)) return -1;
  static const auto real = next<int (*)(int)>("fdatasync");
  return real(file);
}

int fsync(int file) {
  if (store_fails(Kind::kStoreSync, CALLER)) return -1;
  static const auto real = next<int (*)(int)>("fsync");
  return real(file);
}

int msync(void* memory, size_t size, int flags) {
  if (store_fails(Kind::kStoreSync, CALLER)) return -1;
  static const auto real = next<int (*)(void*, size_t, int)>("msync");
  return real(memory, size, flags);
}

}  // extern "C"
