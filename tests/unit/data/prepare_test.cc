// SPDX-License-Identifier: Apache-2.0
#include "data/prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "common/rng.h"
#include "data/item_names.h"
#include "tests/unit/data/support.h"

namespace meander::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::uint64_t> items_of(const PreparedLog& log, std::uint64_t user) {
  const auto found = log.find_user(user);
  if (!found) return {};
  const auto items = found->shard->item.subspan(found->user->first, found->user->count);
  return {items.begin(), items.end()};
}

struct SeenTarget {
  std::uint64_t user, item, position;
  auto operator<=>(const SeenTarget&) const = default;
};
std::set<SeenTarget> targets_of(const PreparedLog& log, bool test) {
  std::set<SeenTarget> seen;
  for (const Shard& shard : log.shards()) {
    for (const Target& t : test ? shard.test_targets : shard.train_targets) {
      const UserEntry& user = shard.users[t.user];
      seen.insert({user.id, shard.item[t.event], t.event - user.first});
    }
  }
  return seen;
}

PrepareOptions lines_options(Format format, std::vector<std::string> in) {
  PrepareOptions options;
  options.format = format;
  options.in = std::move(in);
  options.out = "log";
  options.streams = 2;
  return options;
}

TEST(Prepare, LastEventOfEachUserIsTheTest) {
  auto storage = make_memory_storage();
  write_file(*storage, "s.txt", "7 11 12 13 14\n8 21\n9 31 32\n");
  auto options = lines_options(Format::kSequences, {"s.txt"});
  const auto log = prepare_log(*storage, options);
  ASSERT_TRUE(log);
  EXPECT_EQ(log->users(), 3u);
  EXPECT_EQ(log->events(), 7u);
  EXPECT_THAT(items_of(*log, 7), ElementsAre(11, 12, 13, 14));
  EXPECT_THAT(targets_of(*log, false), ElementsAre(SeenTarget{7, 12, 1}, SeenTarget{7, 13, 2}));
  EXPECT_THAT(targets_of(*log, true), ElementsAre(SeenTarget{7, 14, 3}, SeenTarget{9, 32, 1}));
  // A user of one event has no test target, so the event stays in training.
  std::vector<std::uint64_t> pool;
  for (const ItemRef& ref : log->pool()) pool.push_back(ref.item);
  EXPECT_THAT(pool, ElementsAre(11, 12, 13, 21, 31));
  EXPECT_EQ(log->find_item(14)->count, 0u);
  EXPECT_EQ(log->find_item(21)->count, 1u);
  EXPECT_EQ(log->find_item(99), nullptr);
}

TEST(Prepare, OnlyTheNewestTrainingEventsWithEnoughHistoryAreTargets) {
  auto storage = make_memory_storage();
  write_file(*storage, "s.txt", "1 1 2 3 4 5 6 7 8 9\n2 1 2 3\n");
  auto options = lines_options(Format::kSequences, {"s.txt"});
  options.min_history = 3;
  options.targets_last = 4;
  const auto log = prepare_log(*storage, options);
  ASSERT_TRUE(log);
  EXPECT_THAT(targets_of(*log, false), ElementsAre(SeenTarget{1, 5, 4}, SeenTarget{1, 6, 5},
                                                   SeenTarget{1, 7, 6}, SeenTarget{1, 8, 7}));
  EXPECT_THAT(targets_of(*log, true), ElementsAre(SeenTarget{1, 9, 8}));
}

TEST(Prepare, RowsAreTheOrderOfTimeWhateverTheOrderOfTheInput) {
  auto storage = make_memory_storage();
  const auto log = shop_log(*storage);
  ASSERT_TRUE(log);
  std::vector<std::int64_t> by_row(log->events(), -1);
  for (const Shard& shard : log->shards()) {
    for (std::size_t e = 0; e < shard.item.size(); ++e) {
      ASSERT_LT(shard.row[e], log->events());
      ASSERT_EQ(by_row[shard.row[e]], -1) << "two events in one row";
      by_row[shard.row[e]] = shard.time_ms[e];
    }
    for (const UserEntry& user : shard.users) {
      const auto rows = shard.row.subspan(user.first, user.count);
      EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end()));
    }
  }
  EXPECT_TRUE(std::is_sorted(by_row.begin(), by_row.end()));
  EXPECT_TRUE(std::is_sorted(log->pool_time_ms().begin(), log->pool_time_ms().end()));
  for (std::int64_t t = 999'000; t < 1'502'000; t += 997) {
    const auto times = log->pool_time_ms();
    EXPECT_EQ(log->pool_lower_bound(t),
              std::uint64_t(std::lower_bound(times.begin(), times.end(), t) - times.begin()));
  }
}

