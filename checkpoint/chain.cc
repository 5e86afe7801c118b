// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/chain.h"

#include <algorithm>

#include "checkpoint/key_set.h"
#include "checkpoint/selection.h"
#include "common/partition.h"

namespace meander::checkpoint {
namespace {

// The directory of another generation beside this one.
std::string beside(const std::string& dir, std::uint64_t generation) {
  const std::string name = generation_name(generation);
  const std::size_t end = dir.find_last_not_of('/');
  if (end == std::string::npos) return join_path(dir, name);
  const std::size_t slash = dir.rfind('/', end);
  const std::size_t begin = slash == std::string::npos ? 0 : slash + 1;
  const std::string last = dir.substr(begin, end + 1 - begin);
  if (last == "." || last == "..") return join_path(join_path(dir, ".."), name);
  return dir.substr(0, begin) + name;
}

bool are_alike(const manifest::Table& a, const manifest::Table& b) {
  return a.name() == b.name() && a.width() == b.width() && a.state_width() == b.state_width() &&
         a.optimizer() == b.optimizer() && a.expire_steps() == b.expire_steps() &&
         a.keep_count() == b.keep_count();
}

// The link that `link` stands on.
Result<Link> open_base(Storage& storage, const Link& link) {
  const std::uint64_t base = link.manifest.base();
  Link below;
  below.dir = beside(link.dir, base);
  const std::string what = link.dir + ": a delta on " + below.dir;
  if (base >= link.manifest.generation()) return corrupt(what + ", which is not older");
  auto manifest = read_manifest(storage, below.dir);
  if (!manifest.ok()) {
    if (manifest.status().code() != Code::kNotFound) return std::move(manifest).status();
    return corrupt(what + ", which is missing: put it back, or choose another generation");
  }
  below.manifest = std::move(manifest).value();
  if (below.manifest.generation() != base) {
    return corrupt(what + ", which says that it is generation " +
                   std::to_string(below.manifest.generation()));
  }
  if (!may_stand_on(link.manifest, below.manifest)) {
    return corrupt(what + ", which is of another model or has other tables");
  }
  return below;
}

}  // namespace

bool may_stand_on(const manifest::Manifest& delta, const manifest::Manifest& base) {
  return delta.model() == base.model() &&
         std::ranges::equal(delta.tables(), base.tables(), are_alike);
}

Status follow_links(Storage& storage, const std::string& dir, Chain& newest_first) {
  Link link;
  link.dir = dir;
  ASSIGN_OR_RETURN(link.manifest, read_manifest(storage, dir));
  newest_first.push_back(std::move(link));
  while (newest_first.back().manifest.base() != 0) {
    ASSIGN_OR_RETURN(Link below, open_base(storage, newest_first.back()));
    newest_first.push_back(std::move(below));
  }
  return {};
}

Result<Chain> open_chain(Storage& storage, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string dir, resolve_generation(storage, path));
  Chain chain;
  RETURN_IF_ERROR(follow_links(storage, dir, chain));
  std::ranges::reverse(chain);
  return chain;
}

// The newest version of a key is the one that counts, whatever older ones say: so the links are
// read from the newest on, and of each only the keys that no newer one has.
Status read_table(Storage& storage, const Chain& chain, std::uint32_t table,
                  std::uint32_t first_partition, std::uint32_t last_partition,
                  const RecordsVisitor& visit) {
  CHECK(!chain.empty());
  const manifest::Manifest& last = chain.back().manifest;
  CHECK_LT(table, static_cast<std::uint32_t>(last.tables_size()));
  const manifest::Table& there = last.tables(static_cast<int>(table));
  KeySet seen;
  Selection selection;
  for (auto link = chain.rbegin(); link != chain.rend(); ++link) {
    const bool is_newest = link == chain.rbegin(), is_full = link + 1 == chain.rend();
    for (const manifest::File& file : link->manifest.files()) {
      if (file.table() != table || file.first_partition() > last_partition ||
          file.last_partition() < first_partition) {
        continue;
      }
      const std::string path = join_path(link->dir, file.name());
      const auto visit_wanted = [&](const Records& records) -> Status {
        if (records.width != there.width() + there.state_width()) {
          return corrupt(path + ": rows of " + std::to_string(records.width) +
                         " floats in a table of " + std::to_string(there.width()) + " + " +
                         std::to_string(there.state_width()));
        }
        const Records wanted = selection.select(records, [&](std::size_t i) {
          const bool is_new =
              is_full ? is_newest || !seen.contains(records.keys[i]) : seen.insert(records.keys[i]);
          return is_new && is_present(there.expire_steps(), there.keep_count(), records.steps[i],
                                      records.counts[i], there.step());
        });
        return wanted.size() == 0 ? Status() : visit(wanted);
      };
      RETURN_IF_ERROR(read_rows(storage, path, file, first_partition, last_partition,
                                RecordsVisitor(visit_wanted)));
    }
  }
  return {};
}

Status read_table(Storage& storage, const Chain& chain, std::uint32_t table,
                  std::uint32_t first_partition, std::uint32_t last_partition,
                  const RecordVisitor& visit) {
  return read_table(
      storage, chain, table, first_partition, last_partition,
      RecordsVisitor([&](const Records& records) { return visit_each(records, visit); }));
}

Result<std::string> read_digest(Storage& storage, const Chain& chain) {
  CHECK(!chain.empty());
  manifest::Manifest manifest = chain.back().manifest;
  if (manifest.base() == 0) return manifest.digest();
  std::uint64_t sum = 0;
  for (int t = 0; t < manifest.tables_size(); ++t) {
    std::uint64_t rows = 0;
    RETURN_IF_ERROR(read_table(storage, chain, t, 0, kPartitions - 1,
                               RecordsVisitor([&](const Records& records) {
                                 sum += records_digest(t, records);
                                 rows += records.size();
                                 return Status();
                               })));
    manifest.mutable_tables(t)->set_rows(rows);
  }
  return final_digest(sum, manifest);
}

}  // namespace meander::checkpoint
