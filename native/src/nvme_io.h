// I/O commands (NVM 3): from a submission queue entry to requests on the volume and back.
#pragma once

#include "nvme_command.h"

namespace pando::nvme {

class Controller;

/// What can be said against an I/O command before its data is asked for.
Status check_io(const Controller& controller, const Command& command);

/// The memory that a command needs beside its data. Only after check_io() passed it.
uint32_t scratch_bytes(const Sqe& sqe);

/// Runs a command whose data is in its buffer; it answers through its connection.
void execute_io(Controller& controller, Command& command);

}  // namespace pando::nvme
