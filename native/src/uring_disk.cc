#include "uring_disk.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <system_error>

#include "assert.h"

namespace pando {
namespace {

[[noreturn]] void throw_errno(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

/// Linux, Documentation/ABI/stable/sysfs-block: "write back" or "write through".
bool reports_write_through(dev_t device) {
  const std::string base =
      "/sys/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
  for (const char* place : {"/queue/write_cache", "/../queue/write_cache"}) {
    std::ifstream file(base + place);
    std::string line;
    if (std::getline(file, line)) return line == "write through";
  }
  return false;
}

}  // namespace

DeviceFile::DeviceFile(const std::string& path) {
  fd_ = open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
  if (fd_ < 0 && errno == EINVAL) fd_ = open(path.c_str(), O_RDWR | O_CLOEXEC);  // tmpfs
  if (fd_ < 0) throw_errno("open " + path);
  struct stat status {};
  if (flock(fd_, LOCK_EX | LOCK_NB) != 0 || fstat(fd_, &status) != 0) {
    const int error = errno;
    close(fd_);
    errno = error;
    throw_errno("lock " + path);
  }
  if (S_ISBLK(status.st_mode)) {
    block_device_ = true;
    uint64_t bytes = 0;
    unsigned physical = 512;
    if (ioctl(fd_, BLKGETSIZE64, &bytes) != 0 || ioctl(fd_, BLKPBSZGET, &physical) != 0) {
      const int error = errno;
      close(fd_);
      errno = error;
      throw_errno("measure " + path);
    }
    size_bytes_ = bytes;
    atomic_unit_ = physical >= 4096 ? 4096 : 512;
    volatile_cache_ = !reports_write_through(status.st_rdev);
  } else {
    size_bytes_ = static_cast<uint64_t>(status.st_size);
    struct statfs place {};
    in_memory_ =
        fstatfs(fd_, &place) == 0 && (place.f_type == TMPFS_MAGIC || place.f_type == RAMFS_MAGIC);
  }
}

DeviceFile::~DeviceFile() {
  close(fd_);
}

void UringDisk::submit(DiskOp* op) {
  op->error = 0;
  op->transferred = 0;
  op->ring_op.context = op;
  PANDO_ASSERT(op->kind == DiskOpKind::kFlush || op->length > 0);
  issue(op);
}

void UringDisk::issue(DiskOp* op) {
  op->owner = this;
  op->ring_op.done = [](RingOp* ring_op, int32_t result) {
    auto* disk_op = static_cast<DiskOp*>(ring_op->context);
    static_cast<UringDisk*>(disk_op->owner)->completed(disk_op, result);
  };
  if (device_.in_memory()) {
    copy(op);
    return;
  }
  op->ring_op.quick = op->kind == DiskOpKind::kRead || op->kind == DiskOpKind::kWrite;
  std::byte* data = op->data + op->transferred;
  const uint32_t size = op->length - op->transferred;
  const uint64_t offset = op->offset + op->transferred;
  switch (op->kind) {
    case DiskOpKind::kRead:
      ring_.read(&op->ring_op, device_.fd(), data, size, offset);
      break;
    case DiskOpKind::kWrite:
      ring_.write(&op->ring_op, device_.fd(), data, size, offset, 0);
      break;
    case DiskOpKind::kWriteDurable:
      ring_.write(&op->ring_op, device_.fd(), data, size, offset, RWF_DSYNC);
      break;
    case DiskOpKind::kFlush:
      ring_.fdatasync(&op->ring_op, device_.fd());
      break;
    case DiskOpKind::kDiscard:
      if (!device_.is_block_device()) {
        constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        ring_.fallocate(&op->ring_op, device_.fd(), kPunch, op->offset, op->length);
        break;
      }
      // The ring can do it on a block device since Linux 6.12 only.
      if (discards_ == nullptr) discards_ = std::make_unique<DiscardThread>(ring_, device_.fd());
      discards_->submit(op);
      break;
  }
}

void UringDisk::copy(DiskOp* op) {
  std::byte* data = op->data + op->transferred;
  const uint32_t size = op->length - op->transferred;
  const auto offset = static_cast<off_t>(op->offset + op->transferred);
  ssize_t result = 0;
  switch (op->kind) {
    case DiskOpKind::kRead:
      result = pread(device_.fd(), data, size, offset);
      break;
    case DiskOpKind::kWrite:
    case DiskOpKind::kWriteDurable:
      result = pwrite(device_.fd(), data, size, offset);
      break;
    case DiskOpKind::kFlush:
      break;
    case DiskOpKind::kDiscard:
      constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
      result = fallocate(device_.fd(), kPunch, offset, size);
      break;
  }
  op->ring_op.quick = false;
  ring_.finish(&op->ring_op, result < 0 ? -errno : static_cast<int32_t>(result));
}

void UringDisk::completed(DiskOp* op, int32_t result) {
  if (result == -EINTR || result == -EAGAIN) {
    issue(op);
    return;
  }
  if (result < 0) {
    op->error = -result;
  } else if (op->kind != DiskOpKind::kFlush && op->kind != DiskOpKind::kDiscard) {
    op->transferred += static_cast<uint32_t>(result);
    if (op->transferred < op->length) {
      if (result != 0) {  // a short transfer goes on where it stopped
        issue(op);
        return;
      }
      op->error = EIO;  // beyond the end of the device
    }
  }
  op->done(op);
}

}  // namespace pando
