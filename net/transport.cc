// SPDX-License-Identifier: Apache-2.0
#include "net/transport.h"

namespace meander::net {

std::string lane_name(std::uint32_t index) { return "lane/" + std::to_string(index); }
std::string backup_name(std::uint32_t index) { return "backup/" + std::to_string(index); }
std::string worker_name(std::uint32_t index) { return "worker/" + std::to_string(index); }

}  // namespace meander::net
