// SPDX-License-Identifier: Apache-2.0
#include "launch/progress.h"

#include <gtest/gtest.h>

#include <limits>

#include "launch/roles.h"
#include "launch/text.h"

namespace meander::launch {
namespace {

TEST(Text, NumbersReadWell) {
  EXPECT_EQ(grouped(7), "7");
  EXPECT_EQ(grouped(1000), "1,000");
  EXPECT_EQ(grouped(1000209), "1,000,209");
  EXPECT_EQ(fixed(0.85714, 4), "0.8571");
  EXPECT_EQ(fixed(std::numeric_limits<double>::quiet_NaN(), 4), "-");
  EXPECT_EQ(duration_text(4.2), "4.2 s");
  EXPECT_EQ(duration_text(200), "3 min 20 s");
  EXPECT_EQ(duration_text(7500), "2 h 5 min");
  EXPECT_EQ(bytes_text(100), "100 B");
  EXPECT_EQ(bytes_text(3 << 20), "3.0 MiB");
}

TEST(Progress, SaysWhatIsKnown) {
  Snapshot snapshot;
  snapshot.progress.phase = scheduler::Progress::kTraining;
  snapshot.progress.done = 0.432;
  snapshot.progress.batches = 10;
  snapshot.loss = 0.5312;
  snapshot.auc = 0.7712;
  EXPECT_EQ(progress_text(snapshot, 21340, 42),
            "43.2 %  21340 samples/s  loss 0.5312  auc 0.7712  eta 42.0 s");
  snapshot.progress.phase = scheduler::Progress::kCutting;
  snapshot.progress.lost_workers = 1;
  EXPECT_EQ(progress_text(snapshot, 0, 0),
            "43.2 %  writing a checkpoint  0 samples/s  loss 0.5312  auc 0.7712  workers lost 1");
  snapshot.progress.phase = scheduler::Progress::kJoining;
  EXPECT_EQ(progress_text(snapshot, 0, 0), "waiting for roles");
}

TEST(Roles, HostOfAnEndpointIsReplaced) {
  EXPECT_EQ(replace_host("tcp://0.0.0.0:5000", "ps-1.meander").value(), "tcp://ps-1.meander:5000");
  EXPECT_EQ(replace_host("inproc://x", "a").status().code(), Code::kInvalid);
}

}  // namespace
}  // namespace meander::launch
