// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace meander {

// Bugs of the protocol that the simulator plants, to show that it would find them
// (docs/simulation.md). Only there: in every other program is_planted() is a constant.
enum class PlantedBug {
  kNone,
  kRepeatApplied,            // a lane applies a push that it has applied before
  kFenceIgnored,             // a lane takes pushes of an older epoch
  kEpochsStartAgain,         // after a roll-back epochs are those from before
  kRepeatReadsNewRows,       // a successor that repeats a batch computes from other rows
  kOneLaneAnswersForAll,     // a worker forgets a push when the first lane has applied it
  kFlipBeforeDrained,        // lanes take a cut while pushes are under way
  kReleaseBeforeAllFlipped,  // workers go on when the first lane has taken the cut
  kCopySkipped,              // a row changes while the cut still needs it
  kDeltaOffByOne,            // a delta leaves out what the first step after its base touched
  kMetricsSurviveRollBack,   // what was rolled back stays counted
  kHeartbeatCountedTwice,    // metrics of a heartbeat that was repeated
  kPruneForgetsBase,         // what a kept delta stands on is removed
  kRowsNotSynced,            // a manifest is written before its rows are durable
  kRestoredNotSynced,        // a run goes on from a generation that is not durable
  kRemovalNotSynced,         // rows of a generation go before its manifest has gone for good
  kFileNotSynced,            // of the storage: close() without fsync
  kDirectoryNotSynced,       // of the storage: rename() without a directory's fsync
  kLastRoundSkipped,         // other lanes: what was touched since the last round but one is lost
  kMovedBeforeDrained,       // other lanes take over while pushes are under way
  kEnd,
};

#ifdef MEANDER_PLANTED_BUGS
bool is_planted(PlantedBug bug);
#else
constexpr bool is_planted(PlantedBug) { return false; }
#endif

}  // namespace meander
