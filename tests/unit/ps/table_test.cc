// SPDX-License-Identifier: Apache-2.0
#include "ps/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <numeric>
#include <set>

#include "common/initial_row.h"
#include "common/partition.h"
#include "common/rng.h"
#include "common/storage.h"
#include "ps/snapshot.h"

namespace meander::ps {
namespace {

wire::TableSpec counting_spec(std::uint32_t width, std::uint32_t admit_count) {
  wire::TableSpec spec;
  spec.set_name("item");
  spec.set_width(width);
  spec.set_seed(3);
  spec.set_init_range(0.5f);
  spec.set_admit_count(admit_count);
  spec.mutable_optimizer()->set_kind(wire::Optimizer::SGD);
  spec.mutable_optimizer()->set_rate(1);
  return spec;
}

// Copies of records, by key.
struct Records {
  PackedRecords memory;
  std::vector<checkpoint::Record> sorted;
  auto begin() const { return sorted.begin(); }
  auto end() const { return sorted.end(); }
  std::size_t size() const { return sorted.size(); }
  const checkpoint::Record& operator[](std::size_t i) const { return sorted[i]; }

  void sort() {
    sorted.clear();
    const Status status = memory.visit([&](const checkpoint::Record& record) {
      sorted.push_back(record);
      return Status();
    });
    EXPECT_TRUE(status.ok());
    std::ranges::sort(sorted, {}, &checkpoint::Record::key);
  }
  friend bool operator==(const Records& a, const Records& b) {
    return std::ranges::equal(a.sorted, b.sorted, [](const auto& x, const auto& y) {
      return x.key == y.key && x.step == y.step && x.count == y.count && x.admitted == y.admitted &&
             std::ranges::equal(x.values, y.values);
    });
  }
};

Records records_of(Table& table, std::optional<std::uint64_t> after = {}) {
  Records records;
  table.begin_cut(after);
  while (table.take_cut(records.memory.bytes() + 1000, records.memory)) {
  }
  records.sort();
  return records;
}

// A table that anybody understands: SGD with rate 1.
struct Model {
  struct Row {
    std::vector<float> weights;
    std::uint64_t step = 0;
    std::uint32_t count = 0;
  };
  explicit Model(const wire::TableSpec& s) : spec(s) {}

  std::vector<float> pull(std::uint64_t key) const {
    const auto it = rows.find(key);
    if (it != rows.end()) return it->second.weights;
    std::vector<float> row(spec.width());
    initial_row(spec.seed(), 0, key, spec.init_range(), row);
    return row;
  }
  void push(std::uint64_t key, const float* gradient) {
    const std::uint32_t count = ++counts[key];
    if (count < spec.admit_count()) return;
    Row row{pull(key), step, count};
    for (std::size_t i = 0; i < row.weights.size(); ++i) row.weights[i] -= gradient[i];
    rows[key] = row;
  }

