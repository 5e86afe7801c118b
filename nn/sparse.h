// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "nn/simd/kernels.h"

namespace meander::nn {

// A sparse matrix that never changes: which nodes are neighbours, or which words a node has. Rows
// of entries, those of a row by rising column (CSR). Fewer than 2^32 entries.
struct SparseMatrix {
  std::int32_t rows = 0, cols = 0;
  std::vector<std::uint32_t> begin;   // (rows + 1) row r has the entries begin[r] ... begin[r + 1]
  std::vector<std::uint32_t> column;  // (entries)
  std::vector<float> value;           // (entries)

  std::size_t entries() const { return column.size(); }
  SparseRows view() const { return {begin.data(), column.data(), value.data()}; }
};

struct SparseEntry {
  std::uint32_t row = 0, column = 0;
  float value = 1;
};

// The entries in any order; those of one place are added up.
SparseMatrix sparse_matrix(std::int32_t rows, std::int32_t cols, std::span<const SparseEntry> all);
// `place`, if given: for each entry of the result its place among the entries of `a`.
SparseMatrix transposed(const SparseMatrix& a, std::vector<std::uint32_t>* place = nullptr);
// D_r^-1/2 A D_c^-1/2, where D are the sums of rows and of columns, all entries being positive: of
// the graph of users and items, or of a symmetric square matrix, the symmetric normalisation.
// Source: Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks",
// ICLR 2017 (arXiv:1609.02907).
SparseMatrix symmetrically_normalised(SparseMatrix a);
// Each row divided by its sum.
SparseMatrix row_normalised(SparseMatrix a);

// Where `chunks` runs of rows of about equal work begin, and the end: depends on the matrix alone.
std::vector<std::int32_t> balanced_rows(const SparseMatrix& a, std::int32_t chunks);

}  // namespace meander::nn
