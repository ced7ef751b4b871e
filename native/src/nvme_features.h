// Get and Set Features (Base 5.15, 5.27): the few that hosts use over fabrics.
#pragma once

#include <array>

#include "nvme_command.h"
#include "nvme_spec.h"

namespace pando::nvme {

class Controller;

/// Those of an I/O controller.
inline constexpr std::array kFeatures = {Feature::kArbitration,          Feature::kPowerManagement,
                                         Feature::kTemperatureThreshold, Feature::kErrorRecovery,
                                         Feature::kVolatileWriteCache,   Feature::kNumberOfQueues,
                                         Feature::kWriteAtomicity,       Feature::kAsyncEventConfig,
                                         Feature::kKeepAliveTimer,       Feature::kHostIdentifier};

Reply get_features(Controller& controller, Command& command);
Reply set_features(Controller& controller, Command& command);

}  // namespace pando::nvme
