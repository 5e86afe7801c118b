// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace meander::launch {

constexpr char kVersion[] = "0.1.0";

}  // namespace meander::launch
