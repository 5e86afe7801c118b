// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/cli.h"
#include "launch/layout.h"
#include "launch/roles.h"

namespace meander::launch {

// The lanes of one ps process, and those that it stands by for.
struct PsRole {
  std::vector<std::uint32_t> lanes;
  LaneRange backups;
  std::string scheduler;
  std::string listen = "tcp://127.0.0.1:*";  // the k-th lane of the process: k ports above
  std::string advertise;                     // host; empty: as bound, or this host's name
};

// Both run until the scheduler says Stop. kUnavailable: it fell silent. kInterrupted: a signal told
// this process to leave; what it held goes to others.
Status run_ps(const Context& context, Process& process, const PsRole& role);
Status run_worker(const Context& context, Process& process, const Plan& plan, std::uint32_t index,
                  const std::string& scheduler, worker::Collective* collective = nullptr);

}  // namespace meander::launch
