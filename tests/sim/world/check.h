// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/storage.h"
#include "tests/sim/world/input.h"
#include "tests/sim/world/oracle.h"

namespace meander::sim {

// What a generation must hold.
struct Expected {
  Input input;
  const Oracle* oracle = nullptr;  // under BSP: every bit
  bool is_counting = false;        // rows say how often their keys were trained
  bool is_all_counted = false;     // no metrics went with a worker: they are those of its positions
};

// What is wrong with a generation and what it stands on; empty: nothing. Reads all of it as a
// restore does.
std::string check_generation(Storage& storage, const std::string& dir, const Expected& expected);

// What is wrong with any generation that is complete by its name; empty: nothing.
std::string check_all(Storage& storage, const std::string& dir);

// What is wrong with a checkpoint directory when a run starts there; empty: nothing.
std::string check_directory(Storage& storage, const std::string& dir, std::uint32_t keep);

}  // namespace meander::sim
