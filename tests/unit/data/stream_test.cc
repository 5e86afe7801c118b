// SPDX-License-Identifier: Apache-2.0
#include "data/stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "common/rng.h"
#include "tests/unit/data/support.h"

namespace meander::data {
namespace {

StreamSpec item_category_spec() {
  StreamSpec spec;
  spec.slots = {{"item", SlotSource::kItem, 0, ""}, {"category", SlotSource::kCategory, 1, ""}};
  spec.tables = 2;
  spec.batch = 16;
  spec.history = 6;
  return spec;
}

std::unique_ptr<Stream> open_stream(const std::shared_ptr<const PreparedLog>& log,
                                    const StreamSpec& spec) {
  Result<std::unique_ptr<Stream>> stream = Stream::open(log, spec);
  EXPECT_TRUE(stream.ok()) << stream.status().message();
  return stream.ok() ? std::move(stream).value() : nullptr;
}

// A group as a model sees it, with keys instead of indices.
struct Group {
  std::vector<std::vector<std::uint64_t>> target, history, negative;  // [slot]
  std::vector<float> valid, label, numeric;
  bool operator==(const Group&) const = default;
};

std::vector<std::uint64_t> pick(const std::vector<std::uint64_t>& keys,
                                const std::vector<std::uint32_t>& column,
                                const std::vector<std::size_t>& rows) {
  std::vector<std::uint64_t> out;
  for (const std::size_t row : rows) {
    if (!column.empty()) out.push_back(keys.at(column.at(row)));
  }
  return out;
}

Group decode_group(const Batch& batch, const Part& part, std::size_t g, const StreamSpec& spec) {
  Group group;
  std::vector<std::size_t> samples(part.candidates), rows(part.lengths[g]);
  std::iota(samples.begin(), samples.end(), g * part.candidates);
  for (std::size_t t = 0; t < rows.size(); ++t) rows[t] = part.step_offset[t] + g;
  for (std::size_t s = 0; s < spec.slots.size(); ++s) {
    const auto& keys = batch.keys[spec.slots[s].table];
    group.target.push_back(pick(keys, part.target[s], samples));
    group.history.push_back(pick(keys, part.history[s], rows));
    group.negative.push_back(pick(keys, part.negative[s], rows));
  }
  for (const std::size_t row : rows) {
    if (spec.auxiliary) group.valid.push_back(part.negative_valid[row]);
  }
  for (const std::size_t sample : samples) group.label.push_back(part.label[sample]);
  const std::size_t numerics = part.numeric.size() / part.label.size();
  group.numeric.assign(part.numeric.begin() + g * part.candidates * numerics,
                       part.numeric.begin() + (g + 1) * part.candidates * numerics);
  return group;
}

// The batch's groups in the order in which they were drawn.
std::vector<Group> decode(const Batch& batch, const StreamSpec& spec) {
  std::map<std::int32_t, Group> groups;
  for (const Part& part : batch.parts) {
    for (std::int32_t g = 0; g < part.groups; ++g) {
      EXPECT_TRUE(groups.emplace(part.order[g], decode_group(batch, part, g, spec)).second);
    }
  }
  std::vector<Group> in_order;
  for (auto& [place, group] : groups) {
    EXPECT_EQ(place, static_cast<std::int32_t>(in_order.size()));
    in_order.push_back(std::move(group));
  }
  return in_order;
}

std::vector<Group> decode_all(Stream& stream, const StreamSpec& spec,
                              const PartitionMap& lanes = PartitionMap::even(1)) {
  std::vector<Group> all;
  Batch batch;
  for (std::uint64_t seq = 0; seq < stream.batches(); ++seq) {
    stream.build(seq, lanes, batch);
    const std::vector<Group> groups = decode(batch, spec);
    all.insert(all.end(), groups.begin(), groups.end());
  }
  return all;
}

// All numbers of a batch, to compare two.
std::vector<double> flat(const Batch& batch) {
  std::vector<double> out = {double(batch.stream), double(batch.seq), double(batch.samples),
                             double(batch.longest), batch.progress};
  const auto add = [&out](const auto& values) {
    out.push_back(values.size());
    out.insert(out.end(), values.begin(), values.end());
  };
  for (const auto& keys : batch.keys) add(keys);
  for (const Part& part : batch.parts) {
    add(part.lengths), add(part.step_rows), add(part.step_offset), add(part.order);
    for (const auto& column : part.target) add(column);
    for (const auto& column : part.history) add(column);
    for (const auto& column : part.negative) add(column);
    add(part.negative_valid), add(part.label), add(part.numeric);
  }
  return out;
}

// A target event as the log tells it, to check a group against.
struct Expected {
  std::uint64_t row;
  std::vector<std::uint64_t> history;
  std::uint64_t item;
  std::uint64_t user;
  std::int64_t time_ms;
};
std::vector<Expected> expected_targets(const PreparedLog& log, bool test, std::uint32_t history) {
  std::vector<Expected> out;
  for (const Shard& shard : log.shards()) {
    for (const Target& t : test ? shard.test_targets : shard.train_targets) {
      const UserEntry& user = shard.users[t.user];
      const std::uint32_t begin =
          std::max<std::int64_t>(user.first, std::int64_t(t.event) - history);
      out.push_back({t.row,
                     {shard.item.begin() + begin, shard.item.begin() + t.event},
                     shard.item[t.event],
                     user.id,
                     shard.time_ms[t.event]});
    }
  }
  std::sort(out.begin(), out.end(), [](auto& a, auto& b) { return a.row < b.row; });
  return out;
}

class StreamTest : public testing::Test {
 protected:
  std::unique_ptr<Storage> storage_ = make_memory_storage();
  std::shared_ptr<const PreparedLog> log_ = shop_log(*storage_);
};

TEST_F(StreamTest, OneStreamServesTheLogInOrderOfTime) {
  const StreamSpec spec = item_category_spec();
  const auto stream = open_stream(log_, spec);
  const auto groups = decode_all(*stream, spec);
  const auto expected = expected_targets(*log_, false, spec.history);
  ASSERT_EQ(groups.size(), expected.size());
  for (std::size_t i = 0; i < groups.size(); ++i) {
    EXPECT_EQ(groups[i].target[0][0], expected[i].item);
    EXPECT_EQ(groups[i].history[0], expected[i].history);
    EXPECT_EQ(groups[i].target[1][0], log_->find_item(expected[i].item)->category);
    for (std::size_t t = 0; t < expected[i].history.size(); ++t) {
      EXPECT_EQ(groups[i].history[1][t], log_->find_item(expected[i].history[t])->category);
    }
    EXPECT_EQ(groups[i].label, (std::vector<float>{1, 0}));
  }
}

TEST_F(StreamTest, BatchesAreTheSameInWhateverOrderTheyAreBuilt) {
  for (const auto order : {StreamOrder::kTime, StreamOrder::kShuffle, StreamOrder::kHashed}) {
    StreamSpec spec = item_category_spec();
    spec.order = order;
    spec.epochs = 2;
    spec.auxiliary = true;
    const auto stream = open_stream(log_, spec), other = open_stream(log_, spec);
    const PartitionMap lanes = PartitionMap::even(3);
    std::vector<std::vector<double>> in_order(stream->batches());
    Batch batch, fresh;
    for (std::uint64_t seq = 0; seq < stream->batches(); ++seq) {
      stream->build(seq, lanes, batch);
      in_order[seq] = flat(batch);
    }
    Rng rng(11);
    for (int i = 0; i < 200; ++i) {
      const std::uint64_t seq = rng.below(stream->batches());
      other->build(seq, lanes, fresh);
      ASSERT_EQ(flat(fresh), in_order[seq]) << seq;
    }
  }
}

TEST_F(StreamTest, StreamsTogetherServeEveryTargetOnceInEachEpoch) {
  for (const auto order : {StreamOrder::kTime, StreamOrder::kShuffle, StreamOrder::kHashed}) {
    StreamSpec spec = item_category_spec();
    spec.order = order;
    spec.epochs = 2;
    spec.count = 3;
    spec.slots = {{"user", SlotSource::kUser, 0, ""}, {"item", SlotSource::kItem, 1, ""}};
    std::map<std::pair<std::uint64_t, std::vector<std::uint64_t>>, int> seen;
    std::uint64_t samples = 0;
    for (spec.index = 0; spec.index < spec.count; ++spec.index) {
      const auto stream = open_stream(log_, spec);
      samples += stream->samples();
      for (const Group& g : decode_all(*stream, spec)) {
        EXPECT_TRUE(g.history[0].empty());  // a user is of the sample, not of its history
        EXPECT_EQ(g.target[0][0], g.target[0][1]);
        std::vector<std::uint64_t> key = g.history[1];
        key.push_back(g.target[1][0]);
        ++seen[{g.target[0][0], key}];
      }
    }
    const auto expected = expected_targets(*log_, false, spec.history);
    EXPECT_EQ(samples, expected.size() * 2 * 2);
    std::map<std::pair<std::uint64_t, std::vector<std::uint64_t>>, int> wanted;
    for (const Expected& e : expected) {
      std::vector<std::uint64_t> key = e.history;
      key.push_back(e.item);
      wanted[{e.user, key}] += 2;
    }
    EXPECT_EQ(seen, wanted);
  }
}

TEST_F(StreamTest, ShuffleMixesUsersAndChangesWithTheEpochNotTheSeed) {
  for (const auto order : {StreamOrder::kShuffle, StreamOrder::kHashed}) {
    StreamSpec spec = item_category_spec();
    spec.order = order;
    spec.epochs = 2;
    const auto targets = [&] {
      std::vector<std::uint64_t> out;
      for (const Group& g : decode_all(*open_stream(log_, spec), spec))
        out.push_back(g.target[0][0]);
      return out;
    };
    const auto first = targets();
    spec.seed = 99;
    EXPECT_EQ(targets(), first);
    const std::size_t half = first.size() / 2;
    EXPECT_FALSE(std::equal(first.begin(), first.begin() + half, first.begin() + half));
  }
}

TEST_F(StreamTest, PartsArePackedLongestFirstAndOfEqualWork) {
  StreamSpec spec = item_category_spec();
  spec.batch = 64;
  spec.parts = 3;
  const auto stream = open_stream(log_, spec);
  Batch batch;
  for (std::uint64_t seq = 0; seq + 1 < stream->batches(); ++seq) {
    stream->build(seq, PartitionMap::even(1), batch);
    ASSERT_EQ(batch.parts.size(), 3u);
    std::int32_t least = 1 << 30, most = 0;
    std::uint32_t longest = 0;
    for (const Part& part : batch.parts) {
      EXPECT_TRUE(std::is_sorted(part.lengths.rbegin(), part.lengths.rend()));
      std::int32_t rows = 0;
      for (std::size_t t = 0; t < part.step_rows.size(); ++t) {
        EXPECT_EQ(part.step_offset[t], rows);
        EXPECT_EQ(part.step_rows[t], std::count_if(part.lengths.begin(), part.lengths.end(),
                                                   [t](auto n) { return n > std::int32_t(t); }));
        rows += part.step_rows[t];
      }
      EXPECT_EQ(part.step_rows.size(), std::size_t(part.lengths[0]));
      EXPECT_EQ(part.history[0].size(), std::size_t(rows));
      EXPECT_EQ(rows, std::accumulate(part.lengths.begin(), part.lengths.end(), 0));
      least = std::min(least, rows);
      most = std::max(most, rows);
      longest = std::max<std::uint32_t>(longest, part.lengths[0]);
    }
    EXPECT_LE(most - least, 2 * std::int32_t(spec.history));
    EXPECT_EQ(batch.longest, longest);
    EXPECT_EQ(batch.samples, 64u);
  }
}

TEST_F(StreamTest, ShortLastBatchMayLeavePartsEmpty) {
  StreamSpec spec = item_category_spec();
  spec.samples_max = 16 + 2;
  spec.parts = 4;
  const auto stream = open_stream(log_, spec);
  ASSERT_EQ(stream->batches(), 2u);
  Batch batch;
  stream->build(1, PartitionMap::even(1), batch);
  EXPECT_EQ(batch.samples, 2u);
  EXPECT_EQ(batch.parts[0].groups, 1);
  for (int p = 1; p < 4; ++p) {
    EXPECT_EQ(batch.parts[p].groups, 0);
    EXPECT_TRUE(batch.parts[p].step_rows.empty());
  }
  EXPECT_EQ(batch.progress, 1);
}

TEST_F(StreamTest, ProgressRisesToOne) {
  StreamSpec spec = item_category_spec();
  spec.epochs = 3;
  const auto stream = open_stream(log_, spec);
  Batch batch;
  double before = 0;
  for (std::uint64_t seq = 0; seq < stream->batches(); ++seq) {
    stream->build(seq, PartitionMap::even(1), batch);
    EXPECT_GT(batch.progress, before);
    before = batch.progress;
  }
  EXPECT_EQ(before, 1);
}

TEST_F(StreamTest, KeysAreDistinctGroupedByLaneAndMeanTheSameForAnyLanes) {
  StreamSpec spec = item_category_spec();
  spec.auxiliary = true;
  const auto stream = open_stream(log_, spec);
  const auto one = decode_all(*stream, spec, PartitionMap::even(1));
  for (const std::uint32_t count : {2, 5}) {
    const PartitionMap lanes = PartitionMap::even(count);
    EXPECT_EQ(decode_all(*stream, spec, lanes), one);
    Batch batch;
    for (std::uint64_t seq = 0; seq < stream->batches(); ++seq) {
      stream->build(seq, lanes, batch);
      for (const auto& keys : batch.keys) {
        EXPECT_EQ(std::set<std::uint64_t>(keys.begin(), keys.end()).size(), keys.size());
        EXPECT_TRUE(std::is_sorted(keys.begin(), keys.end(), [&](auto a, auto b) {
          return lanes.lane_of(a) < lanes.lane_of(b);
        }));
      }
    }
  }
}

TEST_F(StreamTest, SlotsOfOneTableShareItsKeys) {
  StreamSpec spec = item_category_spec();
  spec.slots[1] = {"again", SlotSource::kItem, 0, ""};
  spec.tables = 1;
  const auto stream = open_stream(log_, spec);
  Batch batch;
  stream->build(0, PartitionMap::even(2), batch);
  EXPECT_EQ(batch.parts[0].target[0], batch.parts[0].target[1]);
  EXPECT_EQ(batch.parts[0].history[0], batch.parts[0].history[1]);
  EXPECT_EQ(batch.keys.size(), 1u);
}

TEST_F(StreamTest, NegativesAreNoneOfTheExcluded) {
  const auto expected = expected_targets(*log_, false, 6);
  for (const NegativeKind kind : {NegativeKind::kPopular, NegativeKind::kUniform,
                                  NegativeKind::kRecent, NegativeKind::kInBatch}) {
    StreamSpec spec = item_category_spec();
    spec.negatives.kind = kind;
    spec.negatives.count = 3;
    spec.negatives.window_ms = 100'000;
    const auto groups = decode_all(*open_stream(log_, spec), spec);
    ASSERT_EQ(groups.size(), expected.size());
    for (std::size_t i = 0; i + 4 < groups.size(); ++i) {  // the last batch may have too few others
      const auto& candidates = groups[i].target[0];
      ASSERT_EQ(candidates.size(), 4u);
      if (kind != NegativeKind::kInBatch) {  // a small batch may not have enough of them
        EXPECT_EQ(std::set(candidates.begin(), candidates.end()).size(), 4u);
      }
      for (std::size_t n = 1; n < 4; ++n) {
        if (kind == NegativeKind::kInBatch) continue;
        EXPECT_EQ(std::count(expected[i].history.begin(), expected[i].history.end(), candidates[n]),
                  0);
      }
      for (std::size_t n = 0; n < 4; ++n) {
        EXPECT_EQ(groups[i].target[1][n], log_->find_item(candidates[n])->category);
      }
    }
  }
}

TEST_F(StreamTest, UserExclusionLooksAtTheWholeSequence) {
  write_file(*storage_, "big.csv", shop_csv(60, 400, 3));
  auto options = shop_options("big.csv", "big");
  const auto log = prepare_log(*storage_, options);
  StreamSpec spec = item_category_spec();
  spec.negatives.exclude = Exclude::kUser;
  const auto groups = decode_all(*open_stream(log, spec), spec);
  const auto expected = expected_targets(*log, false, 6);
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const auto user = *log->find_user(expected[i].user);
    const auto own = user.shard->item.subspan(user.user->first, user.user->count);
    EXPECT_EQ(std::count(own.begin(), own.end(), groups[i].target[0][1]), 0);
  }
}

TEST_F(StreamTest, RecentNegativesComeFromTheWindow) {
  StreamSpec spec = item_category_spec();
  spec.negatives.kind = NegativeKind::kRecent;
  spec.negatives.window_ms = 20'000;
  spec.auxiliary = true;
  const auto groups = decode_all(*open_stream(log_, spec), spec);
  const auto expected = expected_targets(*log_, false, spec.history);
  const auto times = log_->pool_time_ms();
  const auto window = [&](std::int64_t t) {
    std::set<std::uint64_t> items;
    for (std::size_t i = 0; i < times.size(); ++i) {
      if (times[i] >= t - 20'000 && times[i] < t) items.insert(log_->pool()[i].item);
    }
    return items;
  };
  for (std::size_t i = 0; i < groups.size(); i += 7) {
    const auto items = window(expected[i].time_ms);
    if (items.empty()) continue;
    EXPECT_TRUE(items.contains(groups[i].target[0][1]));
  }
}

TEST_F(StreamTest, PopularNegativesAreDrawnAsOftenAsTheyOccur) {
  StreamSpec spec = item_category_spec();
  spec.epochs = 40;
  spec.history = 1;
  std::map<std::uint64_t, double> drawn;
  const auto groups = decode_all(*open_stream(log_, spec), spec);
  for (const Group& g : groups) drawn[g.target[0][1]] += 1.0 / static_cast<double>(groups.size());
  for (const ItemEntry& item : log_->items()) {
    const double share = double(item.count) / double(log_->pool().size());
    EXPECT_NEAR(drawn[item.item], share, 0.01);
  }
}

TEST_F(StreamTest, NegativesChangeWithSeedAndEpoch) {
  StreamSpec spec = item_category_spec();
  spec.epochs = 2;
  const auto negatives = [&] {
    std::vector<std::uint64_t> out;
    for (const Group& g : decode_all(*open_stream(log_, spec), spec)) out.push_back(g.target[0][1]);
    return out;
  };
  const auto first = negatives();
  const std::size_t half = first.size() / 2;
  EXPECT_FALSE(std::equal(first.begin(), first.begin() + half, first.begin() + half));
  spec.seed = 2;
  EXPECT_NE(negatives(), first);
}

TEST_F(StreamTest, AuxiliaryNegativesAreUnlikeTheirPositives) {
  for (const NegativeKind kind : {NegativeKind::kPopular, NegativeKind::kRecent}) {
    StreamSpec spec = item_category_spec();
    spec.negatives.kind = kind;
    spec.negatives.window_ms = 1'000;
    spec.auxiliary = true;
    std::size_t valid = 0, rows = 0;
    for (const Group& g : decode_all(*open_stream(log_, spec), spec)) {
      ASSERT_EQ(g.negative[0].size(), g.history[0].size());
      for (std::size_t t = 0; t < g.history[0].size(); ++t) {
        EXPECT_EQ(g.valid[t] == 1, g.negative[0][t] != g.history[0][t]);
        EXPECT_EQ(g.negative[1][t], log_->find_item(g.negative[0][t])->category);
        valid += g.valid[t] == 1;
        ++rows;
      }
    }
    EXPECT_GT(valid, rows / 2);
    const bool some_windows_are_empty = kind == NegativeKind::kRecent;
    EXPECT_TRUE(valid < rows || !some_windows_are_empty);
  }
}

TEST_F(StreamTest, TestTargetsHaveTheStoredNegatives) {
  StreamSpec spec = item_category_spec();
  spec.part = LogPart::kTest;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> stored;  // row, negative
  for (const Shard& shard : log_->shards()) {
    for (std::size_t t = 0; t < shard.test_targets.size(); ++t) {
      stored.emplace_back(shard.test_targets[t].row, shard.test_negatives[t].item);
    }
  }
  std::sort(stored.begin(), stored.end());
  const auto groups = decode_all(*open_stream(log_, spec), spec);
  spec.seed = 5;
  EXPECT_EQ(decode_all(*open_stream(log_, spec), spec), groups);
  ASSERT_EQ(groups.size(), stored.size());
  for (std::size_t i = 0; i < groups.size(); ++i) {
    EXPECT_EQ(groups[i].target[0][1], stored[i].second);
  }
  spec.part = LogPart::kAll;
  EXPECT_EQ(open_stream(log_, spec)->samples(), 2 * (log_->test_targets() + log_->train_targets()));
  spec.negatives.count = 2;
  EXPECT_EQ(Stream::open(log_, spec).status().code(), Code::kInvalid);
}

TEST_F(StreamTest, RangeOfTimeKeepsTheTargetsInIt) {
  StreamSpec spec = item_category_spec();
  spec.from_ms = 1'100'000;
  spec.until_ms = 1'300'000;
  std::vector<std::uint64_t> wanted, served;
  for (const Expected& e : expected_targets(*log_, false, 6)) {
    if (e.time_ms >= spec.from_ms && e.time_ms < spec.until_ms) wanted.push_back(e.item);
  }
  for (const Group& g : decode_all(*open_stream(log_, spec), spec)) {
    served.push_back(g.target[0][0]);
  }
  EXPECT_EQ(served, wanted);
  spec.from_ms = 5'000'000;
  spec.until_ms = 6'000'000;
  EXPECT_EQ(open_stream(log_, spec)->batches(), 0u);
}

TEST_F(StreamTest, ContextAndNumbersAreTheTargetsOwn) {
  StreamSpec spec = item_category_spec();
  spec.slots.push_back({"device", SlotSource::kContext, 0, "device"});
  const auto stream = open_stream(log_, spec);
  EXPECT_EQ(stream->numerics(), 1u);
  double sum = 0;
  std::size_t count = 0;
  for (const Group& g : decode_all(*stream, spec)) {
    EXPECT_TRUE(g.target[2][0] == hash_id("phone") || g.target[2][0] == hash_id("desk"));
    EXPECT_EQ(g.target[2][0], g.target[2][1]);
    ASSERT_EQ(g.numeric.size(), 2u);
    EXPECT_EQ(g.numeric[0], g.numeric[1]);
    EXPECT_LT(std::abs(g.numeric[0]), 3);
    sum += g.numeric[0];
    ++count;
  }
  EXPECT_NEAR(sum / double(count), 0, 0.1);
}

TEST_F(StreamTest, SecondLabelIsTheTargetsOwnAndOfNoNegative) {
  StreamSpec spec = item_category_spec();
  spec.second_label = true;
  EXPECT_EQ(Stream::open(log_, spec).status().code(), Code::kInvalid) << "the log has none";
  PrepareOptions options = shop_options("shop.csv", "stays");
  options.stay_s = 0.5;
  const auto log = prepare_log(*storage_, options);
  std::map<std::uint64_t, float> label_of_row;
  for (const Shard& shard : log->shards()) {
    for (const Target& t : shard.train_targets) label_of_row[t.row] = shard.second_label[t.event];
  }
  std::vector<float> expected;  // in order of time
  for (const auto& [row, label] : label_of_row) expected.push_back(label);
  const auto stream = open_stream(log, spec);
  Batch batch;
  std::size_t first = 0, known = 0;
  for (std::uint64_t seq = 0; seq < stream->batches(); ++seq) {
    stream->build(seq, PartitionMap::even(3), batch);
    std::size_t groups = 0;
    for (const Part& part : batch.parts) {
      ASSERT_EQ(part.second_label.size(), part.label.size());
      for (std::int32_t g = 0; g < part.groups; ++g, ++groups) {
        const float label = part.second_label[g * part.candidates];
        const float wanted = expected[first + part.order[g]];
        EXPECT_TRUE(label == wanted || (std::isnan(label) && std::isnan(wanted)));
        known += !std::isnan(label);
        for (std::int32_t k = 1; k < part.candidates; ++k) {
          EXPECT_TRUE(std::isnan(part.second_label[g * part.candidates + k]));
        }
      }
    }
    first += groups;
  }
  EXPECT_EQ(first, expected.size());
  EXPECT_GT(known, first / 2);
  spec.second_label = false;
  open_stream(log, spec)->build(0, PartitionMap::even(1), batch);
  EXPECT_TRUE(batch.parts[0].second_label.empty()) << "nobody asked";
}

// Vectors for the even items of the shop.
std::shared_ptr<const Content> even_content(const PreparedLog& log) {
  std::vector<std::int64_t> ids;
  for (const ItemEntry& item : log.items()) {
    if (item.item % 2 == 0) ids.push_back(static_cast<std::int64_t>(item.item));
  }
  return Content::create(ids, std::vector<float>(2 * ids.size(), 1.0f), 2).value();
}

TEST_F(StreamTest, ContentIsTheRowOfTheItemForAnyNumberOfLanes) {
  StreamSpec spec = item_category_spec();
  spec.auxiliary = true;
  spec.content = even_content(*log_);
  spec.slots.push_back({"content", SlotSource::kContent, 2, ""});
  spec.tables = 3;
  std::size_t with = 0, without = 0;
  for (const std::uint32_t lanes : {1u, 3u}) {
    const auto stream = open_stream(log_, spec);
    Batch batch;
    for (std::uint64_t seq = 0; seq < stream->batches(); ++seq) {
      stream->build(seq, PartitionMap::even(lanes), batch);
      EXPECT_TRUE(batch.keys[2].empty()) << "a key would be pulled";
      for (const Part& part : batch.parts) {
        const auto expect = [&](const std::vector<std::vector<std::uint32_t>>& columns) {
          ASSERT_EQ(columns[2].size(), columns[0].size());
          for (std::size_t i = 0; i < columns[0].size(); ++i) {
            const std::uint64_t item = batch.keys[0][columns[0][i]];
            ASSERT_EQ(columns[2][i], spec.content->row_of(item));
            const bool has = columns[2][i] < spec.content->ids().size();
            EXPECT_EQ(has, item % 2 == 0);
            ++(has ? with : without);
          }
        };
        expect(part.target);
        expect(part.history);
        expect(part.negative);
      }
    }
  }
  EXPECT_GT(with, 0u);
  EXPECT_GT(without, 0u);
}

TEST_F(StreamTest, ContentAloneHasTheSameTargets) {
  StreamSpec spec = item_category_spec();
  const auto items = open_stream(log_, spec);
  spec.content = even_content(*log_);
  spec.slots = {{"content", SlotSource::kContent, 0, ""}};
  spec.tables = 1;
  const auto content = open_stream(log_, spec);
  ASSERT_EQ(content->batches(), items->batches());
  Batch a, b;
  items->build(3, PartitionMap::even(2), a);
  content->build(3, PartitionMap::even(2), b);
  ASSERT_EQ(a.parts.size(), b.parts.size());
  for (std::size_t p = 0; p < a.parts.size(); ++p) {
    ASSERT_EQ(a.parts[p].target[0].size(), b.parts[p].target[0].size());
    for (std::size_t i = 0; i < a.parts[p].target[0].size(); ++i) {
      EXPECT_EQ(spec.content->row_of(a.keys[0][a.parts[p].target[0][i]]), b.parts[p].target[0][i]);
    }
  }
}

TEST_F(StreamTest, NoNegativesMeansOneCandidate) {
  StreamSpec spec = item_category_spec();
  spec.negatives.kind = NegativeKind::kNone;
  const auto stream = open_stream(log_, spec);
  EXPECT_EQ(stream->samples(), log_->train_targets());
  Batch batch;
  stream->build(0, PartitionMap::even(1), batch);
  EXPECT_EQ(batch.samples, 16u);
  EXPECT_EQ(batch.parts[0].candidates, 1);
}

TEST_F(StreamTest, SamplesMaxIsSharedByTheStreams) {
  StreamSpec spec = item_category_spec();
  spec.samples_max = 101;
  spec.count = 3;
  std::uint64_t samples = 0;
  for (spec.index = 0; spec.index < 3; ++spec.index) samples += open_stream(log_, spec)->samples();
  EXPECT_EQ(samples, 100u);
}

TEST_F(StreamTest, WhatTheLogCannotServeIsRefused) {
  const auto refused = [&](auto change) {
    StreamSpec spec = item_category_spec();
    change(spec);
    const auto stream = Stream::open(log_, spec);
    return stream.ok() ? Code::kOk : stream.status().code();
  };
  EXPECT_EQ(refused([](auto& s) { s.count = 4; }), Code::kInvalid);
  EXPECT_EQ(refused([](auto& s) { s.index = 1; }), Code::kInvalid);
  EXPECT_EQ(refused([](auto& s) { s.batch = 1; }), Code::kInvalid);
  EXPECT_EQ(refused([](auto& s) { s.parts = 0; }), Code::kInvalid);
  EXPECT_EQ(refused([](auto& s) { s.catalogues = {CatalogueKind::kDrawn}; }), Code::kInvalid);
  EXPECT_EQ(refused([](auto& s) {
              s.catalogues = {CatalogueKind::kNone, CatalogueKind::kAll};  // of categories
            }),
            Code::kInvalid);
  EXPECT_EQ(refused([](auto& s) { s.slots[1].source = SlotSource::kContent; }), Code::kInvalid);
  EXPECT_EQ(refused([&](auto& s) {
              s.content = even_content(*log_);
              s.slots.push_back({"content", SlotSource::kContent, 0, ""});  // the items' table
            }),
            Code::kInvalid);
  EXPECT_EQ(refused([](auto& s) { s.epochs = 0; }), Code::kInvalid);
  EXPECT_EQ(refused([](auto& s) { s.slots[0].table = 2; }), Code::kInvalid);
  EXPECT_EQ(refused([](auto& s) { s.from_ms = 5, s.until_ms = 4; }), Code::kInvalid);
  EXPECT_EQ(refused([](auto& s) { s.slots[0] = {"x", SlotSource::kContext, 0, "hour"}; }),
            Code::kInvalid);
  write_file(*storage_, "p.txt", "1 2\n1 3\n1 4\n1 5\n");
  PrepareOptions options;
  options.format = Format::kPairs;
  options.in = {"p.txt"};
  options.out = "pairs";
  log_ = prepare_log(*storage_, options);
  EXPECT_EQ(refused([](auto&) {}), Code::kInvalid);  // no categories
  const auto items_only = [](auto& s) { s.slots.pop_back(); };
  EXPECT_EQ(refused(items_only), Code::kOk);
  EXPECT_EQ(refused([&](auto& s) { items_only(s), s.from_ms = 0; }), Code::kInvalid);
  EXPECT_EQ(refused([&](auto& s) { items_only(s), s.negatives.kind = NegativeKind::kRecent; }),
            Code::kInvalid);
}

}  // namespace
}  // namespace meander::data