  wire::TableSpec spec;
  std::uint64_t step = 0;
  std::map<std::uint64_t, std::uint32_t> counts;
  std::map<std::uint64_t, Row> rows;
};

struct Request {
  std::vector<std::uint64_t> keys;
  std::vector<float> gradients;
};

Request draw(Rng& rng, std::uint32_t width, std::uint64_t key_count, bool with_repeats) {
  Request request;
  std::set<std::uint64_t> seen;
  const std::size_t n = rng.below(std::min<std::uint64_t>(200, key_count + 1));
  while (request.keys.size() < n) {
    const std::uint64_t key = rng.below(key_count) - key_count / 2;  // around 0 and ~0
    if (seen.insert(key).second || with_repeats) request.keys.push_back(key);
  }
  request.gradients.resize(n * width);
  for (float& g : request.gradients) g = static_cast<float>(rng.uniform());
  return request;
}

void expect_equal_rows(const Table& table, const Model& model, const Request& request) {
  const std::size_t width = model.spec.width();
  std::vector<float> out(request.keys.size() * width);
  table.pull(request.keys, out.data());
  for (std::size_t k = 0; k < request.keys.size(); ++k) {
    const std::vector<float> expected = model.pull(request.keys[k]);
    ASSERT_EQ(std::memcmp(out.data() + k * width, expected.data(), width * sizeof(float)), 0)
        << "key " << request.keys[k];
  }
}

class TableProperty : public testing::TestWithParam<std::uint64_t> {};

TEST_P(TableProperty, PushThenPullAgreesWithAModel) {
  const std::uint64_t seed = GetParam();
  Rng rng(seed);
  const auto width = static_cast<std::uint32_t>(1 + rng.below(40));
  const auto admit = static_cast<std::uint32_t>(rng.below(4));
  const bool with_repeats = rng.chance(0.3);
  const bool with_slots = rng.chance(0.5);
  SCOPED_TRACE(testing::Message() << "seed " << seed << " width " << width << " admit " << admit);
  const wire::TableSpec spec = counting_spec(width, admit);
  Table table(0, spec);
  Model model(spec);
  const std::uint64_t key_count = 1 + rng.below(8'000);
  for (int t = 0; t < 80; ++t) {
    const Request request = draw(rng, width, key_count, with_repeats && key_count > 300);
    expect_equal_rows(table, model, request);
    std::vector<float> out(request.gradients.size());
    std::vector<std::uint32_t> slots;
    table.pull(request.keys, out.data(), &slots);
    if (rng.chance(0.2)) {  // somebody else pushes in between: the slots are only hints
      const Request other = draw(rng, width, key_count, false);
      table.push(other.keys, other.gradients.data());
      ++model.step;
      for (std::size_t k = 0; k < other.keys.size(); ++k) {
        model.push(other.keys[k], other.gradients.data() + k * width);
      }
    }
    if (!with_slots) slots.clear();
    table.push(request.keys, request.gradients.data(), slots);
    ++model.step;
    for (std::size_t k = 0; k < request.keys.size(); ++k) {
      model.push(request.keys[k], request.gradients.data() + k * width);
    }
  }
  // What is stored: every row with step and count, every counter.
  EXPECT_EQ(table.step(), model.step);
  EXPECT_EQ(table.rows(), model.rows.size());
  EXPECT_EQ(table.rows() + table.counted(), model.counts.size());
  const Records records = records_of(table);
  ASSERT_EQ(records.size(), model.counts.size());
  for (const checkpoint::Record& record : records) {
    ASSERT_EQ(record.count, model.counts.at(record.key));
    ASSERT_EQ(record.admitted, model.rows.contains(record.key));
    ASSERT_EQ(record.values.size(), record.admitted ? width : 0);
    if (!record.admitted) continue;
    ASSERT_EQ(record.step, model.rows.at(record.key).step);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, TableProperty, testing::Range<std::uint64_t>(1, 17));

TEST(Table, GrowsByManySegmentsWithoutLosingARow) {
  const wire::TableSpec spec = counting_spec(2, 0);
  Table table(0, spec);
  std::vector<std::uint64_t> keys(1'000);
  std::vector<float> gradients(2'000);
  for (std::uint64_t base = 0; base < 100'000; base += 1'000) {
    for (std::size_t i = 0; i < keys.size(); ++i) {
      keys[i] = (base + i) * 3;
      gradients[2 * i] = static_cast<float>(base + i);
      gradients[2 * i + 1] = 0;
    }
    table.push(keys, gradients.data());
  }
  ASSERT_EQ(table.rows(), 100'000u);
  std::vector<float> row(2), initial(2);
  for (std::uint64_t i = 0; i < 100'000; ++i) {
    const std::uint64_t key = i * 3;
    table.pull({&key, 1}, row.data());
    initial_row(spec.seed(), 0, key, spec.init_range(), initial);
    ASSERT_EQ(row[0], initial[0] - static_cast<float>(i));
    ASSERT_EQ(row[1], initial[1]);
  }
}

TEST(Table, AbsentRowsAreNotStoredAndDependOnTableAndKeyAlone) {
  Table table(4, counting_spec(8, 0));
  const std::uint64_t keys[] = {5, 6, 5};
  std::vector<float> rows(24), expected(8);
  table.pull(keys, rows.data());
  EXPECT_EQ(table.rows(), 0u);
  initial_row(3, 4, 5, 0.5f, expected);
  EXPECT_EQ(std::memcmp(rows.data(), expected.data(), 32), 0);
  EXPECT_EQ(std::memcmp(rows.data() + 16, expected.data(), 32), 0);
  EXPECT_NE(std::memcmp(rows.data() + 8, expected.data(), 32), 0);
}

// A request on a narrow wire is one of rounded values, also for absent keys, keys that are not
// admitted, clipped gradients, repeats, and groups that are not full.
TEST(Table, NarrowRequestIsAWideOneOfRoundedValues) {
  for (const wire::Precision precision : {wire::F32, wire::BF16, wire::FP16}) {
    wire::TableSpec spec = counting_spec(7, 2);
    spec.set_clip_row(1.5f);
    Table narrow(0, spec), wide(0, spec);
    Rng rng(5);
    for (int request = 0; request < 30; ++request) {
      std::vector<std::uint64_t> keys(rng.below(50));
      for (auto& key : keys) key = rng.below(60);
      std::vector<float> values(keys.size() * 7);
      for (float& value : values) value = static_cast<float>(rng.uniform() * 2 - 1);
      std::vector<std::byte> bytes(values.size() * bytes_of(precision)), pulled(bytes.size());
      encode(values.data(), values.size(), precision, bytes.data());
      decode(bytes.data(), values.size(), precision, values.data());
      std::vector<std::uint32_t> slots;
      narrow.pull(keys, precision, pulled.data(), &slots);
      narrow.push(keys, precision, bytes.data(), slots);
      std::vector<float> rows(values.size());
      wide.pull(keys, rows.data());
      encode(rows.data(), rows.size(), precision, bytes.data());
      EXPECT_EQ(pulled, bytes);
      wide.push(keys, values.data());
    }
    const auto a = records_of(narrow), b = records_of(wide);
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].key, b[i].key);
      EXPECT_TRUE(std::equal(a[i].values.begin(), a[i].values.end(), b[i].values.begin(),
                             b[i].values.end()));
    }
  }
}

TEST(Table, EmptyPushMovesTheStepOnly) {
  Table table(0, counting_spec(8, 0));
  table.push({}, nullptr);
  EXPECT_EQ(table.step(), 1u);
  EXPECT_EQ(table.rows(), 0u);
}

TEST(Table, AssignedRowsAreFresh) {
  wire::TableSpec spec = counting_spec(2, 0);
  spec.mutable_optimizer()->set_kind(wire::Optimizer::ADAGRAD);
  spec.mutable_optimizer()->set_initial_accumulator(0.25f);
  Table table(0, spec);
  const std::uint64_t keys[] = {1, 2};
  const float weights[] = {1, 2, 3, 4};
  table.assign(keys, weights);
  const auto records = records_of(table);
  ASSERT_EQ(records.size(), 2u);
  for (const checkpoint::Record& record : records) {
    EXPECT_EQ(record.step, 0u);
    EXPECT_EQ(record.count, 0u);
    EXPECT_THAT(record.values.subspan(2), testing::ElementsAre(0.25f, 0.25f));
  }
}

TEST(Table, RestoredTableGoesOnAsIfNothingHadHappened) {
  const wire::TableSpec spec = counting_spec(3, 3);
  Table table(0, spec), copy(0, spec);
  Rng rng(5);
  const auto push_both = [&](bool both) {
    const Request request = draw(rng, 3, 500, false);
    table.push(request.keys, request.gradients.data());
    if (both) copy.push(request.keys, request.gradients.data());
  };
  for (int t = 0; t < 10; ++t) push_both(false);
  for (const checkpoint::Record& record : records_of(table)) ASSERT_TRUE(copy.restore(record).ok());
  copy.set_step(table.step());
  for (int t = 0; t < 10; ++t) push_both(true);
  const auto a = records_of(table), b = records_of(copy);
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(checkpoint::record_digest(0, a[i]), checkpoint::record_digest(0, b[i]));
  }
}

TEST(Table, RefusesRecordsThatDoNotFit) {
  Table table(0, counting_spec(3, 0));
  const float values[] = {1, 2, 3};
  checkpoint::Record record;
  record.key = 9;
  record.values = std::span(values, 2);
  EXPECT_EQ(table.restore(record).code(), Code::kCorrupt);
  record.values = values;
  EXPECT_TRUE(table.restore(record).ok());
  EXPECT_EQ(table.restore(record).code(), Code::kCorrupt);  // twice
}

TEST(Table, RefusesSpecsThatNoTableCanHave) {
  wire::TableSpec spec = counting_spec(0, 0);
  EXPECT_EQ(check_table(spec).code(), Code::kInvalid);
  spec.set_width(kWidthMax + 1);
  EXPECT_EQ(check_table(spec).code(), Code::kInvalid);
  spec.set_width(8);
  EXPECT_TRUE(check_table(spec).ok());
  spec.mutable_optimizer()->set_beta1(1);
  EXPECT_EQ(check_table(spec).code(), Code::kInvalid);
}

// What expiry means, without sweeping: a record whose last touch is too long ago is not there.
struct ExpiryModel {
  struct Record {
    float weight = 0;
    std::uint64_t step = 0;
    std::uint32_t count = 0;
    bool admitted = false;
  };
  wire::TableSpec spec;
  std::map<std::uint64_t, Record> records;
  std::uint64_t step = 0;

  bool is_present(std::uint64_t key) const {
    const auto it = records.find(key);
    if (it == records.end()) return false;
    if (spec.keep_count() > 0 && it->second.count >= spec.keep_count()) return true;
    return step - it->second.step < spec.expire_steps();
  }
  void push(std::span<const std::uint64_t> keys) {
    for (const std::uint64_t key : keys) {
      if (!is_present(key)) records.erase(key);
    }
    ++step;
    for (const std::uint64_t key : keys) {
      Record& record = records[key];
      record.step = step;
      if (++record.count < spec.admit_count()) continue;
      record.admitted = true;
      record.weight -= 1;
    }
  }
};

wire::TableSpec expiring_spec(std::uint32_t admit_count, std::uint64_t expire_steps,
                              std::uint32_t keep_count) {
  wire::TableSpec spec = counting_spec(1, admit_count);
  spec.set_init_range(0);
  spec.set_expire_steps(expire_steps);
  spec.set_keep_count(keep_count);
  return spec;
}

void expect_same(Table& table, const ExpiryModel& model, std::uint64_t keys) {
  std::map<std::uint64_t, checkpoint::Record> visited;
  const Records records = records_of(table);
  for (const auto& record : records) visited[record.key] = record;
  for (std::uint64_t key = 0; key < keys; ++key) {
    const bool is_present = model.is_present(key);
    float weight = 1;
    table.pull({&key, 1}, &weight);
    ASSERT_EQ(weight, is_present ? model.records.at(key).weight : 0) << key;
    ASSERT_EQ(visited.count(key), is_present ? 1u : 0u) << key;
    if (!is_present) continue;
    ASSERT_EQ(visited[key].step, model.records.at(key).step);
    ASSERT_EQ(visited[key].count, model.records.at(key).count);
    ASSERT_EQ(visited[key].admitted, model.records.at(key).admitted);
  }
}

TEST(TableExpiry, AgreesWithAModelThatNeverSweeps) {
  constexpr std::uint64_t kKeys = 60;
  for (const std::uint32_t admit_count : {1u, 2u, 3u}) {
    for (const std::uint32_t keep_count : {0u, 4u}) {
      const wire::TableSpec spec = expiring_spec(admit_count, 5, keep_count);
      Table table(0, spec);
      ExpiryModel model{spec, {}, 0};
      Rng rng(admit_count * 10 + keep_count);
      std::vector<std::uint32_t> hints;
      std::vector<float> pulled;
      for (int step = 0; step < 300; ++step) {
        std::vector<std::uint64_t> keys(rng.below(25));  // with repeats; at times none
        for (std::uint64_t& key : keys) key = rng.below(kKeys);
        const std::vector<float> gradients(keys.size(), 1.0f);
        pulled.resize(keys.size());
        table.pull(keys, pulled.data(), &hints);
        table.push(keys, gradients.data(),
                   step % 2 == 0 ? std::span<const std::uint32_t>() : hints);
        model.push(keys);
        ASSERT_NO_FATAL_FAILURE(expect_same(table, model, kKeys)) << "step " << step;
      }
    }
  }
}

TEST(TableExpiry, IsTheSameForAnyNumberOfLanes) {
  const wire::TableSpec spec = expiring_spec(2, 4, 6);
  Table whole(0, spec);
  std::vector<std::unique_ptr<Table>> lanes;
  for (int i = 0; i < 3; ++i) lanes.push_back(std::make_unique<Table>(0, spec));
  Rng rng(5);
  for (int step = 0; step < 200; ++step) {
    std::vector<std::uint64_t> keys(rng.below(20));
    for (std::uint64_t& key : keys) key = rng.below(80);
    const std::vector<float> gradients(keys.size(), 1.0f);
    whole.push(keys, gradients.data());
    for (std::uint64_t lane = 0; lane < 3; ++lane) {
      std::vector<std::uint64_t> own;
      for (const std::uint64_t key : keys) {
        if (partition_of(key) % 3 == lane) own.push_back(key);
      }
      lanes[lane]->push(own, gradients.data());
    }
    std::uint64_t expected = 0, digest = 0;
    for (const auto& record : records_of(whole)) expected += checkpoint::record_digest(0, record);
    for (const auto& lane : lanes) {
      for (const auto& record : records_of(*lane)) digest += checkpoint::record_digest(0, record);
    }
    ASSERT_EQ(digest, expected) << "step " << step;
  }
}

TEST(TableExpiry, SweepKeepsMemoryBoundedWhenEveryKeyIsNew) {
  constexpr std::uint64_t kKeysOfPush = 100, kExpire = 20;
  Table table(0, expiring_spec(1, kExpire, 0));
  const std::vector<float> gradients(kKeysOfPush, 1.0f);
  std::uint64_t next = 0;
  for (int step = 0; step < 500; ++step) {
    std::vector<std::uint64_t> keys(kKeysOfPush);
    for (std::uint64_t& key : keys) key = next++;
    table.push(keys, gradients.data());
    ASSERT_LE(table.rows(), 2 * kKeysOfPush * kExpire);
  }
  for (int step = 0; step < 1000; ++step) table.push({}, nullptr);
  EXPECT_EQ(table.rows(), 0u);
}

TEST(TableExpiry, RestoredTableGoesOnAsIfNothingHadHappened) {
  const wire::TableSpec spec = expiring_spec(1, 3, 0);
  Table table(0, spec);
  const std::uint64_t keys[] = {1, 2};
  const float gradients[] = {1, 1};
  table.push(keys, gradients);
  table.push({keys, 1}, gradients);
  table.push({}, nullptr);
  Table restored(0, spec);
  restored.set_step(table.step());
  for (const auto& record : records_of(table)) ASSERT_TRUE(restored.restore(record).ok());
  for (Table* t : {&table, &restored}) {
    float weights[2];
    t->push({}, nullptr);  // step 4: the second key was touched 3 steps ago, the first 2
    t->pull(keys, weights);
    EXPECT_EQ(weights[0], -2);
    EXPECT_EQ(weights[1], 0);
  }
}

// A table with everything: rows and counters, expiry, and rows that come back.
wire::TableSpec busy_spec(std::uint64_t seed) {
  wire::TableSpec spec = counting_spec(3, 2);
  spec.mutable_optimizer()->set_kind(wire::Optimizer::ADAGRAD);
  if (seed % 2 == 0) spec.set_expire_steps(6);
  if (seed % 4 == 0) spec.set_keep_count(5);
  return spec;
}

void push_at_random(Rng& rng, std::size_t keys, Table& table) {
  std::vector<std::uint64_t> chosen(rng.below(40));
  for (std::uint64_t& key : chosen) key = mix64(rng.below(keys));
  std::vector<float> gradients(chosen.size() * table.width());
  for (float& g : gradients) g = static_cast<float>(rng.uniform());
  table.push(chosen, gradients.data());
}

TEST(TableCut, HandsOutTheRecordsOfItsMomentWhateverIsPushedMeanwhile) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    Rng rng(seed);
    const std::size_t keys = 20 + rng.below(300);
    Table table(0, busy_spec(seed));
    for (std::uint64_t n = rng.below(60); n > 0; --n) push_at_random(rng, keys, table);
    std::optional<std::uint64_t> after;
    if (rng.chance(0.5)) {
      after = table.step();
      for (std::uint64_t n = rng.below(10); n > 0; --n) push_at_random(rng, keys, table);
    }
    const Records expected = records_of(table, after);
    Records taken;
    table.begin_cut(after);
    while (table.take_cut(taken.memory.bytes() + 1 + rng.below(300), taken.memory)) {
      for (std::uint64_t n = rng.below(4); n > 0; --n) push_at_random(rng, keys, table);
    }
    taken.sort();
    ASSERT_EQ(taken, expected) << "seed " << seed;
    EXPECT_EQ(table.cut_bytes(), 0u);
  }
}

TEST(TableCut, ChainOfDeltasRestoresTheSameTable) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    Rng rng(seed);
    const std::size_t keys = 20 + rng.below(100);
    Table table(0, busy_spec(seed));
    std::vector<Records> chain;
    std::optional<std::uint64_t> after;
    for (std::uint64_t cuts = 1 + rng.below(5); cuts > 0; --cuts) {
      for (std::uint64_t n = rng.below(12); n > 0; --n) push_at_random(rng, keys, table);
      chain.push_back(records_of(table, after));
      after = table.step();
    }
    Table restored(0, busy_spec(seed));
    restored.set_step(table.step());
    for (std::size_t i = 0; i < chain.size(); ++i) {
      for (const auto& record : chain[i]) ASSERT_TRUE(restored.restore(record, i > 0).ok());
    }
    ASSERT_EQ(records_of(restored), records_of(table)) << "seed " << seed;
    Rng again(seed + 1000);
    Rng same = again;
    for (int n = 0; n < 10; ++n) {
      push_at_random(again, keys, table);
      push_at_random(same, keys, restored);
    }
    ASSERT_EQ(records_of(restored), records_of(table)) << "goes on otherwise, seed " << seed;
  }
}

