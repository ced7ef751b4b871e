// CRC32C (Castagnoli polynomial, RFC 3720 appendix B.4): the checksum of journal, superblock, LMDB
// values and NVMe/TCP digests. Uses the SSE4.2 instruction where the CPU has it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pando {

/// CRC32C of `size` bytes, continuing from `crc` (0 to start). Finalised: crc32c("123456789") is
/// 0xE3069283.
uint32_t crc32c(const void* data, size_t size, uint32_t crc = 0);

/// The same without the CPU's help: what crc32c() is where SSE4.2 is missing.
uint32_t crc32c_portable(const void* data, size_t size, uint32_t crc = 0);

}  // namespace pando
