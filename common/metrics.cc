// SPDX-License-Identifier: Apache-2.0
#include "common/metrics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>

namespace meander {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int kZeroBin = ScoreSums::kBins / 2;  // the first bin of logits >= 0
constexpr float kBinsPerLogit = ScoreSums::kBins / (2 * ScoreSums::kLogitMax);
// No sum of counts that passed decode() can overflow.
constexpr std::uint64_t kCountMax = std::uint64_t{1} << 48;

// A power of two per logit: the product is exact, so no negative logit lands in the bin of zero.
int bin_of(float logit) {
  if (std::isnan(logit)) return kZeroBin;
  const float bin = std::floor(logit * kBinsPerLogit) + kZeroBin;
  return static_cast<int>(std::clamp(bin, 0.0f, static_cast<float>(ScoreSums::kBins - 1)));
}

// -log of the probability that the logit gives to what happened.
double log_loss_of(double logit, bool positive) {
  const double against = positive ? -logit : logit;
  return std::max(against, 0.0) + std::log1p(std::exp(-std::abs(against)));
}

// Integers as LEB128 (seven bits a byte, low first, high bit: more follow), doubles as 8 bytes.
class Writer {
 public:
  void integer(std::uint64_t v) {
    for (; v >= 0x80; v >>= 7) bytes_.push_back(static_cast<char>(v | 0x80));
    bytes_.push_back(static_cast<char>(v));
  }
  void real(double v) { bytes_.append(reinterpret_cast<const char*>(&v), sizeof v); }
  void block(const Buffer& b) {
    integer(b.size());
    bytes_.append(reinterpret_cast<const char*>(b.data()), b.size());
  }
  void ranks(const RankSums& sums) {
    const auto encoded = sums.encode();
    bytes_.append(encoded.data(), encoded.size());
  }
  Buffer finish() const { return Buffer::copy_of(bytes_.data(), bytes_.size()); }

 private:
  std::string bytes_;
};

// Reads what Writer wrote; a value that is not there, or is above its bound, makes it not ok().
class Reader {
 public:
  explicit Reader(const Buffer& bytes) : bytes_(bytes) {}
  std::uint64_t integer(std::uint64_t max) {
    std::uint64_t v = 0;
    for (int shift = 0; shift < 64 && at_ < bytes_.size(); shift += 7) {
      const auto byte = std::to_integer<std::uint64_t>(bytes_.data()[at_++]);
      v |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        ok_ = ok_ && v <= max && (shift < 63 || byte < 2);
        return ok_ ? v : 0;
      }
    }
    ok_ = false;
    return 0;
  }
  double real() {
    double v = 0;
    ok_ = ok_ && bytes_.size() - at_ >= sizeof v;
    if (!ok_) return 0;
    std::memcpy(&v, bytes_.data() + at_, sizeof v);
    at_ += sizeof v;
    return v;
  }
  Buffer block() {
    const std::uint64_t size = integer(bytes_.size() - at_);
    ok_ = ok_ && size <= bytes_.size() - at_;
    if (!ok_) return {};
    at_ += size;
    return bytes_.slice(at_ - size, size);
  }
  Result<RankSums> ranks() {
    const std::size_t size = std::min(RankSums::kBytes, bytes_.size() - at_);
    at_ += size;
    return RankSums::decode(reinterpret_cast<const char*>(bytes_.data()) + at_ - size, size);
  }
  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && at_ == bytes_.size(); }

 private:
  const Buffer& bytes_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

std::uint64_t sum_from(const std::vector<std::uint64_t>& counts, int first) {
  std::uint64_t sum = 0;
  for (std::size_t b = first; b < counts.size(); ++b) sum += counts[b];
  return sum;
}

}  // namespace

void ScoreSums::allocate() {
  if (!positive_.empty()) return;
  positive_.resize(kBins);
  negative_.resize(kBins);
}

void ScoreSums::add(float logit, bool positive) {
  allocate();
  const int bin = bin_of(logit);
  ++(positive ? positive_ : negative_)[bin];
  ++(positive ? positives_ : negatives_);
  log_loss_sum_ += log_loss_of(logit, positive);
}

void ScoreSums::merge(const ScoreSums& other) {
  if (other.samples() == 0) return;
  allocate();
  for (int b = 0; b < kBins; ++b) {
    positive_[b] += other.positive_[b];
    negative_[b] += other.negative_[b];
  }
  positives_ += other.positives_;
  negatives_ += other.negatives_;
  log_loss_sum_ += other.log_loss_sum_;
}

