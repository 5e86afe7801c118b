// SPDX-License-Identifier: Apache-2.0
#include "data/catalogues.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "common/rng.h"

namespace meander::data {
namespace {

constexpr std::uint64_t kDrawSalt = 0x636174616c6f6775ull;

SlotSource source_of(const StreamSpec& spec, std::size_t table) {
  const auto slot = std::ranges::find(spec.slots, table, &SlotSpec::table);
  CHECK(slot != spec.slots.end());
  return slot->source;
}

std::vector<std::uint64_t> keys_of(const PreparedLog& log, SlotSource source) {
  std::vector<std::uint64_t> keys;
  if (source == SlotSource::kItem) {
    for (const ItemEntry& item : log.items()) keys.push_back(item.item);
  } else {
    for (const Shard& shard : log.shards()) {
      for (const UserEntry& user : shard.users) keys.push_back(user.id);
    }
    std::ranges::sort(keys);
  }
  return keys;
}

}  // namespace

Catalogues::Catalogues(const PreparedLog& log, const StreamSpec& spec)
    : kinds_(spec.catalogues), keys_(spec.catalogues.size()), drawn_(spec.drawn) {
  for (std::size_t table = 0; table < kinds_.size(); ++table) {
    if (kinds_[table] == CatalogueKind::kAll) keys_[table] = keys_of(log, source_of(spec, table));
    if (kinds_[table] != CatalogueKind::kDrawn || !items_.empty()) continue;
    items_ = keys_of(log, SlotSource::kItem);
    mass_.push_back(0);
    for (const ItemEntry& item : log.items()) {
      mass_.push_back(mass_.back() + std::pow(static_cast<double>(item.count), spec.drawn_power));
    }
  }
}

void Catalogues::add(std::uint64_t seed, std::vector<KeySet>& tables,
                     std::vector<Catalogue>& out) const {
  out.resize(kinds_.size());
  for (std::size_t table = 0; table < kinds_.size(); ++table) {
    Catalogue& catalogue = out[table];
    catalogue.rows.clear();
    catalogue.log_expected.clear();
    for (const std::uint64_t key : keys_[table]) {
      catalogue.rows.push_back(tables[table].index_of(key));
    }
    if (kinds_[table] == CatalogueKind::kDrawn) draw(seed, tables[table], catalogue);
  }
}

// With repeats, each of which counts once: an item of share p is among n draws with probability
// 1 - (1 - p)^n.
void Catalogues::draw(std::uint64_t seed, KeySet& table, Catalogue& out) const {
  for (std::uint32_t i = 0; i < drawn_; ++i) {
    const double at = unit_double(hash64(seed ^ kDrawSalt, i)) * mass_.back();
    const auto above = std::upper_bound(mass_.begin(), mass_.end() - 1, at);
    const auto item = static_cast<std::size_t>(above - mass_.begin()) - 1;
    const std::size_t before = table.keys().size();
    const std::uint32_t row = table.index_of(items_[item]);
    if (row < before) continue;
    const double share = (mass_[item + 1] - mass_[item]) / mass_.back();
    out.rows.push_back(row);
    out.log_expected.push_back(
        static_cast<float>(std::log(-std::expm1(drawn_ * std::log1p(-share)))));
  }
}

}  // namespace meander::data
