// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "common/executor.h"
#include "nn/matrix.h"

namespace meander::nn {

// A vector and how alike it is: the cosine of the angle, in [-1, 1] but for rounding.
struct Neighbour {
  std::uint32_t row = 0;
  float similarity = 0;
};

// Brings each row to length 1, so that products are cosines; a row of zeros stays as it is.
void normalise_rows(Matrix rows);

// For each of `queries`, a row of `all` (normalised), the k rows that are most alike, without
// itself and without rows of zeros: best first, of equal ones the lower row. Fewer where there are
// not k: `found` says how many. Exact; blocks of products, so that `all` is read once for each
// kNearestQueries of the queries. out (queries, k), found (queries). Does not depend on threads.
constexpr std::int32_t kNearestQueries = 64;
void nearest(ConstMatrix all, std::span<const std::uint32_t> queries, std::int32_t k,
             std::span<Neighbour> out, std::span<std::int32_t> found, Executor& executor);

}  // namespace meander::nn
