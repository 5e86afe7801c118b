// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "common/status.h"
#include "common/storage.h"

namespace meander::launch {

// How numbers are shown to people.
std::string grouped(std::uint64_t value);     // 1,000,209
std::string fixed(double value, int digits);  // 0.8571; "-" when not a number
std::string duration_text(double seconds);    // 4.2 s, 3 min 20 s, 2 h 5 min
std::string bytes_text(std::uint64_t bytes);  // 3.1 MiB
std::string percent(double share);            // 12.5 %

// A whole text file. kNotFound names the path.
Result<std::string> read_text(Storage& storage, const std::string& path);

}  // namespace meander::launch
