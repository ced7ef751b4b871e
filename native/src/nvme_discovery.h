// The discovery log (Base 5.16.1.23): which subsystems this host may connect to, and where.
#pragma once

#include <optional>

#include "nvme_command.h"
#include "nvme_log_page.h"

namespace pando::nvme {

class Controller;

/// Asks the control plane when the log is read from its start; the pieces that follow come from
/// the same list.
std::optional<Reply> discovery_log(Controller& controller, Command& command,
                                   const LogWindow& window);

}  // namespace pando::nvme
