// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace meander::launch {

// Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends the process at once.
// Call before threads are started. A pipe wakes whoever waits.
void catch_interrupts();
// The same for the first rank of an MPI run: Ctrl-C to mpirun arrives as SIGCONT at once and as
// SIGTERM some time later; what comes after the first is for mpirun to enforce.
void catch_interrupts_of_mpi();
// For a process whose leader is told as well.
void ignore_interrupts();
bool interrupted();
// Readable once interrupted() is true; -1 before catch_interrupts(). For poll(2).
int interrupt_descriptor();
// 130 (SIGINT) or 143 (SIGTERM), by the signal that came first; 130 when none did.
int interrupt_exit_code();

}  // namespace meander::launch
