// SPDX-License-Identifier: Apache-2.0
#include "launch/prepare.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <thread>
#include <vector>

#include "data/generate.h"
#include "launch/folder_lock.h"

namespace meander::launch {
namespace {

class PrepareAtOnce : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("meander-prepare-test-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    const auto storage = make_posix_storage();
    data::GenerateOptions log;
    log.out = path("log");
    log.users = 40;
    log.items = 60;
    log.events = 1000;
    ASSERT_TRUE(data::generate(*storage, log).ok());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::filesystem::path folder_;
};

TEST_F(PrepareAtOnce, OneWritesTheLogAndTheOthersWaitForIt) {
  PrepareFlags flags;
  flags.format = "csv";
  flags.in = {path("log/events.csv")};
  flags.schema = path("log/schema.yaml");
  flags.out = path("many/prepared/");
  std::vector<Status> ends(6);
  std::vector<std::thread> programs;
  for (Status& end : ends) {
    programs.emplace_back([&] {
      Context context;
      context.storage = make_posix_storage();
      context.quiet = true;
      end = prepare_if_missing(context, flags);
    });
  }
  for (std::thread& program : programs) program.join();
  for (const Status& end : ends) EXPECT_TRUE(end.ok()) << end.message();
  EXPECT_TRUE(std::filesystem::exists(path("many/prepared/log.json")));
  EXPECT_FALSE(std::filesystem::exists(path("many/prepared.tmp")));
}

TEST_F(PrepareAtOnce, ALockIsHeldByOneAndPatienceEnds) {
  int waits = 0;
  const auto count = [&] { ++waits; };
  auto first = FolderLock::take(path("log"), count);
  ASSERT_TRUE(first.ok());
  const auto second = FolderLock::take(path("log"), count, std::chrono::milliseconds(60));
  EXPECT_EQ(second.status().code(), Code::kUnavailable);
  EXPECT_EQ(waits, 1);
  {
    const FolderLock gone = std::move(first).value();
  }
  EXPECT_TRUE(FolderLock::take(path("log"), count).ok());
  EXPECT_FALSE(FolderLock::take(path("nowhere"), count).ok());
}

}  // namespace
}  // namespace meander::launch
