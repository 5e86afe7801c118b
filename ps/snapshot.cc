// SPDX-License-Identifier: Apache-2.0
#include "ps/snapshot.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <optional>
#include <thread>

#include "common/partition.h"
#include "ps/slab.h"

namespace meander::ps {
namespace {

// A block is open for each group, so these may take a 128th of the tables' memory.
constexpr std::size_t kGroupBytes = std::size_t{128} << 20;
constexpr std::uint32_t kGroupsMax = 64;

std::string file_name(std::size_t table, PartitionRange range, std::uint64_t run) {
  char name[64], of_run[24] = "";
  if (run != 0) std::snprintf(of_run, sizeof(of_run), "-%016" PRIx64, run);
  std::snprintf(name, sizeof(name), "t%zu-p%05u-%05u%s.rows", table, range.first, range.last,
                of_run);
  return name;
}

Status check_same_tables(const std::string& dir, const manifest::Manifest& manifest,
                         const Tables& tables) {
  if (manifest.tables_size() != static_cast<int>(tables.size())) {
    return invalid(dir + ": has " + std::to_string(manifest.tables_size()) +
                   " tables, this run has " + std::to_string(tables.size()));
  }
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const manifest::Table& stored = manifest.tables(static_cast<int>(t));
    if (stored.name() != tables[t]->name() || stored.width() != tables[t]->width() ||
        stored.state_width() != tables[t]->state_width()) {
      return invalid(dir + ": table " + stored.name() + " of " + std::to_string(stored.width()) +
                     " + " + std::to_string(stored.state_width()) + " floats is not this run's " +
                     tables[t]->name() + " of " + std::to_string(tables[t]->width()) + " + " +
                     std::to_string(tables[t]->state_width()));
    }
    if (!checkpoint::is_state_of(tables[t]->optimizer(), stored.optimizer())) {
      return invalid(dir + ": table " + stored.name() + " has the state of " + stored.optimizer() +
                     ", which is not that of this run's " +
                     checkpoint::optimizer_name(tables[t]->optimizer()));
    }
  }
  return {};
}

// Takes the pages of rows that are about to be restored, beside who restores them.
class PageTaker {
 public:
  explicit PageTaker(std::vector<std::span<std::byte>> memory)
      : thread_([memory = std::move(memory)](const std::stop_token& stop) {
          for (std::span<std::byte> part : memory) {
            while (!part.empty() && !stop.stop_requested()) {
              const std::size_t step = std::min(part.size(), kStep);
              make_resident(part.first(step));
              part = part.subspan(step);
            }
          }
        }) {}

 private:
  static constexpr std::size_t kStep = std::size_t{8} << 20;
  std::jthread thread_;
};

// What one generation holds. A delta's records take the place of older ones.
Status load_files(Storage& storage, const checkpoint::Link& link, PartitionRange range,
                  Tables& tables) {
  const bool is_delta = link.manifest.base() != 0;
  for (const manifest::File& file : link.manifest.files()) {
    if (file.last_partition() < range.first || file.first_partition() > range.last) continue;
    if (file.table() >= tables.size()) {
      return corrupt(link.dir + ": file " + file.name() + " is of a table that is not there");
    }
    Table& table = *tables[file.table()];
    // Of each file as many rows as of its share of the range.
    const double width = file.last_partition() - file.first_partition() + 1.0;
    const double shared = std::min(file.last_partition(), range.last) -
                          std::max(file.first_partition(), range.first) + 1.0;
    std::optional<PageTaker> pages;
    if (!is_delta) {
      pages.emplace(table.reserve(
          table.rows() +
          static_cast<std::uint64_t>(static_cast<double>(file.rows()) * shared / width)));
    }
    RETURN_IF_ERROR(checkpoint::read_rows(
        storage, join_path(link.dir, file.name()), file, range.first, range.last,
        checkpoint::RecordsVisitor(
            [&](const checkpoint::Records& records) { return table.restore(records, is_delta); })));
  }
  return {};
}

}  // namespace

PartitionRange lane_partitions(std::uint32_t lane, std::uint32_t lanes) {
  CHECK_LT(lane, lanes);
  // The first p with floor(p * lanes / kPartitions) == lane is the ceiling of its inverse.
  const auto first = [lanes](std::uint64_t l) {
    return static_cast<std::uint32_t>((l * kPartitions + lanes - 1) / lanes);
  };
  return {first(lane), first(lane + 1) - 1};
}

