// SPDX-License-Identifier: Apache-2.0
#include "ps/client.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

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
  std::vector<Buffer> keys;              // by table
  std::vector<std::vector<Part>> parts;  // by lane and table
  std::vector<Buffer> rows;              // pull: as they arrive
  std::vector<Buffer> gradients;         // push
  std::vector<Buffer> narrowed;          // by lane and table: gradients as the wire carries them
  std::vector<Ask> asks;                 // by lane
  std::size_t open = 0;                  // asks without an answer
};

using BatchKey = std::tuple<bool, std::uint32_t, std::uint64_t>;  // read only, stream, seq
BatchKey key_of(const BatchId& id, bool is_read_only) { return {is_read_only, id.stream, id.seq}; }

}  // namespace

struct Client::Impl {
  Impl(net::Transport& t, ClientOptions o, Events e)
      : transport(t), options(std::move(o)), events(std::move(e)) {}

  net::Transport& transport;
  ClientOptions options;
  Events events;
  PartitionMap partitions;
  std::map<BatchKey, Batch> batches;
  std::map<std::uint64_t, std::pair<BatchKey, std::uint32_t>> asked;  // request -> batch, lane
  BufferPool row_memory;
  std::uint64_t last_request = 0;
  std::uint64_t retries = 0;

  std::uint32_t lanes() const { return partitions.lanes(); }

  // Where each lane's keys lie in each table: they are grouped by rising lane.
  std::vector<std::vector<Part>> split(const std::vector<Buffer>& keys) const {
    std::vector<std::vector<Part>> parts(lanes(), std::vector<Part>(keys.size()));
    for (std::size_t t = 0; t < keys.size(); ++t) {
      const auto table_keys = keys[t].as<std::uint64_t>();
      std::size_t begin = 0;
      for (std::uint32_t lane = 0; lane < lanes(); ++lane) {
        const auto end = std::partition_point(
            table_keys.begin() + begin, table_keys.end(),
            [&](std::uint64_t key) { return partitions.lane_of(key) <= lane; });
        parts[lane][t] = {begin, static_cast<std::size_t>(end - table_keys.begin())};
        begin = parts[lane][t].end;
      }
      CHECK_EQ(begin, table_keys.size());
    }
    return parts;
  }

  std::size_t row_bytes(std::size_t table) const { return options.widths[table] * sizeof(float); }
  static Buffer slice(const Buffer& buffer, Part part, std::size_t unit) {
    return buffer.slice(part.begin * unit, part.size() * unit);
  }

  bool is_narrow(std::size_t table) const { return options.format.of(table) != wire::F32; }
  // Floats of a lane's part of a table.
  std::size_t floats(const Batch& batch, std::uint32_t lane, std::size_t table) const {
    return batch.parts[lane][table].size() * options.widths[table];
  }

  template <class Body>
  void name_format(Body& body) const {
    body.set_precision(options.format.precision);
    body.set_narrow_tables(options.format.tables);
  }

  // Each lane's gradients of the narrow tables, where the wire can send them from; those that they
  // were made of go.
  void narrow_gradients(Batch& batch) {
    batch.narrowed.assign(lanes() * batch.keys.size(), Buffer());
    for (std::size_t t = 0; t < batch.keys.size(); ++t) {
      if (!is_narrow(t)) continue;
      const wire::Precision precision = options.format.of(t);
      for (std::uint32_t lane = 0; lane < lanes(); ++lane) {
        const Part part = batch.parts[lane][t];
        const std::size_t n = floats(batch, lane, t);
        Buffer& out = batch.narrowed[lane * batch.keys.size() + t];
        out = transport.allocate(net::lane_name(lane), n * bytes_of(precision));
        encode(batch.gradients[t].as<float>().data() + part.begin * options.widths[t], n, precision,
               out.data());
      }
      batch.gradients[t] = Buffer();
    }
  }

  // Asks every lane; forgets what was asked for this batch before.
  void ask_all(TimePoint now, Batch& batch) {
    forget_asks(batch);
    batch.asks.assign(lanes(), Ask{});
    batch.open = lanes();
    const BatchKey key = key_of(batch.id, batch.is_read_only);
    for (std::uint32_t lane = 0; lane < lanes(); ++lane) {
      Ask& ask = batch.asks[lane];
      ask.request = ++last_request;
      ask.patience = options.retry;
      asked.emplace(ask.request, std::pair(key, lane));
      send(now, batch, lane);
    }
  }

  void forget_asks(const Batch& batch) {
    for (const Ask& ask : batch.asks) asked.erase(ask.request);
  }

