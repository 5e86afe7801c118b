// SPDX-License-Identifier: Apache-2.0
#include "ps/client.h"

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "common/planted_bug.h"
#include "ps/spare_nodes.h"

namespace meander::ps {
namespace {

constexpr std::size_t kInFlightMax = 4096;  // batches: far more than a worker's pipelines hold

// A question to one lane, asked until it is answered.
struct Ask {
  std::uint64_t request = 0;
  bool is_answered = false;
  bool with_keys = false;  // pushes: the lane has forgotten the pull
  TimePoint due = kNever;
  Duration patience{};
};

// A lane's part of a table's keys: [begin, end).
struct Part {
  std::size_t begin = 0, end = 0;
  std::size_t size() const { return end - begin; }
};

struct Batch {
  BatchId id;
  bool is_read_only = false;
  bool is_pushing = false;
  bool is_last = false;
  std::vector<Buffer> keys;       // by table
  std::vector<Part> parts;        // by lane and table
  std::vector<Buffer> rows;       // pull: as they arrive
  std::vector<Buffer> gradients;  // push
  std::vector<Buffer> narrowed;   // by lane and table: gradients as the wire carries them
  std::vector<Ask> asks;          // by lane
  std::size_t open = 0;           // asks without an answer

  std::size_t at(std::uint32_t lane, std::size_t table) const { return lane * keys.size() + table; }
  void clear() {
    is_pushing = is_last = false;
    for (auto* list : {&keys, &rows, &gradients, &narrowed}) list->clear();
  }
};

using BatchKey = std::tuple<bool, std::uint32_t, std::uint64_t>;  // read only, stream, seq
using Batches = std::map<BatchKey, Batch>;
BatchKey key_of(const BatchId& id, bool is_read_only) { return {is_read_only, id.stream, id.seq}; }

}  // namespace

struct Client::Impl {
  Impl(net::Transport& t, ClientOptions o, Events e)
      : transport(t), options(std::move(o)), events(std::move(e)) {}

  net::Transport& transport;
  ClientOptions options;
  Events events;
  PartitionMap partitions;
  std::vector<std::string> lane_names;
  Batches batches;
  SpareNodes<Batches> spare_batches;
  // Of the message being sent or passed on: their memory is used again.
  wire::Header pull_header, push_header;
  std::vector<Buffer> frames, pulled_rows;
  BufferPool row_memory;
  std::uint64_t last_request = 0;
  std::uint64_t retries = 0;

  std::uint32_t lanes() const { return partitions.lanes(); }

  // Where each lane's keys lie in each table: they are grouped by rising lane.
  void split(Batch& batch) const {
    batch.parts.resize(lanes() * batch.keys.size());
    for (std::size_t t = 0; t < batch.keys.size(); ++t) {
      const auto table_keys = batch.keys[t].as<std::uint64_t>();
      std::size_t begin = 0;
      for (std::uint32_t lane = 0; lane < lanes(); ++lane) {
        const auto end = std::partition_point(
            table_keys.begin() + begin, table_keys.end(),
            [&](std::uint64_t key) { return partitions.lane_of(key) <= lane; });
        const Part part{begin, static_cast<std::size_t>(end - table_keys.begin())};
        batch.parts[batch.at(lane, t)] = part;
        begin = part.end;
      }
      CHECK_EQ(begin, table_keys.size());
    }
  }

  std::size_t row_bytes(std::size_t table) const { return options.widths[table] * sizeof(float); }
  static Buffer slice(const Buffer& buffer, Part part, std::size_t unit) {
    return buffer.slice(part.begin * unit, part.size() * unit);
  }

  bool is_narrow(std::size_t table) const { return options.format.of(table) != wire::F32; }
  // Floats of a lane's part of a table.
  std::size_t floats(const Batch& batch, std::uint32_t lane, std::size_t table) const {
    return batch.parts[batch.at(lane, table)].size() * options.widths[table];
  }

