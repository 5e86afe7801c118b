// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/generation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "common/crc32c.h"
#include "common/partition.h"
#include "tests/unit/checkpoint/run_model.h"

namespace meander::checkpoint {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A small generation of two tables in `dir`, written by `lanes` lanes.
manifest::Manifest write_generation(Storage& storage, const std::string& dir, std::uint32_t lanes) {
  EXPECT_TRUE(storage.make_directories(dir).ok());
  manifest::Manifest manifest;
  manifest.set_generation(12);
  manifest.set_model("dien 18");
  manifest.set_lanes(lanes);
  std::uint64_t digest = 0;
  const PartitionMap map = PartitionMap::even(lanes);
  for (std::uint32_t t = 0; t < 2; ++t) {
    manifest::Table& table = *manifest.add_tables();
    table.set_name(t == 0 ? "item" : "dense");
    table.set_width(2);
    table.set_state_width(t);
    table.set_step(40);
    std::vector<std::uint64_t> keys;
    for (std::uint64_t key = 0; key < 12; ++key) keys.push_back(key * 77);
    std::sort(keys.begin(), keys.end(),
              [](std::uint64_t a, std::uint64_t b) { return mix64(a) < mix64(b); });
    for (std::uint32_t lane = 0; lane < lanes; ++lane) {
      const std::string path = dir + "/t" + std::to_string(t) + "-" + std::to_string(lane);
      auto writer = RowsWriter::create(storage, path, t, 2 + t, {}).value();
      for (const std::uint64_t key : keys) {
        if (map.lane_of(key) != lane) continue;
        const float values[] = {static_cast<float>(key), 0.5f, 7.0f};
        Record record{key, key % 9, 3, true, std::span(values, 2 + t)};
        digest += record_digest(t, record);
        EXPECT_TRUE(writer->add(record).ok());
      }
      *manifest.add_files() = writer->finish().value();
    }
    table.set_rows(keys.size());
  }
  manifest::Stream& stream = *manifest.add_streams();
  stream.set_next(20);
  const std::string sums = "sums of the run";
  EXPECT_TRUE(storage.write_atomic(dir + "/metrics", sums.data(), sums.size()).ok());
  manifest::Extra& extra = *manifest.add_extras();
  extra.set_name("metrics");
  extra.set_bytes(sums.size());
  extra.set_crc32c(crc32c(sums.data(), sums.size()));
  manifest.set_digest(final_digest(digest, manifest));
  EXPECT_TRUE(write_manifest(storage, dir, manifest).ok());
  return manifest;
}

std::vector<std::string> errors_of(Storage& storage, const std::string& dir) {
  auto verification = verify(storage, dir);
  if (!verification.ok()) return {verification.status().message()};
  return verification->errors;
}

void overwrite(Storage& storage, const std::string& path, const std::vector<std::byte>& bytes) {
  auto file = storage.create(path).value();
  ASSERT_TRUE(file->append(bytes.data(), bytes.size()).ok());
  ASSERT_TRUE(file->close().ok());
}

TEST(Generation, AManifestIsNeverReplaced) {
  auto storage = make_memory_storage();
  manifest::Manifest manifest = write_generation(*storage, "c/gen-000012", 2);
  manifest.set_model("of another run");
  EXPECT_EQ(write_manifest(*storage, "c/gen-000012", manifest).code(), Code::kInvalid);
  EXPECT_EQ(read_manifest(*storage, "c/gen-000012").value().model(), "dien 18");
}

TEST(Generation, WhatWasLeftUnfinishedIsRemovedAndNothingElse) {
  auto storage = make_memory_storage();
  EXPECT_TRUE(remove_unfinished(*storage, "c").ok()) << "nothing is there yet";
  write_generation(*storage, "c/gen-000001", 1);
  write_generation(*storage, "c/gen-000002", 1);
  ASSERT_TRUE(storage->remove("c/gen-000002/MANIFEST").ok());
  ASSERT_TRUE(storage->make_directories("c/notes").ok());
  EXPECT_TRUE(remove_unfinished(*storage, "c").ok());
  EXPECT_THAT(storage->list("c").value(), ElementsAre("gen-000001", "notes"));
}

TEST(Generation, ManifestComesBackAsItWas) {
  auto storage = make_memory_storage();
  manifest::Manifest manifest = write_generation(*storage, "c/gen-000012", 2);
  manifest.set_format(2);
  const auto back = read_manifest(*storage, "c/gen-000012");
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(back->SerializeAsString(), manifest.SerializeAsString());
}

TEST(Generation, WholeGenerationVerifies) {
  auto storage = make_memory_storage();
  write_generation(*storage, "c/gen-000012", 3);
  const auto verification = verify(*storage, "c/gen-000012");
  ASSERT_TRUE(verification.ok());
  EXPECT_THAT(verification->errors, IsEmpty());
  EXPECT_EQ(verification->files, 7u);
  EXPECT_EQ(verification->rows, 24u);
}

TEST(Generation, DigestDoesNotDependOnTheNumberOfLanes) {
  auto storage = make_memory_storage();
  const auto one = write_generation(*storage, "a", 1), five = write_generation(*storage, "b", 5);
  EXPECT_EQ(one.digest(), five.digest());
  EXPECT_EQ(one.digest().size(), 16u);
}

TEST(Generation, DigestSeesEveryPartOfARecordAndOfThePositions) {
  const float values[] = {1, 2, 3};
  const Record record{5, 6, 7, true, values};
  const std::uint64_t digest = record_digest(0, record);
  EXPECT_NE(digest, record_digest(1, record));
  EXPECT_NE(digest, record_digest(0, {4, 6, 7, true, values}));
  EXPECT_NE(digest, record_digest(0, {5, 5, 7, true, values}));
  EXPECT_NE(digest, record_digest(0, {5, 6, 8, true, values}));
  EXPECT_NE(digest, record_digest(0, {5, 6, 7, false, values}));
  for (int i = 0; i < 3; ++i) {
    float other[] = {1, 2, 3};
    other[i] = std::nextafter(other[i], 9.0f);
    EXPECT_NE(digest, record_digest(0, {5, 6, 7, true, other}));
  }
  manifest::Manifest manifest;
  manifest.add_streams()->set_next(4);
  const std::string before = final_digest(1, manifest);
  manifest.mutable_streams(0)->set_ended(true);
  EXPECT_NE(before, final_digest(1, manifest));
}

TEST(Generation, VerifyFindsEveryFlippedBitOfAChain) {
  auto storage = make_memory_storage();
  RunModel run(*storage);
  Rng rng(1);
  for (std::uint64_t number = 1; number <= 2; ++number) {
    run.train(rng, 2, 4);
    run.write(number, number > 1, number == 1 ? 2 : 1);
  }
  const std::string newest = run.dir_of(2);
  std::size_t files = 0;
  for (std::uint64_t number = 1; number <= 2; ++number) {
    const std::string dir = run.dir_of(number);
    for (const std::string& name : storage->list(dir).value()) {
      ++files;
      const std::string path = join_path(dir, name);
      const Buffer bytes = storage->read(path).value();
      const std::vector<std::byte> whole(bytes.data(), bytes.data() + bytes.size());
      for (std::size_t bit = 0; bit < 8 * whole.size(); ++bit) {
        std::vector<std::byte> damaged = whole;
        damaged[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
        overwrite(*storage, path, damaged);
        ASSERT_FALSE(errors_of(*storage, newest).empty()) << path << ", bit " << bit;
      }
      overwrite(*storage, path, whole);
    }
  }
  EXPECT_EQ(files, 6u + 4u);  // two tables of two lanes, then of one; metrics, MANIFEST
  EXPECT_THAT(errors_of(*storage, newest), IsEmpty());
}

TEST(Generation, VerifyNamesWhatIsMissingOrTorn) {
  auto storage = make_memory_storage();
  write_generation(*storage, "g", 1);
  const Buffer bytes = storage->read("g/t0-0").value();
  overwrite(*storage, "g/t0-0", {bytes.data(), bytes.data() + 100});
  ASSERT_TRUE(storage->remove("g/t1-0").ok());
  const auto errors = errors_of(*storage, "g");
  EXPECT_THAT(errors, ElementsAre(HasSubstr("t0-0: torn: 100 of"), HasSubstr("t1-0")));
}

TEST(Generation, DirectoryWithoutManifestIsNone) {
  auto storage = make_memory_storage();
  EXPECT_EQ(newest_generation(*storage, "c").status().code(), Code::kNotFound);
  ASSERT_TRUE(storage->make_directories("c").ok());
  EXPECT_EQ(newest_generation(*storage, "c").status().code(), Code::kNotFound);
  write_generation(*storage, "c/gen-000002", 1);
  write_generation(*storage, "c/gen-000010", 1);
  write_generation(*storage, "c/gen-1000000", 1);  // beyond six digits: still the newest
  ASSERT_TRUE(storage->make_directories("c/gen-1000001").ok());
  ASSERT_TRUE(storage->make_directories("c/other").ok());
  EXPECT_EQ(newest_generation(*storage, "c").value(), "c/gen-1000000");
  EXPECT_THAT(list_generations(*storage, "c").value(),
              ElementsAre("c/gen-000002", "c/gen-000010", "c/gen-1000000"));
  EXPECT_EQ(resolve_generation(*storage, "c").value(), "c/gen-1000000");
  EXPECT_EQ(resolve_generation(*storage, "c/gen-000002").value(), "c/gen-000002");
}

TEST(Generation, PruneKeepsThePinnedOneWhateverItsAge) {
  auto storage = make_memory_storage();
  for (const char* name : {"c/gen-000001", "c/gen-000002", "c/gen-000003", "c/gen-000004"}) {
    write_generation(*storage, name, 1);
  }
  ASSERT_TRUE(prune(*storage, "c", 1, "c/gen-000002").ok());
  EXPECT_THAT(storage->list("c").value(), ElementsAre("gen-000002", "gen-000004"));
}

TEST(Generation, PruneKeepsTheNewestAndNothingHalfWritten) {
  auto storage = make_memory_storage();
  for (const char* name : {"c/gen-000001", "c/gen-000002", "c/gen-000004"}) {
    write_generation(*storage, name, 1);
  }
  ASSERT_TRUE(storage->make_directories("c/gen-000003").ok());
  auto torn = storage->create("c/gen-000003/t0-0").value();
  ASSERT_TRUE(torn->close().ok());
  ASSERT_TRUE(prune(*storage, "c", 2).ok());
  EXPECT_THAT(storage->list("c").value(), ElementsAre("gen-000002", "gen-000004"));
  ASSERT_TRUE(prune(*storage, "c", 2).ok());
  EXPECT_THAT(storage->list("c").value(), ElementsAre("gen-000002", "gen-000004"));
}

TEST(Generation, StateWidthsAreThoseOfTheOptimizers) {
  EXPECT_EQ(state_width(wire::Optimizer::SGD, 36), 0u);
  EXPECT_EQ(state_width(wire::Optimizer::ADAGRAD, 36), 36u);
  EXPECT_EQ(state_width(wire::Optimizer::ROWWISE_ADAGRAD, 36), 1u);
  EXPECT_EQ(state_width(wire::Optimizer::ADAM, 36), 72u);
  EXPECT_EQ(state_width(wire::Optimizer::ADAMW, 36), 72u);
  EXPECT_EQ(state_width(wire::Optimizer::FTRL, 36), 72u);
  EXPECT_EQ(state_width(wire::Optimizer::MOMENTUM, 36), 36u);
  EXPECT_EQ(state_width(wire::Optimizer::RMSPROP, 36), 36u);
}

TEST(Generation, StateOfOneOptimizerIsNotAnothersThatIsAsWide) {
  EXPECT_TRUE(is_state_of(wire::Optimizer::ROWWISE_ADAGRAD, "rowwise_adagrad"));
  EXPECT_TRUE(is_state_of(wire::Optimizer::ADAM, "adamw"));
  EXPECT_TRUE(is_state_of(wire::Optimizer::ADAMW, "adam"));
  EXPECT_FALSE(is_state_of(wire::Optimizer::MOMENTUM, "adagrad"));
  EXPECT_FALSE(is_state_of(wire::Optimizer::FTRL, "adam"));
}

}  // namespace
}  // namespace meander::checkpoint
