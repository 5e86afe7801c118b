// SPDX-License-Identifier: Apache-2.0
// What a table's optimizer comes to: its kernel, the constants of one push, and the state of a row
// that is new. Pure functions of the description and the table's step (docs/table.md).
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "common/status.h"
#include "proto/wire.pb.h"
#include "ps/simd/kernels.h"

namespace meander::ps {

// kInvalid, led by `where`: no optimizer can be like this.
Status check_optimizer(const wire::Optimizer& optimizer, const std::string& where);

UpdateRows update_kernel(wire::Optimizer::Kind kind);
// Of the push that makes the table's step `step`, from 1 on.
UpdateParams update_params(const wire::Optimizer& optimizer, std::uint32_t width,
                           std::uint64_t step);
// `state`: checkpoint::state_width floats, of a row that starts with `weights`.
void fill_fresh_state(const wire::Optimizer& optimizer, std::span<const float> weights,
                      std::span<float> state);
// What the rate is multiplied by in the push that makes the table's step `step`, from 1 on.
double schedule_share(const wire::Schedule& schedule, std::uint64_t step);

}  // namespace meander::ps
