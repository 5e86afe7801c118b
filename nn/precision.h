// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace meander::nn {

// How exact products are. kMixed: their operands are rounded to bfloat16, and all sums and all else
// are float32; a machine that has no fast way to do so computes as under kF32.
enum class Precision { kF32, kMixed };

}  // namespace meander::nn
