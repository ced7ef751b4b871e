// Get Log Page (Base 5.16).
#pragma once

#include <optional>

#include "nvme_command.h"

namespace pando::nvme {

class Controller;

/// Nothing: the answer comes later (the discovery log asks the control plane).
std::optional<Reply> get_log_page(Controller& controller, Command& command);

/// The part of a log that a command asks for. `bytes` may reach past the end of the log; what is
/// there reads as zero.
struct LogWindow {
  uint64_t offset;
  uint32_t bytes;
};

/// Copies what falls into `window` of a piece of the log that lies at `piece_offset`.
void put_log_piece(Command& command, const LogWindow& window, uint64_t piece_offset,
                   const void* piece, size_t piece_bytes);

}  // namespace pando::nvme
