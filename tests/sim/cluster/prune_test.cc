// SPDX-License-Identifier: Apache-2.0
// The machine may stop between any two operations of a prune, and lose what was not synced: every
// generation that is still complete by its name must be so in truth.
#include <gtest/gtest.h>

#include "checkpoint/generation.h"
#include "tests/sim/world/check.h"
#include "tests/sim/world/planted.h"
#include "tests/sim/world/sim_disk.h"

namespace meander::sim {
namespace {

Status write_generation(Storage& storage, std::uint64_t number) {
  const std::string dir = join_path("ckpt", checkpoint::generation_name(number));
  RETURN_IF_ERROR(storage.make_directories(dir));
  manifest::Manifest manifest;
  manifest.set_generation(number);
  std::uint64_t sum = 0;
  for (std::uint32_t t = 0; t < 3; ++t) {
    ASSIGN_OR_RETURN(auto writer, checkpoint::RowsWriter::create(
                                      storage, join_path(dir, "t" + std::to_string(t)), t, 1, {}));
    const float value = static_cast<float>(t);
    const checkpoint::Record record{.key = t, .step = 1, .count = 1, .values = {&value, 1}};
    sum += checkpoint::record_digest(t, record);
    RETURN_IF_ERROR(writer->add(record));
    ASSIGN_OR_RETURN(*manifest.add_files(), writer->finish());
    manifest::Table& table = *manifest.add_tables();
    table.set_width(1);
    table.set_rows(1);
  }
  manifest.set_digest(checkpoint::final_digest(sum, manifest));
  return checkpoint::write_manifest(storage, dir, manifest);
}

// In how many of all such deaths something was wrong; `first`: what, in the first.
int wrong_after_deaths(std::string& first) {
  int wrong = 0;
  for (std::uint64_t n = 1; n <= 40; ++n) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      SimDisk disk(seed);
      const auto storage = disk.open(0), dying = disk.open(0);
      for (std::uint64_t number = 1; number <= 3; ++number) {
        EXPECT_TRUE(write_generation(*storage, number).ok());
      }
      dying->die_in(n, [&] { disk.crash(0); });
      (void)checkpoint::prune(*dying, "ckpt", 1);
      const std::string what = check_all(*storage, "ckpt");
      if (what.empty()) continue;
      if (wrong++ == 0) first = what;
    }
  }
  return wrong;
}

TEST(Prune, InterruptedAnywhereLeavesWholeGenerationsOnly) {
  std::string first;
  EXPECT_EQ(wrong_after_deaths(first), 0) << first;
}

TEST(Prune, TheTestSeesAManifestThatOutlivesItsRows) {
  plant(PlantedBug::kRemovalNotSynced);
  std::string first;
  EXPECT_GT(wrong_after_deaths(first), 0);
  plant(PlantedBug::kNone);
}

}  // namespace
}  // namespace meander::sim
