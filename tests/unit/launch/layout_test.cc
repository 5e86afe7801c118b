// SPDX-License-Identifier: Apache-2.0
#include "launch/layout.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace meander::launch {
namespace {

LoadedJob job_of(std::uint32_t ps, std::uint32_t workers) {
  LoadedJob job;
  job.spec.mutable_cluster()->set_ps(ps);
  job.spec.mutable_cluster()->set_workers(workers);
  return job;
}

TEST(Layout, LanesAreDealtToEveryPsInOrder) {
  std::uint32_t next = 0;
  for (std::uint32_t i = 0; i < 3; ++i) {
    const LaneRange range = lanes_of(i, 3, 8);
    EXPECT_EQ(range.first, next);
    EXPECT_GT(range.end, range.first);
    next = range.end;
  }
  EXPECT_EQ(next, 8u);
}

TEST(Layout, APsBeyondTheJobsJoinsWithOneLane) {
  job::Cluster cluster;
  cluster.set_ps(2);
  cluster.set_lanes(6);
  EXPECT_EQ(lanes_of_ps(1, cluster).all(), std::vector<std::uint32_t>({3, 4, 5}));
  EXPECT_EQ(lanes_of_ps(2, cluster).all(), std::vector<std::uint32_t>({6}));
  EXPECT_EQ(lanes_of_ps(3, cluster).all(), std::vector<std::uint32_t>({7}));
  EXPECT_EQ(own_index(-1, "meander-ps-3.meander", 2, 100).value(), 3u);
}

TEST(Layout, IndexComesFromFlagThenJobIndexThenHostName) {
  unsetenv("JOB_COMPLETION_INDEX");
  EXPECT_EQ(own_index(2, "meander-ps-1.meander", 4).value(), 2u);
  EXPECT_EQ(own_index(-1, "meander-ps-1.meander", 4).value(), 1u);
  EXPECT_EQ(own_index(-1, "laptop", 1).value(), 0u);
  setenv("JOB_COMPLETION_INDEX", "3", 1);
  EXPECT_EQ(own_index(-1, "meander-ps-1", 4).value(), 3u);
  unsetenv("JOB_COMPLETION_INDEX");
}

TEST(Layout, IndexThatIsUnknownOrTooHighIsRefused) {
  EXPECT_EQ(own_index(-1, "laptop", 2).status().code(), Code::kInvalid);
  EXPECT_NE(own_index(4, "laptop", 4).status().message().find("--index says 4"), std::string::npos);
}

TEST(Layout, RanksFollowTheJobWhereItFits) {
  const RankLayout layout = rank_layout(job_of(2, 3), 6).value();
  EXPECT_EQ(layout.ps, 2u);
  EXPECT_EQ(layout.workers, 3u);
}

TEST(Layout, RanksAreSplitAnewWhereTheJobDoesNotFit) {
  const RankLayout layout = rank_layout(job_of(1, 1), 5).value();
  EXPECT_EQ(layout.ps, 2u);
  EXPECT_EQ(layout.workers, 2u);
}

TEST(Layout, WhatSetNamesIsKept) {
  LoadedJob job = job_of(1, 1);
  job.origins["cluster.ps"] = "--set";
  EXPECT_EQ(rank_layout(job, 5)->workers, 3u);
  job.origins["cluster.workers"] = "--set";
  EXPECT_EQ(rank_layout(job, 5).status().code(), Code::kInvalid);
  EXPECT_EQ(rank_layout(job, 2).status().code(), Code::kInvalid);
}

}  // namespace
}  // namespace meander::launch