TEST(Prepare, HoldoutByTimeKeepsAllEventsInThePool) {
  auto storage = make_memory_storage();
  write_file(*storage, "e.csv",
             "time,user,item,category,price,device\n"
             "10,1,100,a,2,x\n20,1,101,b,4,x\n30,1,102,a,100,y\n35,2,100,a,,y\n40,1,103,b,1,y\n");
  auto options = shop_options("e.csv", "log");
  options.holdout = parse_holdout("time:30").value();
  const auto log = prepare_log(*storage, options);
  ASSERT_TRUE(log);
  EXPECT_THAT(targets_of(*log, false), ElementsAre(SeenTarget{1, 101, 1}));
  EXPECT_THAT(targets_of(*log, true), ElementsAre(SeenTarget{1, 102, 2}, SeenTarget{1, 103, 3}));
  EXPECT_EQ(log->pool().size(), 5u);
  EXPECT_EQ(log->find_item(102)->count, 0u);  // of training events
  EXPECT_EQ(log->categories(), 2u);
  EXPECT_EQ(log->find_item(101)->category, hash_id("b"));
}

TEST(Prepare, NormalisationComesFromTheTrainingPartOnly) {
  auto storage = make_memory_storage();
  write_file(*storage, "e.csv",
             "time,user,item,category,price,device\n"
             "10,1,100,a,2,x\n20,1,101,b,4,x\n25,1,101,b,,x\n30,1,102,a,1000,y\n");
  const auto log = prepare_log(*storage, shop_options("e.csv", "log"));
  ASSERT_TRUE(log);
  ASSERT_EQ(log->numeric().size(), 1u);
  EXPECT_EQ(log->numeric()[0].name, "price");
  EXPECT_FLOAT_EQ(log->numeric()[0].mean, 3);  // the missing one does not count
  EXPECT_FLOAT_EQ(log->numeric()[0].std, 1);
}

TEST(Prepare, ConstantColumnIsDividedByOne) {
  auto storage = make_memory_storage();
  write_file(*storage, "e.csv",
             "time,user,item,category,price,device\n1,1,1,a,5,x\n2,1,2,a,5,x\n3,1,3,a,5,x\n");
  const auto log = prepare_log(*storage, shop_options("e.csv", "log"));
  ASSERT_TRUE(log);
  EXPECT_FLOAT_EQ(log->numeric()[0].std, 1);
}

TEST(Prepare, BadRecordsAreCountedByReasonAndTheFirstAreShown) {
  auto storage = make_memory_storage();
  std::string text = "time,user,item,category,price,device\n";
  for (int i = 0; i < 100; ++i) text += std::to_string(i) + ",1," + std::to_string(i) + ",a,1,x\n";
  text += "5,anna,1,a,1,x\n";
  text += "5,2,1,a,1\n";
  text += "noon,2,1,a,1,x\n";
  text += "5,,1,a,1,x\n";
  text += "5,2,1,a,nan,x\n";
  text += "5,2,\"1,a,1,x\n";
  text += "5,ben,1,a,1,x\n";
  write_file(*storage, "e.csv", text);
  const auto report = prepare(*storage, shop_options("e.csv", "log"));
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->records, 107u);
  EXPECT_EQ(report->refused, 7u);
  EXPECT_EQ(report->events, 100u);
  EXPECT_EQ(report->refused_by_reason.at("user is not a whole number"), 2u);
  EXPECT_EQ(report->refused_by_reason.at("not 6 columns"), 1u);
  EXPECT_EQ(report->refused_by_reason.at("time is not a time"), 1u);
  EXPECT_EQ(report->refused_by_reason.at("user is missing"), 1u);
  EXPECT_EQ(report->refused_by_reason.at("price is not a finite number"), 1u);
  EXPECT_EQ(report->refused_by_reason.at("a quote is not closed"), 1u);
  ASSERT_EQ(report->refusals.size(), 5u);
  EXPECT_EQ(report->refusals[0], "e.csv:102: user is not a whole number: 'anna'");
  EXPECT_EQ(report->refusals[1], "e.csv:103: not 6 columns: '5,2,1,a,1'");
}