  void send(TimePoint now, Batch& batch, std::uint32_t lane) {
    Ask& ask = batch.asks[lane];
    ask.due = now + ask.patience;
    wire::Header header;
    header.set_cluster(options.cluster);
    header.set_request(ask.request);
    const auto name = [&](auto& body) {
      body.set_stream(batch.id.stream);
      body.set_epoch(batch.id.epoch);
      body.set_seq(batch.id.seq);
    };
    std::vector<Buffer> frames;
    for (std::size_t t = 0; t < batch.keys.size(); ++t) {
      const Part part = batch.parts[lane][t];
      if (!batch.is_pushing || ask.with_keys) {
        frames.push_back(slice(batch.keys[t], part, sizeof(std::uint64_t)));
      }
      if (!batch.is_pushing) continue;
      frames.push_back(is_narrow(t) ? batch.narrowed[lane * batch.keys.size() + t]
                                    : slice(batch.gradients[t], part, row_bytes(t)));
    }
    if (batch.is_pushing) {
      name(*header.mutable_push());
      header.mutable_push()->set_last(batch.is_last);
      header.mutable_push()->set_keys_included(ask.with_keys);
      name_format(*header.mutable_push());
    } else {
      name(*header.mutable_pull());
      header.mutable_pull()->set_read_only(batch.is_read_only);
      name_format(*header.mutable_pull());
    }
    transport.send(net::lane_name(lane), std::move(header), std::move(frames));
  }

  void erase(const BatchKey& key) {
    const auto at = batches.find(key);
    if (at == batches.end()) return;
    forget_asks(at->second);
    batches.erase(at);
  }

  void pull(TimePoint now, BatchId id, std::vector<Buffer> keys, bool is_read_only) {
    CHECK_GT(lanes(), 0u) << "set_lanes comes first";
    CHECK_EQ(keys.size(), options.widths.size());
    CHECK_LT(batches.size(), kInFlightMax);
    const BatchKey key = key_of(id, is_read_only);
    erase(key);
    Batch& batch = batches[key];
    batch.id = id;
    batch.is_read_only = is_read_only;
    batch.parts = split(keys);
    batch.keys = std::move(keys);
    batch.rows.resize(batch.keys.size());
    ask_all(now, batch);
  }

  void push(TimePoint now, BatchId id, std::vector<Buffer> gradients, bool is_last) {
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
    batch.gradients = std::move(gradients);
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
             rows + batch.parts[lane][t].begin * options.widths[t]);
    }
    return true;
  }

  void on_pulled(TimePoint now, Batch& batch, std::uint32_t lane, const net::Message& message) {
    const wire::Pulled& pulled = message.header.pulled();
    if (batch.is_pushing || pulled.stream() != batch.id.stream || pulled.seq() != batch.id.seq ||
        pulled.epoch() != batch.id.epoch || !take_rows(batch, lane, message.frames)) {
      return;
    }
    if (!finish_ask(batch, lane)) return;
    const BatchId id = batch.id;
    std::vector<Buffer> rows = std::move(batch.rows);
    if (batch.is_read_only) erase(key_of(id, true));
    events.pulled(now, id, std::move(rows));
  }

  void on_pushed(TimePoint now, Batch& batch, std::uint32_t lane, const net::Message& message) {
    const wire::Pushed& pushed = message.header.pushed();
    const BatchId id = batch.id;
    if (pushed.stream() != id.stream || pushed.seq() != id.seq || batch.is_read_only) return;
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
    asked.erase(ask.request);
    return --batch.open == 0;
  }

  void drop(std::uint32_t stream) {
    for (auto it = batches.begin(); it != batches.end();) {
      const bool is_of_stream = it->second.id.stream == stream;
      if (is_of_stream) forget_asks(it->second);
      it = is_of_stream ? batches.erase(it) : std::next(it);
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
  }
  return {};
}

const PartitionMap& Client::partitions() const { return impl_->partitions; }

void Client::pull(TimePoint now, BatchId batch, std::vector<Buffer> keys, bool read_only) {
  impl_->pull(now, batch, std::move(keys), read_only);
}
void Client::push(TimePoint now, BatchId batch, std::vector<Buffer> gradients, bool last) {
  impl_->push(now, batch, std::move(gradients), last);
}
void Client::drop(std::uint32_t stream) { impl_->drop(stream); }
void Client::release(BatchId batch) { impl_->erase(key_of(batch, true)); }

bool Client::on_message(TimePoint now, const net::Message& message) {
  const wire::Header& header = message.header;
  if (!header.has_pulled() && !header.has_pushed()) return false;
  const auto at = impl_->asked.find(header.request());
  if (at == impl_->asked.end() || header.cluster() != impl_->options.cluster) return true;
  const auto [key, lane] = at->second;
  if (message.peer != net::lane_name(lane)) return true;
  Batch& batch = impl_->batches.at(key);
  if (header.has_pulled()) {
    impl_->on_pulled(now, batch, lane, message);
  } else {
    impl_->on_pushed(now, batch, lane, message);
  }
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
