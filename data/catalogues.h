// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "data/batch.h"
#include "data/key_set.h"
#include "data/prepared_log.h"
#include "data/stream.h"

namespace meander::data {

// The catalogues of a stream's batches. Holds 8 bytes for each key that is listed or may be drawn.
class Catalogues {
 public:
  Catalogues(const PreparedLog& log, const StreamSpec& spec);

  // Before any other key of a batch: adds the catalogues' keys to `tables` (empty), and says which
  // rows they are. A pure function of `seed`, the batch's own.
  void add(std::uint64_t seed, std::vector<KeySet>& tables, std::vector<Catalogue>& out) const;

 private:
  void draw(std::uint64_t seed, KeySet& table, Catalogue& out) const;

  std::vector<CatalogueKind> kinds_;              // by table
  std::vector<std::vector<std::uint64_t>> keys_;  // by table, of those that are listed
  // Of drawn items: what of the mass lies below item i of the log (one more than items), and how
  // many are drawn for a batch.
  std::vector<double> mass_;
  std::vector<std::uint64_t> items_;
  std::uint32_t drawn_ = 0;
};

}  // namespace meander::data