void expect_refused(Storage& storage, const PrepareOptions& options, Code code,
                    const std::string& message) {
  const auto report = prepare(storage, options);
  ASSERT_FALSE(report.ok()) << message;
  EXPECT_EQ(report.status().code(), code) << report.status().message();
  EXPECT_THAT(report.status().message(), HasSubstr(message));
  EXPECT_FALSE(storage.exists(options.out));
  EXPECT_FALSE(storage.exists(options.out + ".tmp"));
}

TEST(Prepare, InputThatCannotBeALogIsRefusedWhole) {
  auto storage = make_memory_storage();
  const auto options = shop_options("e.csv", "log");
  expect_refused(*storage, options, Code::kNotFound, "e.csv: no such file");
  write_file(*storage, "e.csv", "");
  expect_refused(*storage, options, Code::kInvalid, "e.csv: holds no events");
  write_file(*storage, "e.csv", "time,user,item,category,price,device\n");
  expect_refused(*storage, options, Code::kInvalid, "e.csv: holds no events");
  write_file(*storage, "e.csv", "time,user,article,category,price,device\n1,2,3,4,5,6\n");
  expect_refused(*storage, options, Code::kInvalid,
                 "e.csv:1: no column 'item'; it has: time, user");
  write_file(*storage, "e.csv", "time,user,item,category,price,device\n1,2\n3,4\n");
  expect_refused(*storage, options, Code::kInvalid, "e.csv:2: not 6 columns");
  write_file(*storage, "e.csv",
             "time,user,item,category,price,device\n1,2,x,a,5,6\n1,2,3,4,5,6\n2,2,3,4,5,6\n");
  expect_refused(*storage, options, Code::kInvalid,
                 "e.csv:2: item is not a whole number: 'x'; 1 of 3 records refused");
}

TEST(Prepare, OptionsThatContradictAreRefused) {
  auto storage = make_memory_storage();
  write_file(*storage, "p.txt", "1 2\n1 3\n1 4\n");
  auto options = lines_options(Format::kPairs, {"p.txt"});
  options.holdout = HoldoutSpec{Holdout::kTime, 5};
  expect_refused(*storage, options, Code::kInvalid, "no times");
  options.holdout = HoldoutSpec{Holdout::kGiven, 0};
  expect_refused(*storage, options, Code::kInvalid, "go together");
  options = lines_options(Format::kCsv, {"p.txt"});
  expect_refused(*storage, options, Code::kInvalid, "schema");
  EXPECT_EQ(parse_format("cvs").status().message().substr(0, 20), "unknown format 'cvs'");
  EXPECT_FALSE(parse_holdout("first").ok());
  EXPECT_FALSE(parse_holdout("time:never").ok());
}

TEST(Prepare, AnotherDirectoryIsNotOverwrittenButAPreparedLogIs) {
  auto storage = make_memory_storage();
  write_file(*storage, "p.txt", "1 2\n1 3\n1 4\n");
  write_file(*storage, "log/thesis.txt", "precious");
  const auto options = lines_options(Format::kPairs, {"p.txt"});
  EXPECT_EQ(prepare(*storage, options).status().code(), Code::kInvalid);
  EXPECT_EQ(read_file(*storage, "log/thesis.txt"), "precious");
  ASSERT_TRUE(storage->remove("log").ok());
  const auto first = prepare_log(*storage, options);
  write_file(*storage, "p.txt", "1 2\n1 3\n1 4\n1 5\n");
  const auto second = prepare_log(*storage, options);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(second->events(), 4u);
  EXPECT_NE(first->digest(), second->digest());
  EXPECT_EQ(prepare_log(*storage, options)->digest(), second->digest());
}