  // Each lane's gradients of the narrow tables, where the wire can send them from; those that they
  // were made of go.
  void narrow_gradients(Batch& batch) {
    batch.narrowed.assign(batch.parts.size(), Buffer());
    for (std::size_t t = 0; t < batch.keys.size(); ++t) {
      if (!is_narrow(t)) continue;
      const wire::Precision precision = options.format.of(t);
      for (std::uint32_t lane = 0; lane < lanes(); ++lane) {
        const Part part = batch.parts[batch.at(lane, t)];
        const std::size_t n = floats(batch, lane, t);
        Buffer& out = batch.narrowed[batch.at(lane, t)];
        out = transport.allocate(lane_names[lane], n * bytes_of(precision));
        encode(batch.gradients[t].as<float>().data() + part.begin * options.widths[t], n, precision,
               out.data());
      }
      batch.gradients[t] = Buffer();
    }
  }

  // Asks every lane; forgets what was asked for this batch before.
  void ask_all(TimePoint now, Batch& batch) {
    batch.asks.assign(lanes(), Ask{});
    batch.open = lanes();
    for (std::uint32_t lane = 0; lane < lanes(); ++lane) {
      batch.asks[lane].request = ++last_request;
      batch.asks[lane].patience = options.retry;
      send(now, batch, lane);
    }
  }

  void send(TimePoint now, Batch& batch, std::uint32_t lane) {
    Ask& ask = batch.asks[lane];
    ask.due = now + ask.patience;
    list_frames(batch, lane);
    if (batch.is_pushing) {
      wire::Push& push = *push_header.mutable_push();
      push.set_last(batch.is_last);
      push.set_keys_included(ask.with_keys);
      send_frames(push_header, push, batch, lane);
    } else {
      wire::Pull& pull = *pull_header.mutable_pull();
      pull.set_read_only(batch.is_read_only);
      send_frames(pull_header, pull, batch, lane);
    }
  }

  void list_frames(const Batch& batch, std::uint32_t lane) {
    for (std::size_t t = 0; t < batch.keys.size(); ++t) {
      const Part part = batch.parts[batch.at(lane, t)];
      if (!batch.is_pushing || batch.asks[lane].with_keys) {
        frames.push_back(slice(batch.keys[t], part, sizeof(std::uint64_t)));
      }
      if (!batch.is_pushing) continue;
      frames.push_back(is_narrow(t) ? batch.narrowed[batch.at(lane, t)]
                                    : slice(batch.gradients[t], part, row_bytes(t)));
    }
  }

  template <class Body>
  void send_frames(wire::Header& header, Body& body, const Batch& batch, std::uint32_t lane) {
    header.set_cluster(options.cluster);
    header.set_request(batch.asks[lane].request);
    body.set_stream(batch.id.stream);
    body.set_epoch(batch.id.epoch);
    body.set_seq(batch.id.seq);
    body.set_precision(options.format.precision);
    body.set_narrow_tables(options.format.tables);
    transport.send(lane_names[lane], header, frames);
    frames.clear();
  }

  void erase(const BatchKey& key) {
    const auto at = batches.find(key);
    if (at != batches.end()) spare_batches.give(batches.extract(at));
  }

  void pull(TimePoint now, BatchId id, const std::vector<Buffer>& keys, bool is_read_only) {
    CHECK_GT(lanes(), 0u) << "set_lanes comes first";
    CHECK_EQ(keys.size(), options.widths.size());
    CHECK_LT(batches.size(), kInFlightMax);
    const BatchKey key = key_of(id, is_read_only);
    erase(key);
    Batch& batch = spare_batches.insert(batches, key)->second;
    batch.id = id;
    batch.is_read_only = is_read_only;
    batch.keys = keys;
    batch.rows.resize(keys.size());
    split(batch);
    ask_all(now, batch);
  }

  void push(TimePoint now, BatchId id, const std::vector<Buffer>& gradients, bool is_last) {
    const auto at = batches.find(key_of(id, false));
    CHECK(at != batches.end()) << "push of a batch that was not pulled, or was dropped";
    Batch& batch = at->second;
    CHECK_EQ(batch.id.epoch, id.epoch);
    CHECK_EQ(gradients.size(), batch.keys.size());
    for (std::size_t t = 0; t < gradients.size(); ++t) {
      CHECK_EQ(gradients[t].size(), batch.keys[t].size() / sizeof(std::uint64_t) * row_bytes(t));
    }
    batch.is_pushing = true;
    batch.is_last = is_last;
    batch.gradients = gradients;
    batch.rows.clear();
    narrow_gradients(batch);
    ask_all(now, batch);
  }