void ScoreSums::clear() {
  if (samples() == 0) return;
  std::fill(positive_.begin(), positive_.end(), 0);
  std::fill(negative_.begin(), negative_.end(), 0);
  positives_ = negatives_ = 0;
  log_loss_sum_ = 0;
}

double ScoreSums::auc() const {
  if (positives_ == 0 || negatives_ == 0) return kNaN;
  double pairs_won = 0, negatives_below = 0;
  for (int b = 0; b < kBins; ++b) {
    const auto negatives_here = static_cast<double>(negative_[b]);
    pairs_won += static_cast<double>(positive_[b]) * (negatives_below + 0.5 * negatives_here);
    negatives_below += negatives_here;
  }
  return pairs_won / (static_cast<double>(positives_) * static_cast<double>(negatives_));
}

double ScoreSums::log_loss() const {
  return samples() == 0 ? kNaN : log_loss_sum_ / static_cast<double>(samples());
}

double ScoreSums::accuracy() const {
  if (samples() == 0) return kNaN;
  const std::uint64_t hits = sum_from(positive_, kZeroBin);
  const std::uint64_t false_alarms = sum_from(negative_, kZeroBin);
  return static_cast<double>(hits + negatives_ - false_alarms) / static_cast<double>(samples());
}

double ScoreSums::f1() const {
  if (samples() == 0) return kNaN;
  const std::uint64_t hits = sum_from(positive_, kZeroBin);
  const std::uint64_t said_positive = hits + sum_from(negative_, kZeroBin);
  const std::uint64_t both = said_positive + positives_;  // 2 TP + FP + FN
  return both == 0 ? 0.0 : 2.0 * static_cast<double>(hits) / static_cast<double>(both);
}

double ScoreSums::precision() const {
  const std::uint64_t hits = sum_from(positive_, kZeroBin);
  const std::uint64_t said_positive = hits + sum_from(negative_, kZeroBin);
  return said_positive == 0 ? kNaN : static_cast<double>(hits) / static_cast<double>(said_positive);
}

double ScoreSums::recall() const {
  if (positives_ == 0) return kNaN;
  return static_cast<double>(sum_from(positive_, kZeroBin)) / static_cast<double>(positives_);
}

double ScoreSums::calibration() const {
  if (positives_ == 0) return kNaN;
  double predicted = 0;
  for (int b = 0; b < kBins; ++b) {
    const double logit = (b - kZeroBin + 0.5) / kBinsPerLogit;
    predicted += static_cast<double>(positive_[b] + negative_[b]) / (1 + std::exp(-logit));
  }
  return predicted / static_cast<double>(positives_);
}

// loss sum (f64), number of entries, then for each bin in use: its distance from the one before
// (the first: from -1), positives, negatives.
Buffer ScoreSums::encode() const {
  Writer out;
  out.real(log_loss_sum_);
  std::uint64_t entries = 0;
  for (std::size_t b = 0; b < positive_.size(); ++b) entries += (positive_[b] | negative_[b]) != 0;
  out.integer(entries);
  int last = -1;
  for (int b = 0; b < static_cast<int>(positive_.size()); ++b) {
    if ((positive_[b] | negative_[b]) == 0) continue;
    out.integer(static_cast<std::uint64_t>(b - last));
    out.integer(positive_[b]);
    out.integer(negative_[b]);
    last = b;
  }
  return out.finish();
}

Result<ScoreSums> ScoreSums::decode(const Buffer& bytes) {
  ScoreSums sums;
  Reader in(bytes);
  sums.log_loss_sum_ = in.real();
  const std::uint64_t entries = in.integer(kBins);
  if (in.ok() && entries > 0) sums.allocate();
  std::int64_t bin = -1;
  for (std::uint64_t i = 0; i < entries && in.ok(); ++i) {
    const std::uint64_t distance = in.integer(kBins);
    const std::uint64_t positive = in.integer(kCountMax), negative = in.integer(kCountMax);
    bin += static_cast<std::int64_t>(distance);
    if (!in.ok() || distance == 0 || bin >= kBins) return corrupt("score sums: bad bin");
    sums.positive_[bin] = positive;
    sums.negative_[bin] = negative;
    sums.positives_ += positive;
    sums.negatives_ += negative;
  }
  if (!in.at_end()) return corrupt("score sums: wrong length");
  if (sums.positives_ > kCountMax || sums.negatives_ > kCountMax) {
    return corrupt("score sums: counts out of range");
  }
  return sums;
}

