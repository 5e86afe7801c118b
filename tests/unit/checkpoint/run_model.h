// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/generation.h"
#include "common/crc32c.h"
#include "common/partition.h"
#include "common/rng.h"

namespace meander::checkpoint {

struct StoredRecord {
  std::uint64_t step = 0;
  std::uint32_t count = 0;
  bool admitted = false;
  std::vector<float> values;
  bool operator==(const StoredRecord&) const = default;
};
using Contents = std::map<std::uint64_t, StoredRecord>;  // by key

inline Record record_of(std::uint64_t key, const StoredRecord& r) {
  return {key, r.step, r.count, r.admitted, r.values};
}

// A table as plain as can be: keys are touched, counted, admitted and expire; values are drawn.
struct TableModel {
  std::string name;
  std::uint32_t values = 0, admit_count = 1, keep_count = 0;
  std::uint64_t expire_steps = 0, step = 0;
  Contents contents;

  void push(Rng& rng, std::uint64_t keys_max) {
    ++step;
    for (std::uint64_t n = rng.below(keys_max); n > 0; --n) {
      const std::uint64_t key = rng.below(keys_max) * rng.below(2) * 0x9e3779b97f4a7c15ull +
                                rng.below(keys_max);  // small ones, 0, and any
      StoredRecord& record = contents[key];
      if (record.count > 0 && !is_there(record)) record = {};
      record.step = step;
      record.admitted = ++record.count >= admit_count;
      record.values.resize(record.admitted ? values : 0);
      for (float& v : record.values) v = rng.chance(0.5) ? 1 : static_cast<float>(rng.uniform());
    }
  }
  // After its last touch, `expire_steps` steps with that one: said in other words than the code.
  bool is_there(const StoredRecord& record) const {
    const bool spared = keep_count != 0 && record.count >= keep_count;
    return expire_steps == 0 || spared || step - record.step < expire_steps;
  }
  Contents present() const {
    Contents result;
    for (const auto& [key, record] : contents) {
      if (is_there(record)) result[key] = record;
    }
    return result;
  }
};

// A run of two tables that writes generations, full or deltas.
class RunModel {
 public:
  explicit RunModel(Storage& storage, std::string dir = "c")
      : storage_(storage), dir_(std::move(dir)) {
    tables.resize(2);
    tables[0].name = "item";
    tables[0].values = 3;
    tables[1].name = "dense";
    tables[1].values = 8;
  }

  std::string dir_of(std::uint64_t generation) const {
    return join_path(dir_, generation_name(generation));
  }
  void train(Rng& rng, std::uint64_t pushes, std::uint64_t keys_max) {
    for (; pushes > 0; --pushes, ++next_) {
      for (TableModel& table : tables) table.push(rng, keys_max);
    }
  }

  // Writes generation `number`; a delta on the last one that was written when `is_delta`.
  void write(std::uint64_t number, bool is_delta, std::uint32_t lanes) {
    const std::string dir = dir_of(number);
    ASSERT_TRUE(storage_.make_directories(dir).ok());
    manifest::Manifest manifest;
    manifest.set_generation(number);
    manifest.set_model("model");
    manifest.set_lanes(lanes);
    if (is_delta) manifest.set_base(last_);
    std::uint64_t digest = 0, whole_digest = 0;
    manifest::Manifest whole = add_streams_and_tables(manifest);
    for (std::uint32_t t = 0; t < tables.size(); ++t) {
      const Contents present = tables[t].present();
      for (const auto& [key, record] : present) {
        whole_digest += record_digest(t, record_of(key, record));
      }
      whole.mutable_tables(static_cast<int>(t))->set_rows(present.size());
      Contents written = present;
      if (is_delta) {
        std::erase_if(written, [&](const auto& r) { return r.second.step <= base_steps_[t]; });
      }
      manifest.mutable_tables(static_cast<int>(t))->set_rows(written.size());
      digest += write_files(dir, t, written, lanes, manifest);
    }
    add_metrics(dir, manifest);
    if (!is_delta) manifest.set_digest(final_digest(digest, manifest));
    ASSERT_TRUE(write_manifest(storage_, dir, manifest).ok());
    last_ = number;
    base_steps_.clear();
    for (const TableModel& table : tables) base_steps_.push_back(table.step);
    snapshots[number] = tables;
    digests[number] = final_digest(whole_digest, whole);
  }

  std::vector<TableModel> tables;
  std::map<std::uint64_t, std::vector<TableModel>> snapshots;  // by generation
  std::map<std::uint64_t, std::string> digests;                // as if each were full

 private:
  manifest::Manifest add_streams_and_tables(manifest::Manifest& manifest) const {
    for (const TableModel& from : tables) {
      manifest::Table& table = *manifest.add_tables();
      table.set_name(from.name);
      table.set_width(2);
      table.set_state_width(from.values - 2);
      table.set_step(from.step);
      table.set_optimizer("sgd");
      table.set_expire_steps(from.expire_steps);
      table.set_keep_count(from.keep_count);
    }
    manifest.add_streams()->set_next(next_);
    return manifest;
  }

  // The sum of the records' digests.
  std::uint64_t write_files(const std::string& dir, std::uint32_t t, const Contents& contents,
                            std::uint32_t lanes, manifest::Manifest& manifest) {
    std::uint64_t digest = 0;
    for (std::uint32_t lane = 0; lane < lanes; ++lane) {
      const RowsWriter::Cutting cutting{kPartitions * lane / lanes,
                                        kPartitions * (lane + 1) / lanes - 1, 1 + lane % 3};
      std::unique_ptr<RowsWriter> writer;
      for (const auto& [key, record] : contents) {
        const std::uint32_t partition = partition_of(key);
        if (partition < cutting.first_partition || partition > cutting.last_partition) continue;
        if (writer == nullptr) {
          const std::string path = dir + "/t" + std::to_string(t) + "-" + std::to_string(lane);
          writer = RowsWriter::create(storage_, path, t, tables[t].values, cutting).value();
        }
        digest += record_digest(t, record_of(key, record));
        EXPECT_TRUE(writer->add(record_of(key, record)).ok());
      }
      if (writer != nullptr) *manifest.add_files() = writer->finish().value();
    }
    return digest;
  }

  void add_metrics(const std::string& dir, manifest::Manifest& manifest) {
    const std::string sums = "sums of the run";
    EXPECT_TRUE(storage_.write_atomic(dir + "/metrics", sums.data(), sums.size()).ok());
    manifest::Extra& extra = *manifest.add_extras();
    extra.set_name("metrics");
    extra.set_bytes(sums.size());
    extra.set_crc32c(crc32c(sums.data(), sums.size()));
  }

  Storage& storage_;
  const std::string dir_;
  std::uint64_t last_ = 0, next_ = 0;
  std::vector<std::uint64_t> base_steps_;
};

// The records of a table, each of which must come once.
inline Result<Contents> contents_of(Storage& storage, const Chain& chain, std::uint32_t table,
                                    std::uint32_t first = 0, std::uint32_t last = kPartitions - 1) {
  Contents contents;
  RETURN_IF_ERROR(read_table(storage, chain, table, first, last, [&](const Record& record) {
    const bool is_new =
        contents
            .emplace(record.key, StoredRecord{record.step,
                                              record.count,
                                              record.admitted,
                                              {record.values.begin(), record.values.end()}})
            .second;
    EXPECT_TRUE(is_new) << record.key;
    return Status();
  }));
  return contents;
}

}  // namespace meander::checkpoint