TEST(Prepare, MemoryBoundSplitsShardsAndChangesNothingElse) {
  auto storage = make_memory_storage();
  write_file(*storage, "shop.csv", shop_csv(2000, 300, 5));
  auto options = shop_options("shop.csv", "wide");
  const auto wide = prepare_log(*storage, options);
  options.out = "narrow";
  options.streams = 1;
  options.memory_bytes = 1 << 20;
  const auto narrow = prepare_log(*storage, options);
  ASSERT_TRUE(wide && narrow);
  EXPECT_EQ(wide->shards().size(), 3u);
  EXPECT_GT(narrow->shards().size(), 2u);
  EXPECT_EQ(targets_of(*wide, false), targets_of(*narrow, false));
  EXPECT_EQ(targets_of(*wide, true), targets_of(*narrow, true));
  ASSERT_EQ(wide->pool().size(), narrow->pool().size());
  for (std::size_t i = 0; i < wide->pool().size(); ++i) {
    ASSERT_EQ(wide->pool()[i].item, narrow->pool()[i].item);
  }
  EXPECT_FLOAT_EQ(wide->numeric()[0].mean, narrow->numeric()[0].mean);
  EXPECT_FLOAT_EQ(wide->numeric()[0].std, narrow->numeric()[0].std);
}

TEST(Prepare, JsonLinesAndCsvGiveTheSameLog) {
  auto storage = make_memory_storage();
  write_file(*storage, "a.csv",
             "time,user,item,category,price,device\n"
             "10,1,100,\"a, \"\"b\"\"\",2.5,x\n20,1,101,b,,y\n30,1,102,c,4,y\n");
  write_file(*storage, "a.jsonl",
             "{\"time\": 10, \"user\": 1, \"item\": \"100\", \"category\": \"a, \\\"b\\\"\", "
             "\"price\": 2.5, \"device\": \"x\", \"more\": [1]}\n"
             "{\"time\": 20, \"user\": 1, \"item\": 101, \"category\": \"b\", \"device\": \"y\"}\n"
             "{\"time\": 30, \"user\": 1, \"item\": 102, \"category\": \"c\", \"price\": 4, "
             "\"device\": \"y\"}\n");
  auto options = shop_options("a.csv", "csv");
  const auto csv = prepare_log(*storage, options);
  options.in = {"a.jsonl"};
  options.out = "jsonl";
  options.format = Format::kJsonl;
  const auto jsonl = prepare_log(*storage, options);
  ASSERT_TRUE(csv && jsonl);
  for (std::size_t s = 0; s < csv->shards().size(); ++s) {
    const Shard &a = csv->shards()[s], &b = jsonl->shards()[s];
    EXPECT_TRUE(std::ranges::equal(a.item, b.item));
    EXPECT_TRUE(std::ranges::equal(a.category, b.category));
    EXPECT_TRUE(std::ranges::equal(a.time_ms, b.time_ms));
    EXPECT_TRUE(std::ranges::equal(a.context[0], b.context[0]));
    for (std::size_t e = 0; e < a.item.size(); ++e) {
      const float x = a.numeric[0][e], y = b.numeric[0][e];
      EXPECT_TRUE(x == y || (std::isnan(x) && std::isnan(y)));
    }
  }
  EXPECT_EQ(csv->find_item(100)->category, hash_id("a, \"b\""));
}

TEST(Prepare, JsonLinesRefusalsSayWhy) {
  auto storage = make_memory_storage();
  std::string text;
  for (int i = 0; i < 60; ++i) {
    text += "{\"time\":" + std::to_string(i) + ",\"user\":1,\"item\":2,\"category\":\"a\"}\n";
  }
  text += "{\"time\": 1\n[1,2]\n{\"time\":1,\"user\":1,\"category\":\"a\"}\n";
  text += "{\"time\":1,\"user\":[1],\"item\":2,\"category\":\"a\"}\n";
  write_file(*storage, "e.jsonl", text);
  auto options = shop_options("e.jsonl", "log");
  options.format = Format::kJsonl;
  const auto report = prepare(*storage, options);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->refused_by_reason.at("not a JSON object"), 2u);
  EXPECT_EQ(report->refused_by_reason.at("item is missing"), 1u);
  EXPECT_EQ(report->refused_by_reason.at("user is missing"), 1u);
}

