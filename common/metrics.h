// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "common/buffer.h"
#include "common/ranking.h"
#include "common/status.h"

namespace meander {

// Sums from which loss and AUC of any set of scored samples follow. Two can be merged, so each
// worker keeps its own and the scheduler adds them up; memory does not grow with the samples.
//
// AUC: logits fall in kBins bins, equal in [-kLogitMax, kLogitMax] with the ends open; ties inside
// a bin count half. With bins 0.001 apart the error against the exact AUC is below 1e-5. A logit
// that is NaN counts as 0 there, and makes the log loss NaN.
class ScoreSums {
 public:
  static constexpr int kBins = 32768;
  static constexpr float kLogitMax = 16.0f;

  void add(float logit, bool positive);
  void merge(const ScoreSums& other);
  void clear();

  std::uint64_t samples() const { return positives_ + negatives_; }
  std::uint64_t positives() const { return positives_; }
  double auc() const;        // NaN while one class is missing
  double log_loss() const;   // mean, natural logarithm
  double accuracy() const;   // at 0.5; NaN without samples
  double precision() const;  // at 0.5; NaN while nothing is said to be positive
  double recall() const;     // at 0.5; NaN without positives
  // Mean predicted probability over the share of positives: 1 when calibrated. By the middles of
  // the bins; NaN without positives.
  double calibration() const;
  double f1() const;  // at 0.5; 0 when nothing is and nothing is said to be positive

  // Grows with the bins in use: some 4 bytes for each.
  Buffer encode() const;
  static Result<ScoreSums> decode(const Buffer& bytes);  // kCorrupt

 private:
  void allocate();

  std::vector<std::uint64_t> positive_, negative_;  // by bin; empty until the first add
  std::uint64_t positives_ = 0, negatives_ = 0;
  double log_loss_sum_ = 0;
};

// Targets that are alike, scored apart.
enum class Segment { kCold, kWarm, kUpTo4, kUpTo19, kUpTo49, kFrom50 };
constexpr std::size_t kSegments = 6;
// "cold": the target's item is not in the training part; "warm"; "history_0_4" and so on.
const char* segment_name(Segment segment);
Segment segment_of_history(std::uint32_t length);

// What a worker reports: scores of the part of the pass before kTailFrom, and of the last fifth
// (the progressive figures: each sample is scored before it is learned from).
struct Accumulator {
  static constexpr double kTailFrom = 0.8;
  std::uint64_t samples = 0;
  std::uint64_t batches = 0;
  double loss_sum = 0;  // of the batches' losses
  ScoreSums head, tail;
  ScoreSums second_head, second_tail;  // of a second task
  // Of the pass in equal pieces: the mean share of a target's negatives that scored below it, equal
  // ones by half. Where each target has one negative, their mean is about the AUC.
  static constexpr std::size_t kCurve = 100;
  struct Point {
    std::uint64_t targets = 0;
    double group_auc = 0;  // sum
  };
  std::array<Point, kCurve> curve{};
  RankSums ranks;  // of held-out targets; those of the segments and their scores, too
  struct Part {
    ScoreSums scores;
    RankSums ranks;
  };
  std::array<Part, kSegments> segments;

  void merge(const Accumulator& other);
  void clear();
  Buffer encode() const;
  static Result<Accumulator> decode(const Buffer& bytes);  // kCorrupt
};

}  // namespace meander