  // Takes a lane's rows to their places. False: they are not what was asked for.
  bool take_rows(Batch& batch, std::uint32_t lane, const std::vector<Buffer>& frames) {
    if (frames.size() != batch.keys.size()) return false;
    for (std::size_t t = 0; t < frames.size(); ++t) {
      const std::size_t value_bytes = bytes_of(options.format.of(t));
      if (frames[t].size() != floats(batch, lane, t) * value_bytes) return false;
      if (!frames[t].holds<float>() && value_bytes == sizeof(float)) return false;
    }
    for (std::size_t t = 0; t < frames.size(); ++t) {
      if (lanes() == 1 && !is_narrow(t)) {
        batch.rows[t] = frames[t];
        continue;
      }
      const std::size_t total = batch.keys[t].size() / sizeof(std::uint64_t) * row_bytes(t);
      if (batch.rows[t].empty()) batch.rows[t] = row_memory.take(total);
      float* const rows = batch.rows[t].as_mutable<float>().data();
      decode(frames[t].data(), floats(batch, lane, t), options.format.of(t),
             rows + batch.parts[batch.at(lane, t)].begin * options.widths[t]);
    }
    return true;
  }

  // The batch that still waits for this answer of a lane; null: none does.
  template <class Answer>
  Batch* find_asker(std::uint64_t request, std::uint32_t lane, const Answer& answer) {
    for (const bool is_read_only : {false, true}) {
      const auto at = batches.find({is_read_only, answer.stream(), answer.seq()});
      if (at == batches.end()) continue;
      const Ask& ask = at->second.asks[lane];
      if (ask.request == request && !ask.is_answered) return &at->second;
    }
    return nullptr;
  }

  void on_message(TimePoint now, const net::Message& message) {
    const wire::Header& header = message.header;
    const auto name = std::ranges::find(lane_names, message.peer);
    if (name == lane_names.end() || header.cluster() != options.cluster) return;
    const auto lane = static_cast<std::uint32_t>(name - lane_names.begin());
    if (header.has_pulled()) {
      Batch* const batch = find_asker(header.request(), lane, header.pulled());
      if (batch != nullptr) on_pulled(now, *batch, lane, message);
    } else {
      Batch* const batch = find_asker(header.request(), lane, header.pushed());
      if (batch != nullptr) on_pushed(now, *batch, lane, header.pushed());
    }
  }

  void on_pulled(TimePoint now, Batch& batch, std::uint32_t lane, const net::Message& message) {
    if (batch.is_pushing || message.header.pulled().epoch() != batch.id.epoch) return;
    if (!take_rows(batch, lane, message.frames) || !finish_ask(batch, lane)) return;
    const BatchId id = batch.id;
    pulled_rows.swap(batch.rows);
    if (batch.is_read_only) erase(key_of(id, true));
    events.pulled(now, id, pulled_rows);
    pulled_rows.clear();
  }

  void on_pushed(TimePoint now, Batch& batch, std::uint32_t lane, const wire::Pushed& pushed) {
    const BatchId id = batch.id;
    if (batch.is_read_only) return;
    // Of an older epoch: a late word to whoever held the stream, or to this name, before.
    if (pushed.epoch() < id.epoch) return;
    if (pushed.outcome() == wire::STALE_EPOCH) {
      if (pushed.epoch() == id.epoch) return;
      drop(id.stream);
      events.fenced(now, id.stream);
    } else if (batch.is_pushing && pushed.outcome() == wire::NEED_KEYS) {
      if (batch.asks[lane].with_keys) return;  // a late word about the first try
      batch.asks[lane].with_keys = true;
      send(now, batch, lane);
    } else if (batch.is_pushing && pushed.outcome() == wire::APPLIED) {
      if (!finish_ask(batch, lane)) return;
      erase(key_of(id, false));
      events.pushed(now, id);
    }
  }