const char* segment_name(Segment segment) {
  constexpr std::array<const char*, kSegments> kNames = {
      "cold", "warm", "history_0_4", "history_5_19", "history_20_49", "history_50_up"};
  return kNames[static_cast<std::size_t>(segment)];
}

Segment segment_of_history(std::uint32_t length) {
  if (length < 5) return Segment::kUpTo4;
  if (length < 20) return Segment::kUpTo19;
  return length < 50 ? Segment::kUpTo49 : Segment::kFrom50;
}

void Accumulator::merge(const Accumulator& other) {
  samples += other.samples;
  batches += other.batches;
  loss_sum += other.loss_sum;
  head.merge(other.head);
  tail.merge(other.tail);
  second_head.merge(other.second_head);
  second_tail.merge(other.second_tail);
  for (std::size_t i = 0; i < kCurve; ++i) {
    curve[i].targets += other.curve[i].targets;
    curve[i].group_auc += other.curve[i].group_auc;
  }
  ranks.merge(other.ranks);
  for (std::size_t s = 0; s < kSegments; ++s) {
    segments[s].scores.merge(other.segments[s].scores);
    segments[s].ranks.merge(other.segments[s].ranks);
  }
}

void Accumulator::clear() {
  samples = batches = 0;
  loss_sum = 0;
  head.clear();
  tail.clear();
  second_head.clear();
  second_tail.clear();
  curve = {};
  ranks = {};
  for (Part& part : segments) {
    part.scores.clear();
    part.ranks = {};
  }
}

// samples, batches, loss sum (f64), then head and tail with their lengths before them; the points
// of the curve that are not empty, their number before them; then, where there are targets with
// ranks or there is a second task, those of all and of each segment, with the segment's scores;
// then head and tail of the second task, if there is one. What was written before there were curves
// ends with the tail.
Buffer Accumulator::encode() const {
  Writer out;
  out.integer(samples);
  out.integer(batches);
  out.real(loss_sum);
  out.block(head.encode());
  out.block(tail.encode());
  out.integer(static_cast<std::uint64_t>(
      std::ranges::count_if(curve, [](const Point& point) { return point.targets > 0; })));
  for (std::size_t i = 0; i < kCurve; ++i) {
    if (curve[i].targets == 0) continue;
    out.integer(i);
    out.integer(curve[i].targets);
    out.real(curve[i].group_auc);
  }
  const bool has_second = second_head.samples() + second_tail.samples() > 0;
  if (ranks.targets() == 0 && !has_second) return out.finish();
  out.ranks(ranks);
  for (const Part& part : segments) {
    out.ranks(part.ranks);
    out.block(part.scores.encode());
  }
  if (has_second) {
    out.block(second_head.encode());
    out.block(second_tail.encode());
  }
  return out.finish();
}

namespace {

Status decode_ranks(Reader& in, Accumulator& sums) {
  ASSIGN_OR_RETURN(sums.ranks, in.ranks());
  for (Accumulator::Part& part : sums.segments) {
    ASSIGN_OR_RETURN(part.ranks, in.ranks());
    ASSIGN_OR_RETURN(part.scores, ScoreSums::decode(in.block()));
  }
  return {};
}

}  // namespace

Result<Accumulator> Accumulator::decode(const Buffer& bytes) {
  Accumulator sums;
  Reader in(bytes);
  sums.samples = in.integer(kCountMax);
  sums.batches = in.integer(kCountMax);
  sums.loss_sum = in.real();
  const Buffer head = in.block(), tail = in.block();
  if (!in.at_end()) {
    const std::uint64_t points = in.integer(kCurve);
    for (std::uint64_t i = 0; i < points && in.ok(); ++i) {
      Point& point = sums.curve[in.integer(kCurve - 1)];
      point.targets = in.integer(kCountMax);
      point.group_auc = in.real();
    }
  }
  if (in.ok() && !in.at_end()) RETURN_IF_ERROR(decode_ranks(in, sums));
  if (in.ok() && !in.at_end()) {
    ASSIGN_OR_RETURN(sums.second_head, ScoreSums::decode(in.block()));
    ASSIGN_OR_RETURN(sums.second_tail, ScoreSums::decode(in.block()));
  }
  if (!in.at_end()) return corrupt("metrics: wrong length");
  ASSIGN_OR_RETURN(sums.head, ScoreSums::decode(head));
  ASSIGN_OR_RETURN(sums.tail, ScoreSums::decode(tail));
  return sums;
}

}  // namespace meander
