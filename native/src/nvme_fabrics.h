// Fabrics commands (Base 6): Connect, Property Get, Property Set; authentication is nvme_auth.h's.
#pragma once

#include "nvme_command.h"

namespace pando::nvme {

/// Connect on a connection without a controller; properties on an admin queue; authentication on
/// any.
void execute_fabrics(Command& command);

}  // namespace pando::nvme
