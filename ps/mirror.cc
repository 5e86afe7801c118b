// SPDX-License-Identifier: Apache-2.0
#include "ps/mirror.h"

#include <utility>

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
  reader_ = std::make_unique<CutReader>(tables_, from_);
  round_bytes_ = 0;
}

void Copying::end_round() {
  reader_.reset();
  from_ = now_;
  ++rounds_;
  is_over_ = is_last_;
  is_last_ = round_bytes_ <= kLastRoundBytes || rounds_ >= kRoundsMax;
}

void Copying::send_some(TimePoint now, MirrorSender& sender) {
  while (!is_over_ && !sender.is_full()) {
    if (reader_ == nullptr) begin_round();
    CutReader::Piece piece;
    if (!reader_->next(piece)) {
      end_round();
      continue;
    }
    if (piece.records.empty()) continue;
    round_bytes_ += piece.records.bytes();
    wire::Header header;
    wire::Rows& rows = *header.mutable_rows();
    rows.set_table(piece.table);
    sender.send(now, std::move(header), rows, {piece.records.release()});
  }
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