TEST(Prepare, TsvWithoutHeaderTakesColumnsInOrder) {
  auto storage = make_memory_storage();
  write_file(*storage, "e.tsv", "ann\tbook 1\t1.5\nann\tbook 2\t2.5\nann\tbook 1\t3.25\n");
  auto options = shop_options("e.tsv", "log");
  options.format = Format::kTsv;
  options.schema.columns = {{"user", ColumnRole::kUser, ColumnType::kString},
                            {"item", ColumnRole::kItem, ColumnType::kString},
                            {"time", ColumnRole::kTime, ColumnType::kFloat}};
  options.schema.header = false;
  options.schema.time_unit = TimeUnit::kSeconds;
  const auto log = prepare_log(*storage, options);
  ASSERT_TRUE(log);
  const auto user = log->find_user(hash_id("ann"));
  ASSERT_TRUE(user);
  EXPECT_THAT(std::vector(user->shard->time_ms.begin(), user->shard->time_ms.end()),
              ElementsAre(1500, 2500, 3250));
  EXPECT_FALSE(log->has_category());
}

TEST(Prepare, GivenTestEventsAreTargetsAndNoHistoryOfEachOther) {
  auto storage = make_memory_storage();
  write_file(*storage, "train.txt", "1 10 11 12\n2 10 13\n");
  write_file(*storage, "test.txt", "1 20 21\n2 22\n3 23\n");
  auto options = lines_options(Format::kSequences, {"train.txt"});
  options.test_in = {"test.txt"};
  const auto log = prepare_log(*storage, options);
  ASSERT_TRUE(log);
  EXPECT_TRUE(log->test_history_is_known_part());
  EXPECT_THAT(targets_of(*log, false),
              ElementsAre(SeenTarget{1, 11, 1}, SeenTarget{1, 12, 2}, SeenTarget{2, 13, 1}));
  EXPECT_THAT(targets_of(*log, true),
              ElementsAre(SeenTarget{1, 20, 3}, SeenTarget{1, 21, 4}, SeenTarget{2, 22, 2}));
  EXPECT_EQ(log->pool().size(), 5u);
  EXPECT_EQ(log->find_user(1)->user->known, 3u);
}

TEST(Prepare, TestSessionsAreContextAndTarget) {
  auto storage = make_memory_storage();
  write_file(*storage, "train.txt", "1 2 3\n4 5\n");
  write_file(*storage, "test.txt", "1 4\t5\n7\t8\nno tab here\n2 3\t4\n");
  auto options = lines_options(Format::kSessions, {"train.txt"});
  options.test_in = {"test.txt"};
  options.refused_share_max = 0.5;
  const auto report = prepare(*storage, options);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->refused, 1u);
  const auto log = open_log(*storage, "log");
  EXPECT_THAT(targets_of(*log, true),
              ElementsAre(SeenTarget{3, 5, 2}, SeenTarget{4, 8, 1}, SeenTarget{6, 4, 2}));
  EXPECT_EQ(log->train_targets(), 3u);
  EXPECT_EQ(log->pool().size(), 5u);  // contexts are not training
}

TEST(Prepare, ListedTestNegativesAreTakenAndTheOthersDrawn) {
  auto storage = make_memory_storage();
  std::string train, test;
  for (int user = 0; user < 20; ++user) {
    for (int i = 0; i < 10; ++i) {
      train += std::to_string(user) + " " + std::to_string(user * 3 + i) + "\n";
    }
    test += std::to_string(user) + "\t" + std::to_string(100 + user) + "\t5\t0\n";
  }
  write_file(*storage, "train", train);
  write_file(*storage, "test", test);
  write_file(*storage, "negatives", "(0,100)\t7001\t7002\n(1,101)\t7003\t7004\n(2,999)\t1\t2\n");
  auto options = lines_options(Format::kPairs, {"train"});
  options.test_in = {"test"};
  options.test_negatives = "negatives";
  const auto report = prepare(*storage, options);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->test_negatives_listed, 2u);
  const auto log = open_log(*storage, "log");
  ASSERT_EQ(log->test_negatives(), 2u);
  for (const Shard& shard : log->shards()) {
    for (std::size_t t = 0; t < shard.test_targets.size(); ++t) {
      const UserEntry& user = shard.users[shard.test_targets[t].user];
      const ItemRef *first = &shard.test_negatives[t * 2], *second = first + 1;
      if (user.id < 2) {
        EXPECT_EQ(first->item, 7001 + user.id * 2);
        EXPECT_EQ(second->item, 7002 + user.id * 2);
        continue;
      }
      const auto own = items_of(*log, user.id);
      EXPECT_EQ(std::count(own.begin(), own.end(), first->item), 0);
      EXPECT_EQ(std::count(own.begin(), own.end(), second->item), 0);
      EXPECT_NE(first->item, second->item);
    }
  }
  write_file(*storage, "negatives", "(0,7)\t7001\t7002\n");
  options.out = "other";
  expect_refused(*storage, options, Code::kInvalid, "lists none of this log's 20 test targets");
  write_file(*storage, "negatives", "(0,100)\t7001\t7002\n(1,101)\t7003\n");
  expect_refused(*storage, options, Code::kInvalid, "negatives:2: expected 2 negatives");
}

