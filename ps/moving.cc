// SPDX-License-Identifier: Apache-2.0
#include "ps/moving.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace meander::ps {
namespace {

// Does a lane of `lanes` hold partitions of a lane of `others`?
bool overlap(std::uint32_t lane, std::uint32_t lanes, std::uint32_t other, std::uint32_t others) {
  const PartitionRange a = lane_partitions(lane, lanes), b = lane_partitions(other, others);
  return a.first <= b.last && b.first <= a.last;
}

bool are_same(const wire::Mirror& a, const wire::Mirror& b) {
  return std::ranges::equal(a.table_steps(), b.table_steps()) &&
         std::ranges::equal(a.applied(), b.applied(), [](const auto& x, const auto& y) {
           return x.stream() == y.stream() && x.next() == y.next() && x.ended() == y.ended();
         });
}

}  // namespace

Moving::Moving(net::Transport& transport, const wire::Move& order, std::uint64_t cluster,
               std::uint32_t lane, Shard* here)
    : transport_(transport),
      cluster_(cluster),
      setup_(order.next().setup()),
      number_(order.move()),
      lane_(lane),
      lanes_after_(order.next().lanes()),
      here_(here) {
  if (lane < lanes_after_) {
    next_ = std::make_unique<Shard>(order.next(), lane);
    for (std::uint32_t source = 0; source < order.lanes(); ++source) {
      if (overlap(source, order.lanes(), lane, lanes_after_)) sources_[source];
    }
  }
  if (here_ == nullptr) return;
  copying_ = std::make_unique<Copying>(here_->tables, Copying::Last::kOnOrder);
  after_ = PartitionMap::even(lanes_after_);
  parts_.resize(lanes_after_);
}

Status Moving::connect(const wire::Move& order) {
  if (here_ == nullptr) return {};
  for (std::uint32_t to = 0; to < lanes_after_; ++to) {
    if (to == lane_ || !overlap(lane_, here_->setup.lanes(), to, lanes_after_)) continue;
    const std::string peer = net::lane_name(to);
    RETURN_IF_ERROR(transport_.connect(peer, order.endpoints(static_cast<int>(to))));
    senders_[to] = std::make_unique<MirrorSender>(transport_, peer, cluster_, setup_, number_);
  }
  return {};
}

wire::MoveStage Moving::stage() const {
  if (copying_ == nullptr) return wire::ALL;
  const bool are_taken =
      std::ranges::all_of(senders_, [](const auto& entry) { return entry.second->open() == 0; });
  if (!are_taken) return wire::MOVING;
  return are_positions_sent_ ? wire::ALL : copying_->is_near() ? wire::NEAR : wire::MOVING;
}

void Moving::on_order(const wire::Move& order) {
  if (copying_ == nullptr) return;
  order.finish() ? copying_->order_last() : copying_->again();
}

bool Moving::has_room() const {
  return std::ranges::all_of(
      senders_, [](const auto& entry) { return entry.second->open() < Copying::kOpenMax; });
}

void Moving::send_some(TimePoint now) {
  goes_on_ = false;
  if (copying_ == nullptr || are_positions_sent_ || !has_room()) return;
  CutReader::Piece piece;
  if (copying_->next(piece)) {
    send_piece(now, piece);
    goes_on_ = has_room();
  } else if (copying_->is_over()) {
    send_positions(now);
  }
}

// Each record to who will own it.
void Moving::send_piece(TimePoint now, CutReader::Piece& piece) {
  const Status split = piece.records.visit([&](const checkpoint::Record& record) {
    parts_[after_.lane_of(record.key)].add(record);
    return Status();
  });
  CHECK(split.ok()) << split.message();
  for (std::uint32_t to = 0; to < lanes_after_; ++to) {
    if (parts_[to].empty()) continue;
    std::vector<Buffer> frames = {parts_[to].release()};
    if (to == lane_) {
      const Status taken = next_->take_rows(piece.table, frames);
      CHECK(taken.ok()) << taken.message();
      continue;
    }
    wire::Header header;
    wire::Rows& rows = *header.mutable_rows();
    rows.set_table(piece.table);
    senders_.at(to)->send(now, std::move(header), rows, std::move(frames));
  }
}

void Moving::send_positions(TimePoint now) {
  are_positions_sent_ = true;
  wire::Mirror here;
  here_->add_positions(here);
  if (next_ != nullptr && sources_.contains(lane_)) is_broken_ |= !take_positions(lane_, here).ok();
  for (const auto& [to, sender] : senders_) {
    wire::Header header;
    wire::Mirror& body = *header.mutable_mirror();
    body = here;
    sender->send(now, std::move(header), body, {});
  }
}

bool Moving::receive(const net::Message& message, wire::Header& answer) {
  const wire::Header& header = message.header;
  const auto pass_on = [&](const auto& body) {
    if (body.setup() != setup_ || body.copy() != number_) return false;
    const auto source = std::ranges::find_if(
        sources_, [&](const auto& entry) { return net::lane_name(entry.first) == message.peer; });
    if (source == sources_.end()) return false;
    MirrorReceiver& receiver = source->second.receiver;
    receiver.receive(number_, body.number(), message,
                     [&](const net::Message& m) { take(source->first, m); });
    wire::Replicated& reply = *answer.mutable_replicated();
    reply.set_setup(setup_);
    reply.set_copy(number_);
    reply.set_number(receiver.taken());
    return true;
  };
  if (header.has_rows()) return pass_on(header.rows());
  return header.has_mirror() && pass_on(header.mirror());
}

// What cannot be makes this move useless, and nothing else.
void Moving::take(std::uint32_t source, const net::Message& message) {
  const wire::Header& header = message.header;
  const Status taken = header.has_rows() ? next_->take_rows(header.rows().table(), message.frames)
                                         : take_positions(source, header.mirror());
  LOG_IF(WARNING, !taken.ok()) << "from " << message.peer << ": " << taken.message();
  is_broken_ |= !taken.ok();
}

Status Moving::take_positions(std::uint32_t source, const wire::Mirror& mirror) {
  sources_.at(source).is_done = true;
  if (has_positions_) {
    return are_same(positions_, mirror) ? Status() : invalid("lanes stand at different places");
  }
  has_positions_ = true;
  positions_ = mirror;
  return next_->take_positions(mirror);
}

bool Moving::on_taken(TimePoint now, const std::string& peer, const wire::Replicated& body) {
  if (body.setup() != setup_ || body.copy() != number_) return false;
  for (const auto& [to, sender] : senders_) {
    if (sender->peer() == peer) sender->on_taken(now, body.number());
  }
  return true;
}

bool Moving::is_whole() const {
  return next_ != nullptr && !is_broken_ &&
         std::ranges::all_of(sources_, [](const auto& entry) { return entry.second.is_done; });
}

void Moving::on_timer(TimePoint now) {
  for (const auto& [to, sender] : senders_) sender->on_timer(now);
}

TimePoint Moving::next_timer() const {
  if (goes_on_) return TimePoint{};
  TimePoint next = kNever;
  for (const auto& [to, sender] : senders_) next = std::min(next, sender->next_timer());
  return next;
}

}  // namespace meander::ps
