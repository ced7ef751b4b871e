// In-band authentication (Base 6.1, 6.2, 8.13): carries the messages of a queue's handshake between
// the host and the control plane, which has the keys. What they say is not looked at here.
//
// Until the control plane says that the host is who it says it is, the queue takes nothing but
// these commands, and the time in which a Connect has to be complete goes on. A host may
// authenticate again on a live queue; if that fails, the queue ends.
#pragma once

#include "nvme_command.h"

namespace pando::nvme {

/// Whether it is Authentication Send or Receive, which alone a queue takes before it is trusted.
bool is_authentication(const Sqe& sqe);

void execute_authentication(Command& command);

}  // namespace pando::nvme