TEST(TableCut, DeltaHoldsOnlyWhatWasTouched) {
  Table table(0, counting_spec(4, 0));
  std::vector<std::uint64_t> keys(1000);
  std::iota(keys.begin(), keys.end(), 0);
  const std::vector<float> gradients(4000, 1.0f);
  table.push(keys, gradients.data());
  const std::uint64_t base = table.step();
  table.push(std::span(keys).first(10), gradients.data());
  EXPECT_EQ(records_of(table, base).size(), 10u);
  EXPECT_EQ(records_of(table).size(), 1000u);
}

// Bytes of the files of a cut through `tables`.
std::uint64_t bytes_of_cut(Storage& storage, const std::string& dir, Tables& tables,
                           std::span<const std::uint64_t> base_steps) {
  SnapshotWriter writer(storage, dir, {0, kPartitions - 1}, tables, 0);
  CutReader cut(tables, base_steps);
  for (CutReader::Piece piece; cut.next(piece);) {
    EXPECT_TRUE(writer.write(piece.table, piece.records).ok());
  }
  wire::Saved saved;
  EXPECT_TRUE(writer.finish(saved).ok());
  std::uint64_t bytes = 0;
  for (const manifest::File& file : saved.files()) bytes += file.bytes();
  return bytes;
}

TEST(TableCut, DeltaOfOnePercentOfTheRowsIsAsSmallOnStorage) {
  const auto storage = make_memory_storage();
  Tables tables;
  tables.push_back(std::make_unique<Table>(0, counting_spec(36, 0)));
  Rng rng(3);
  std::vector<std::uint64_t> keys(100'000);
  for (std::uint64_t& key : keys) key = rng.next();
  std::vector<float> gradients(keys.size() * 36);
  for (float& g : gradients) g = static_cast<float>(rng.uniform());
  tables[0]->push(keys, gradients.data());
  const std::uint64_t full = bytes_of_cut(*storage, "full", tables, {});
  const std::uint64_t base = tables[0]->step();
  tables[0]->push(std::span(keys).first(1'000), gradients.data());
  const std::uint64_t delta = bytes_of_cut(*storage, "delta", tables, {&base, 1});
  EXPECT_LT(static_cast<double>(delta), 0.011 * static_cast<double>(full));
}

TEST(TableExpiry, TableOfExpiredRowsIsSavedAsAnEmptyOne) {
  const auto storage = make_memory_storage();
  Tables tables;
  tables.push_back(std::make_unique<Table>(0, expiring_spec(1, 2, 0)));
  const std::uint64_t key = 7;
  const float gradient = 1;
  tables[0]->push({&key, 1}, &gradient);
  wire::Saved before, after;
  ASSERT_TRUE(save_tables(*storage, "a", {0, kPartitions - 1}, tables, before).ok());
  EXPECT_EQ(before.files_size(), 1);
  tables[0]->set_step(3);
  ASSERT_TRUE(save_tables(*storage, "b", {0, kPartitions - 1}, tables, after).ok());
  EXPECT_EQ(after.files_size(), 0);
  EXPECT_EQ(after.digest(), 0u);
}

}  // namespace
}  // namespace meander::ps
