// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/generation.h"
#include "common/status.h"
#include "common/storage.h"
#include "proto/wire.pb.h"

namespace meander::artefact {

// The rows of one table for serving, in memory: row i, `width` floats, belongs to keys[i].
struct TableRows {
  std::string name;
  std::uint32_t width = 0;
  std::vector<std::int64_t> keys;  // rising; a key's 64 bits taken as signed
  std::vector<float> rows;         // (keys, width)
  std::uint64_t stored = 0;        // keys that the generation has a row of

  // keys.size() when there is none.
  std::size_t index_of(std::uint64_t key) const;
};

// A table of a generation, the last of a chain: all keys it stores, and those of `known` at their
// initial rows where it stores none (nobody can compute the initial row of an unknown key inside an
// ONNX graph, so what may be asked for must be listed). `table` counts as the manifest does; `spec`
// is how the job makes its rows. kInvalid: the generation's table is another; kCorrupt, kNotFound:
// its files.
Result<TableRows> load_table(Storage& storage, const checkpoint::Chain& chain, std::uint32_t table,
                             const wire::TableSpec& spec, std::vector<std::uint64_t> known);

// The dense vector of `floats` values, which lies in a table's rows as blocks: row b has the values
// from b * width on. kCorrupt: a block is missing.
Result<std::vector<float>> load_dense(Storage& storage, const checkpoint::Chain& chain,
                                      std::uint32_t table, std::size_t floats);

}  // namespace meander::artefact
