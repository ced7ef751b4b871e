// Drives a volume over NVMe/TCP from the host's side: several queues, each a connection, on one
// ring of the calling thread. What a target does is measured with it, ours or another.
//
// What is read is counted and thrown away, without a copy: the client shall cost little, since it
// often shares the machine with the target. Writes carry the same random bytes all the time. A
// write goes in its capsule if the target takes so much there, else when the target asks for it.
#pragma once

#include <cstdint>

#include "load_generator.h"
#include "nvme_initiator.h"

namespace pando::nvme {

struct NvmeLoadOptions {
  Place place;
  HostIdentity identity;
  LoadPattern pattern = LoadPattern::kRandomRead;
  uint32_t read_percent = 50;  // kRandomReadWrite only
  uint32_t block_bytes = 4096;
  uint32_t queues = 1;
  uint32_t depth = 1;         // of each queue
  uint64_t region_bytes = 0;  // from the volume's start; 0: all of it
  uint64_t duration_ms = 0;   // whichever of the two is reached first; 0: no limit
  uint64_t op_count = 0;
  uint64_t seed = 1;
};

inline constexpr uint32_t kMaxLoadQueues = 64;

struct NvmeLoadResult {
  double seconds = 0;
  LoadLane reads;
  LoadLane writes;
  uint64_t errors = 0;
  Status first_error = Status::kSuccess;
  uint64_t volume_bytes = 0;
};

/// Returns when the last answer is there. Throws std::runtime_error with a sentence: options that
/// do not fit, a target that refuses, or one that goes away.
NvmeLoadResult run_nvme_load(const NvmeLoadOptions& options);

}  // namespace pando::nvme
