// Identify (Base 5.17): what controllers and namespaces say of themselves.
#pragma once

#include "nvme_command.h"

namespace pando::nvme {

class Controller;

/// Fills the command's buffer. Linux 6.x looks at CNS 00h to 03h, 05h, 06h and 08h.
Reply identify(const Controller& controller, Command& command);

}  // namespace pando::nvme
