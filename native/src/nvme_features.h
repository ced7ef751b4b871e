// Get and Set Features (Base 5.15, 5.27): the few that hosts use over fabrics.
#pragma once

#include "nvme_command.h"

namespace pando::nvme {

class Controller;

Reply get_features(Controller& controller, Command& command);
Reply set_features(Controller& controller, Command& command);

}  // namespace pando::nvme
