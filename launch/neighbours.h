// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/executor.h"
#include "nn/matrix.h"
#include "nn/nearest.h"
#include "serve/artefact.h"

namespace meander::launch {

// What an export knows of all users, or of all items, as vectors of length 1.
struct Vectors {
  std::vector<std::uint64_t> ids;  // rising as signed numbers
  std::vector<float> values;       // (ids, width)
  std::int32_t width = 0;

  nn::ConstMatrix view() const {
    return {values.data(), static_cast<std::int32_t>(ids.size()), width, width};
  }
  // kInvalid: there is none.
  Result<std::uint32_t> row_of(std::uint64_t id) const;
};

// Of users: what their behaviours up to `at_ms` have left by then of their interest, where the
// model lets it decay (models/decay.cc); else their rows. kInvalid: the model has neither.
Result<Vectors> vectors_of_users(const std::shared_ptr<const serve::Artefact>& artefact,
                                 std::int64_t at_ms, Executor& executor);
// Of items: their rows. kInvalid: the model has none.
Result<Vectors> vectors_of_items(const serve::Artefact& artefact);

}  // namespace meander::launch
