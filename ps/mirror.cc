// SPDX-License-Identifier: Apache-2.0
#include "ps/mirror.h"

#include <utility>

#include "common/planted_bug.h"

namespace meander::ps {

void MirrorSender::on_taken(TimePoint now, std::uint64_t number) {
  const std::uint64_t before = last_ - open_.size();
  if (number <= before || number > last_) return;
  for (std::uint64_t i = before; i < number; ++i) {
    const std::function<void()> taken = std::move(open_.front().taken);
    open_.pop_front();
    if (taken) taken();
  }
  due_ = now + kRetry;
}

void MirrorSender::on_timer(TimePoint now) {
  if (open_.empty() || now < due_) return;
  due_ = now + kRetry;
  for (const Open& open : open_) transport_.send(peer_, open.header, open.frames);
}

void Copying::begin_round() {
  now_.clear();
  for (const auto& table : tables_) now_.push_back(table->step());
  round_bytes_ = 0;
  if (is_ordered_ && is_planted(PlantedBug::kLastRoundSkipped)) from_ = now_;
  is_last_ = is_ordered_ || (is_near_ && last_ == Last::kAtOnce);
  reader_ = std::make_unique<CutReader>(tables_, from_);
}

void Copying::end_round() {
  reader_.reset();
  from_ = now_;
  ++rounds_;
  is_over_ = is_last_;
  is_near_ = is_near_ || round_bytes_ <= kLastRoundBytes || rounds_ >= kRoundsMax;
  is_resting_ = is_near_ && last_ == Last::kOnOrder && !is_ordered_;
}

bool Copying::next(CutReader::Piece& piece) {
  while (!is_over_ && !is_resting_) {
    if (reader_ == nullptr) begin_round();
    if (reader_->next(piece)) {
      round_bytes_ += piece.records.bytes();
      return true;
    }
    end_round();
  }
  return false;
}

void MirrorReceiver::receive(std::uint64_t copy, std::uint64_t number, const net::Message& message,
                             const std::function<void(const net::Message&)>& take) {
  if (copy < copy_) return;
  if (copy > copy_) {
    copy_ = copy;
    taken_ = 0;
    early_.clear();
  }
  if (number <= taken_) return;
  if (number != taken_ + 1) {
    if (early_.size() < kEarlyMax) early_.emplace(number, message);
    return;
  }
  ++taken_;
  take(message);
  for (auto next = early_.begin(); next != early_.end() && next->first <= taken_ + 1;
       next = early_.begin()) {
    const auto node = early_.extract(next);
    if (node.key() != taken_ + 1) continue;
    ++taken_;
    take(node.mapped());
  }
}

}  // namespace meander::ps