TEST(Prepare, FirstAttributeIsTheCategory) {
  auto storage = make_memory_storage();
  write_file(*storage, "s.txt", "1 10 11 12 13\n");
  write_file(*storage, "a.json", "{\"10\": [5, 6], \"11\": [\"art\"], \"12\": []}");
  auto options = lines_options(Format::kSequences, {"s.txt"});
  options.attributes = "a.json";
  const auto log = prepare_log(*storage, options);
  ASSERT_TRUE(log && log->has_category());
  EXPECT_EQ(log->find_item(10)->category, 5u);
  EXPECT_EQ(log->find_item(11)->category, hash_id("art"));
  EXPECT_EQ(log->find_item(12)->category, unknown_category());
  EXPECT_EQ(log->find_item(13)->category, unknown_category());
  write_file(*storage, "a.json", "[1, 2");
  options.out = "other";
  expect_refused(*storage, options, Code::kInvalid, "a.json: expected JSON");
}

TEST(Prepare, MovieTitlesAndGenresAreKept) {
  auto storage = make_memory_storage();
  write_file(*storage, "ml/movies.dat",
             "1::Toy Story (1995)::Animation|Comedy\n2::Am\xe9lie (2001)::Comedy\n"
             "3::Never Seen::Drama\n");
  write_file(*storage, "ml/sequences.txt", "5 1 2 1 2 1 2 1 2\n");
  auto options = lines_options(Format::kMl1m, {"ml"});
  const auto log = prepare_log(*storage, options);
  ASSERT_TRUE(log);
  const auto catalog = log->catalog(*storage);
  ASSERT_TRUE(catalog.ok());
  EXPECT_EQ(catalog->entries.size(), 2u);
  EXPECT_EQ(catalog->find(2)->title, "Am\xc3\xa9lie (2001)");
  EXPECT_EQ(catalog->find(2)->category_name, "Comedy");
  EXPECT_EQ(catalog->find(1)->category, 0u);
  EXPECT_EQ(catalog->category_name(0), "Animation");
  EXPECT_EQ(catalog->find(3), nullptr);
}

TEST(Prepare, RatingsOfMovielensAreReadWithTheirTimes) {
  auto storage = make_memory_storage();
  write_file(*storage, "ml/movies.dat", "1::A::Drama\n2::B::Comedy\n");
  write_file(*storage, "ml/ratings.dat", "5::2::3::978300760\n5::1::5::978300700\n");
  auto options = lines_options(Format::kMl1m, {"ml"});
  const auto log = prepare_log(*storage, options);
  ASSERT_TRUE(log);
  EXPECT_TRUE(log->has_time());
  EXPECT_THAT(items_of(*log, 5), ElementsAre(1, 2));
}

// The second labels of a user's events: '1', '0', and '-' where it is not known.
std::string second_labels_of(const PreparedLog& log, std::uint64_t user) {
  const auto found = log.find_user(user);
  std::string labels;
  for (const float label :
       found->shard->second_label.subspan(found->user->first, found->user->count)) {
    labels += std::isnan(label) ? '-' : label == 1 ? '1' : label == 0 ? '0' : '?';
  }
  return labels;
}

