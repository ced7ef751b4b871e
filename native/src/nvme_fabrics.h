// Fabrics commands (Base 6): Connect, Property Get, Property Set.
#pragma once

#include "nvme_command.h"

namespace pando::nvme {

/// Connect on a connection without a controller; the others on an admin queue.
void execute_fabrics(Command& command);

}  // namespace pando::nvme