SnapshotWriter::SnapshotWriter(Storage& storage, std::string dir, PartitionRange range,
                               const Tables& tables, std::uint64_t run)
    : storage_(storage), dir_(std::move(dir)), range_(range), run_(run) {
  for (const auto& table : tables) {
    const std::uint64_t groups = 1 + table->bytes() / kGroupBytes;
    parts_.push_back({table->width() + table->state_width(),
                      static_cast<std::uint32_t>(std::min<std::uint64_t>(groups, kGroupsMax)),
                      nullptr});
  }
}

Status SnapshotWriter::write(std::uint32_t table, const PackedRecords& records) {
  if (records.empty()) return {};
  Part& part = parts_[table];
  if (part.writer == nullptr) {
    RETURN_IF_ERROR(storage_.make_directories(dir_));
    const checkpoint::RowsWriter::Cutting cutting{range_.first, range_.last, part.groups};
    ASSIGN_OR_RETURN(part.writer, checkpoint::RowsWriter::create(
                                      storage_, join_path(dir_, file_name(table, range_, run_)),
                                      table, part.values, cutting));
  }
  return records.visit([&](const checkpoint::Record& record) {
    digest_ += checkpoint::record_digest(table, record);
    return part.writer->add(record);
  });
}

Status SnapshotWriter::finish(wire::Saved& saved) {
  for (Part& part : parts_) {
    if (part.writer == nullptr) continue;
    ASSIGN_OR_RETURN(*saved.add_files(), part.writer->finish());
  }
  saved.set_digest(digest_);
  return {};
}

CutReader::CutReader(Tables& tables, std::span<const std::uint64_t> base_steps)
    : tables_(tables), is_open_(tables.size(), true) {
  CHECK(base_steps.empty() || base_steps.size() == tables.size());
  for (std::size_t t = 0; t < tables.size(); ++t) {
    tables[t]->begin_cut(base_steps.empty() ? std::nullopt : std::optional(base_steps[t]));
  }
}

// The table with the most copies, if they are many; else the first that is not done.
bool CutReader::next(Piece& piece) {
  const auto first = std::ranges::find(is_open_, true);
  if (first == is_open_.end()) return false;
  auto table = static_cast<std::size_t>(first - is_open_.begin());
  std::size_t most = kPieceBytes / 2;
  for (std::size_t t = 0; t < tables_.size(); ++t) {
    if (tables_[t]->cut_bytes() < most) continue;
    most = tables_[t]->cut_bytes();
    table = t;
  }
  piece.table = static_cast<std::uint32_t>(table);
  piece.records.clear();
  is_open_[table] = tables_[table]->take_cut(kPieceBytes, piece.records);
  return true;
}

std::size_t CutReader::bytes() const {
  std::size_t sum = 0;
  for (const auto& table : tables_) sum += table->cut_bytes();
  return sum;
}

Status save_tables(Storage& storage, const std::string& dir, PartitionRange range, Tables& tables,
                   wire::Saved& saved) {
  RETURN_IF_ERROR(storage.make_directories(dir));
  for (const auto& table : tables) saved.add_table_steps(table->step());
  SnapshotWriter writer(storage, dir, range, tables, 0);
  CutReader cut(tables, {});
  for (CutReader::Piece piece; cut.next(piece);) {
    RETURN_IF_ERROR(writer.write(piece.table, piece.records));
  }
  return writer.finish(saved);
}

Status load_tables(Storage& storage, const std::string& dir, PartitionRange range, Tables& tables,
                   std::vector<wire::StreamApplied>& streams) {
  ASSIGN_OR_RETURN(const checkpoint::Chain chain, checkpoint::open_chain(storage, dir));
  const manifest::Manifest& manifest = chain.back().manifest;
  for (std::size_t t = 0; t < tables.size(); ++t) {
    RETURN_IF_ERROR(check_same_tables(dir, manifest, tables));
    const std::uint64_t step = manifest.tables(static_cast<int>(t)).step();
    if (step > RowStore::kStepMax) return corrupt(dir + ": impossible step of a table");
    tables[t]->set_step(step);
  }
  for (const checkpoint::Link& link : chain) {
    RETURN_IF_ERROR(load_files(storage, link, range, tables));
  }
  for (const manifest::Stream& stream : manifest.streams()) {
    wire::StreamApplied& position = streams.emplace_back();
    position.set_stream(stream.stream());
    position.set_next(stream.next());
    position.set_ended(stream.ended());
  }
  return {};
}

}  // namespace meander::ps