  // True if it was the last answer that was missing.
  bool finish_ask(Batch& batch, std::uint32_t lane) {
    Ask& ask = batch.asks[lane];
    ask.is_answered = true;
    ask.due = kNever;
    --batch.open;
    return batch.open == 0 || (batch.is_pushing && is_planted(PlantedBug::kOneLaneAnswersForAll));
  }

  void drop(std::uint32_t stream) {
    for (auto it = batches.begin(); it != batches.end();) {
      const auto at = it++;
      if (at->second.id.stream == stream) spare_batches.give(batches.extract(at));
    }
  }

  void retry_due(TimePoint now) {
    for (auto& [key, batch] : batches) {
      for (std::uint32_t lane = 0; lane < batch.asks.size(); ++lane) {
        Ask& ask = batch.asks[lane];
        if (ask.is_answered || ask.due > now) continue;
        ask.patience = std::min(2 * ask.patience, options.retry_max);
        ++retries;
        send(now, batch, lane);
      }
    }
  }
};

Client::Client(net::Transport& transport, ClientOptions options, Events events)
    : impl_(std::make_unique<Impl>(transport, std::move(options), std::move(events))) {}
Client::~Client() = default;

Status Client::set_lanes(const std::vector<std::string>& endpoints) {
  if (endpoints.empty() || endpoints.size() > kPartitions) {
    return invalid(std::to_string(endpoints.size()) + " lanes: there may be 1 ... " +
                   std::to_string(kPartitions));
  }
  for (std::uint32_t lane = 0; lane < endpoints.size(); ++lane) {
    RETURN_IF_ERROR(impl_->transport.connect(net::lane_name(lane), endpoints[lane]));
  }
  if (impl_->lanes() != endpoints.size()) {
    CHECK(impl_->batches.empty()) << "lanes change while requests are under way";
    impl_->partitions = PartitionMap::even(static_cast<std::uint32_t>(endpoints.size()));
    impl_->lane_names.clear();
    for (std::uint32_t l = 0; l < endpoints.size(); ++l) {
      impl_->lane_names.push_back(net::lane_name(l));
    }
  }
  return {};
}

Status Client::relocate(TimePoint now, std::uint32_t lane, const std::string& endpoint) {
  CHECK_LT(lane, impl_->lanes());
  RETURN_IF_ERROR(impl_->transport.connect(impl_->lane_names[lane], endpoint));
  for (auto& [key, batch] : impl_->batches) {
    Ask& ask = batch.asks[lane];
    if (ask.is_answered) continue;
    ask.with_keys = batch.is_pushing;  // it knows nothing of the pull
    ask.patience = impl_->options.retry;
    impl_->send(now, batch, lane);
  }
  return {};
}

const PartitionMap& Client::partitions() const { return impl_->partitions; }

void Client::pull(TimePoint now, BatchId batch, const std::vector<Buffer>& keys, bool read_only) {
  impl_->pull(now, batch, keys, read_only);
}
void Client::push(TimePoint now, BatchId batch, const std::vector<Buffer>& gradients, bool last) {
  impl_->push(now, batch, gradients, last);
}
void Client::drop(std::uint32_t stream) { impl_->drop(stream); }
void Client::release(BatchId batch) { impl_->erase(key_of(batch, true)); }

bool Client::on_message(TimePoint now, const net::Message& message) {
  if (!message.header.has_pulled() && !message.header.has_pushed()) return false;
  impl_->on_message(now, message);
  return true;
}

void Client::on_timer(TimePoint now) { impl_->retry_due(now); }

TimePoint Client::next_timer() const {
  TimePoint next = kNever;
  for (const auto& [key, batch] : impl_->batches) {
    for (const Ask& ask : batch.asks) next = std::min(next, ask.due);
  }
  return next;
}

std::size_t Client::in_flight() const { return impl_->batches.size(); }
std::uint64_t Client::retries() const { return impl_->retries; }

}  // namespace meander::ps