TEST(Prepare, StayIsTheTimeToTheNextEventOfTheSession) {
  auto storage = make_memory_storage();
  // User 5, in time: 0, 59.999, 120 s | 130 s | 200, 260, 260 s: sessions 1, 2, 3. Not in order.
  write_file(*storage, "c.csv",
             "ts,who,what,visit\n"
             "120000,5,3,a\n0,5,1,a\n59999,5,2,a\n130000,5,4,b\n"
             "200000,5,5,c\n260000,5,6,c\n260000,5,7,c\n70000,6,1,z\n");
  PrepareOptions options;
  options.in = {"c.csv"};
  options.out = "log";
  options.schema.columns = {{"ts", ColumnRole::kTime, ColumnType::kInt},
                            {"who", ColumnRole::kUser, ColumnType::kInt},
                            {"what", ColumnRole::kItem, ColumnType::kInt},
                            {"visit", ColumnRole::kSession, ColumnType::kString}};
  EXPECT_EQ(prepare_log(*storage, options)->second_label(), "") << "nobody asked";
  options.stay_s = 60;
  auto log = prepare_log(*storage, options);
  ASSERT_TRUE(log);
  EXPECT_EQ(log->second_label(), "stay");
  EXPECT_EQ(second_labels_of(*log, 5), "01--10-");
  EXPECT_EQ(second_labels_of(*log, 6), "-");
  const auto report = prepare(*storage, options);
  EXPECT_EQ(report->labels_known, 4u);
  EXPECT_EQ(report->labels_positive, 2u);
  // Where nothing tells sessions apart, all events of a user are one.
  options.schema.columns[3].role = ColumnRole::kIgnore;
  EXPECT_EQ(second_labels_of(*prepare_log(*storage, options), 5), "010110-");
}

TEST(Prepare, StayThatWasFilledInIsNotKnown) {
  auto storage = make_memory_storage();
  const std::string header =
      "ts_ms,user,session,item,category,env,device,os,country,region,referrer\n";
  std::string text = header;
  for (const int ms : {0, 30'000, 90'000, 119'999, 149'999}) {
    text += std::to_string(ms) + ",5,1," + std::to_string(ms) + ",1,1,1,1,1,1,1\n";
  }
  write_file(*storage, "g/clicks.csv", text);
  auto options = lines_options(Format::kGlobo, {"g"});
  options.stay_s = 60;
  EXPECT_EQ(second_labels_of(*prepare_log(*storage, options), 5), "-10--") << "30 s, of globo";
  options.stay_filled_s = 0;
  EXPECT_EQ(second_labels_of(*prepare_log(*storage, options), 5), "0100-");
  options.stay_filled_s = 60;
  EXPECT_EQ(second_labels_of(*prepare_log(*storage, options), 5), "0-00-");
}

TEST(Prepare, SecondLabelIsMadeOfAnyColumn) {
  auto storage = make_memory_storage();
  write_file(*storage, "c.csv", "who,what,stars\n5,1,3.9\n5,2,4\n5,3,\n5,4,5\n5,5,x\n");
  PrepareOptions options;
  options.in = {"c.csv"};
  options.out = "log";
  options.refused_share_max = 0.5;
  options.schema.columns = {{"who", ColumnRole::kUser, ColumnType::kInt},
                            {"what", ColumnRole::kItem, ColumnType::kInt},
                            {"stars", ColumnRole::kLabel, ColumnType::kFloat}};
  options.label_min = 4;
  const auto report = prepare(*storage, options);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->refused, 1u) << "a label that is no number";
  const auto log = open_log(*storage, "log");
  EXPECT_EQ(log->second_label(), "stars");
  EXPECT_EQ(second_labels_of(*log, 5), "01-1");
  EXPECT_TRUE(log->verify().ok());
}

TEST(Prepare, RatingsOfMovielensMakeASecondLabelIfAskedFor) {
  auto storage = make_memory_storage();
  write_file(*storage, "ml/ratings.dat", "5::2::3::978300760\n5::1::4::978300700\n");
  write_file(*storage, "k/a.inter",
             "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
             "5\t2\t3\t978300760\n5\t1\t4\t978300700\n");
  for (const auto& [format, in] : {std::pair(Format::kMl1m, "ml"), {Format::kMl100k, "k"}}) {
    auto options = lines_options(format, {in});
    EXPECT_EQ(prepare_log(*storage, options)->second_label(), "");
    options.label_min = 4;
    EXPECT_EQ(second_labels_of(*prepare_log(*storage, options), 5), "10");
  }
}

