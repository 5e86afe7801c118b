// SPDX-License-Identifier: Apache-2.0
#include "nn/sparse.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/check.h"

namespace meander::nn {
namespace {

// What a row without entries costs, in entries: it is written all the same.
constexpr std::size_t kRowCost = 4;

// Turns the counts of rows behind begin[0] into where rows begin.
void sum_up(std::vector<std::uint32_t>& begin) {
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
}

void add_up_equal_columns(SparseMatrix& a) {
  std::uint32_t out = 0, from = 0;
  for (std::int32_t r = 0; r < a.rows; ++r) {
    const std::uint32_t first = out, end = a.begin[r + 1];
    for (; from < end; ++from) {
      if (out > first && a.column[out - 1] == a.column[from]) {
        a.value[out - 1] += a.value[from];
      } else {
        a.column[out] = a.column[from];
        a.value[out++] = a.value[from];
      }
    }
    a.begin[r + 1] = out;
  }
  a.column.resize(out);
  a.value.resize(out);
}

}  // namespace

SparseMatrix transposed(const SparseMatrix& a, std::vector<std::uint32_t>* place) {
  SparseMatrix t;
  t.rows = a.cols;
  t.cols = a.rows;
  t.begin.assign(t.rows + 1, 0);
  for (const std::uint32_t c : a.column) ++t.begin[c + 1];
  sum_up(t.begin);
  t.column.resize(a.entries());
  t.value.resize(a.entries());
  if (place != nullptr) place->resize(a.entries());
  std::vector<std::uint32_t> next(t.begin.begin(), t.begin.end() - 1);
  for (std::int32_t r = 0; r < a.rows; ++r) {
    for (std::uint32_t e = a.begin[r]; e < a.begin[r + 1]; ++e) {
      const std::uint32_t at = next[a.column[e]]++;
      t.column[at] = static_cast<std::uint32_t>(r);
      t.value[at] = a.value[e];
      if (place != nullptr) (*place)[at] = e;
    }
  }
  return t;
}

// A sort by two countings: first by column, then by row, each of which keeps what was before.
SparseMatrix sparse_matrix(std::int32_t rows, std::int32_t cols, std::span<const SparseEntry> all) {
  CHECK_LT(all.size(), std::numeric_limits<std::uint32_t>::max());
  SparseMatrix by_column;
  by_column.rows = cols;
  by_column.cols = rows;
  by_column.begin.assign(cols + 1, 0);
  for (const SparseEntry& entry : all) {
    CHECK_LT(entry.row, static_cast<std::uint32_t>(rows));
    CHECK_LT(entry.column, static_cast<std::uint32_t>(cols));
    ++by_column.begin[entry.column + 1];
  }
  sum_up(by_column.begin);
  by_column.column.resize(all.size());
  by_column.value.resize(all.size());
  std::vector<std::uint32_t> next(by_column.begin.begin(), by_column.begin.end() - 1);
  for (const SparseEntry& entry : all) {
    const std::uint32_t at = next[entry.column]++;
    by_column.column[at] = entry.row;
    by_column.value[at] = entry.value;
  }
  SparseMatrix a = transposed(by_column);
  add_up_equal_columns(a);
  return a;
}

SparseMatrix symmetrically_normalised(SparseMatrix a) {
  std::vector<double> row_sum(a.rows), column_sum(a.cols);
  for (std::int32_t r = 0; r < a.rows; ++r) {
    for (std::uint32_t e = a.begin[r]; e < a.begin[r + 1]; ++e) {
      row_sum[r] += a.value[e];
      column_sum[a.column[e]] += a.value[e];
    }
  }
  for (std::int32_t r = 0; r < a.rows; ++r) {
    for (std::uint32_t e = a.begin[r]; e < a.begin[r + 1]; ++e) {
      a.value[e] = static_cast<float>(a.value[e] / std::sqrt(row_sum[r] * column_sum[a.column[e]]));
    }
  }
  return a;
}

SparseMatrix row_normalised(SparseMatrix a) {
  for (std::int32_t r = 0; r < a.rows; ++r) {
    const auto begin = a.value.begin() + a.begin[r], end = a.value.begin() + a.begin[r + 1];
    const double sum = std::accumulate(begin, end, 0.0);
    std::for_each(begin, end, [sum](float& x) { x = static_cast<float>(x / sum); });
  }
  return a;
}

std::vector<std::int32_t> balanced_rows(const SparseMatrix& a, std::int32_t chunks) {
  CHECK_GT(chunks, 0);
  const auto cost = [&](std::int32_t row) { return a.begin[row] + kRowCost * row; };
  std::vector<std::int32_t> first = {0};
  for (std::int32_t c = 1; c < chunks; ++c) {
    const std::size_t share = cost(a.rows) * c / chunks;
    std::int32_t row = first.back();
    while (row < a.rows && cost(row) < share) ++row;
    first.push_back(row);
  }
  first.push_back(a.rows);
  return first;
}

}  // namespace meander::nn
