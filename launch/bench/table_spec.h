// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "proto/wire.pb.h"

namespace meander::launch::bench {

// The table that benchmarks of rows use: row-wise Adagrad, rows drawn near zero.
inline wire::TableSpec rowwise_table(std::uint32_t width) {
  wire::TableSpec spec;
  spec.set_name("item");
  spec.set_width(width);
  spec.mutable_optimizer()->set_kind(wire::Optimizer::ROWWISE_ADAGRAD);
  spec.mutable_optimizer()->set_rate(0.01f);
  spec.set_init_range(0.01f);
  return spec;
}

}  // namespace meander::launch::bench