TEST(Prepare, SecondLabelThatCannotBeMadeIsRefused) {
  auto storage = make_memory_storage();
  write_file(*storage, "shop.csv", shop_csv(9, 9, 7));
  PrepareOptions options = shop_options("shop.csv", "log");
  options.label_min = 1;
  EXPECT_THAT(prepare(*storage, options).status().message(), HasSubstr("role label"));
  options.schema.columns[4].role = ColumnRole::kLabel;
  options.stay_s = 60;
  EXPECT_THAT(prepare(*storage, options).status().message(), HasSubstr("not both"));
  write_file(*storage, "s/seq.txt", "5 1 2 3\n");
  auto timeless = lines_options(Format::kSequences, {"s"});
  timeless.stay_s = 60;
  EXPECT_THAT(prepare(*storage, timeless).status().message(), HasSubstr("times"));
}

// Version 1 is what logs were before there were second labels, and those without one still are.
TEST(Prepare, LogWithoutSecondLabelIsOfTheVersionBefore) {
  auto storage = make_memory_storage();
  ASSERT_TRUE(shop_log(*storage));
  const std::string text = read_file(*storage, "shop/log.json");
  EXPECT_THAT(text, HasSubstr("\"version\":1"));
  EXPECT_THAT(text, testing::Not(HasSubstr("second_label")));
  PrepareOptions options = shop_options("shop.csv", "labelled");
  options.schema.columns[4].role = ColumnRole::kLabel;
  ASSERT_TRUE(prepare_log(*storage, options));
  EXPECT_THAT(read_file(*storage, "labelled/log.json"), HasSubstr("\"version\":2"));
}

// More events than are merged at once, in order of time and mixed: two ways to the same log, but
// for what the input's order decides.
TEST(Prepare, InputInOrderOfTimeGivesTheLogThatAMixedOneGives) {
  auto storage = make_memory_storage();
  constexpr std::uint64_t kEvents = 40'000;
  std::vector<std::string> lines;
  for (std::uint64_t i = 0; i < kEvents; ++i) {
    const std::uint64_t r = hash64(9, i);
    lines.push_back(std::to_string(i) + "," + std::to_string(r % 700) + "," +
                    std::to_string(r / 700 % 500) + ",c" + std::to_string(r % 5) + ",1,x\n");
  }
  const std::string header = "time,user,item,category,price,device\n";
  const auto prepared = [&](const std::string& name) {
    std::string text = header;
    for (const std::string& line : lines) text += line;
    write_file(*storage, name + ".csv", text);
    return prepare_log(*storage, shop_options(name + ".csv", name));
  };
  const auto ordered = prepared("ordered");
  for (std::uint64_t i = kEvents; i > 1; --i) std::swap(lines[i - 1], lines[hash64(10, i) % i]);
  const auto mixed = prepared("mixed");
  ASSERT_TRUE(ordered && mixed);
  for (const char* file : {"pool.col", "pool_time.col", "items.col"}) {
    EXPECT_EQ(read_file(*storage, join_path("mixed", file)),
              read_file(*storage, join_path("ordered", file)))
        << file;
  }
  for (const char* file : {"users.col", "item.col", "time.col", "row.col", "train.col", "test.col",
                           "numeric-0.col", "test_negatives.col"}) {
    for (const char* shard : {"shard-00000", "shard-00001", "shard-00002"}) {
      const std::string name = join_path(shard, file);
      EXPECT_EQ(read_file(*storage, join_path("mixed", name)),
                read_file(*storage, join_path("ordered", name)))
          << name;
    }
  }
  std::uint64_t rows = 0;
  for (const Shard& shard : ordered->shards()) rows += shard.row.size();
  EXPECT_EQ(rows, kEvents);
  EXPECT_EQ(ordered->pool().size() + ordered->test_targets(), kEvents);
}

}  // namespace
}  // namespace meander::data
