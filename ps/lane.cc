// SPDX-License-Identifier: Apache-2.0
#include "ps/lane.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "common/partition.h"
#include "common/planted_bug.h"
#include "ps/mirror.h"
#include "ps/moving.h"
#include "ps/shard.h"

namespace meander::ps {
namespace {

template <class Request>
WireFormat format_of(const Request& request) {
  return {request.precision(), request.narrow_tables()};
}

bool are_empty(const std::vector<Buffer>& frames) {
  return std::ranges::all_of(frames, [](const Buffer& frame) { return frame.empty(); });
}

bool same_bytes(const std::vector<Buffer>& a, const std::vector<Buffer>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Buffer& x, const Buffer& y) {
    return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size()) == 0);
  });
}

// A generation on its way to storage. Its task has piece, writer, saved and status while is_busy.
struct Writing {
  Writing(Shard& shard, Storage& storage, const wire::Save& save, wire::Saved result,
          const LaneOptions& options, TimePoint now)
      : begun(now),
        reader(shard.tables, {save.base_steps().data(), std::size_t(save.base_steps_size())}),
        writer(storage, save.dir(), shard.range, shard.tables, options.cluster),
        saved(std::move(result)) {
    std::size_t bytes = 0;
    for (const auto& table : shard.tables) bytes += table->bytes();
    copies_max += bytes / kCopiesShare;
    bytes_per_s = std::max(options.write_bytes_per_s, static_cast<double>(bytes) / kPacedSeconds);
  }
  // When the next piece is to be taken, so that training keeps the processor and the disk; memory
  // for copies matters more.
  TimePoint due() const {
    const bool is_pressed = reader.bytes() > copies_max / 2;
    if (is_pressed || written <= kUnpacedBytes) return begun;
    return begun + from_seconds(static_cast<double>(written - kUnpacedBytes) / bytes_per_s);
  }

  static constexpr std::size_t kCopiesShare = 16;
  static constexpr std::size_t kUnpacedBytes = std::size_t{16} << 20;
  static constexpr double kPacedSeconds = 60;  // so a large table is written faster
  const TimePoint begun;
  double bytes_per_s;
  std::size_t written = 0;  // bytes of pieces
  std::size_t copies_max = std::size_t{4} << 20;
  CutReader reader;
  SnapshotWriter writer;
  CutReader::Piece piece, next;
  bool has_next = false, is_busy = false;
  wire::Saved saved;
  Status status;
};

}  // namespace

struct Lane::Impl {
  // Without a push for so long, nobody trains.
  static constexpr Duration kTrainingPause = std::chrono::seconds(1);

  Impl(LaneOptions o, net::Transport& t, Storage& s, Executor& e)
      : options(std::move(o)), transport(t), storage(s), executor(e) {
    if (options.name.empty()) options.name = net::lane_name(options.index);
  }

  LaneOptions options;
  net::Transport& transport;
  Storage& storage;
  Executor& executor;

  TimePoint now{};
  bool has_started = false;
  std::uint64_t term = 0;                  // the scheduler's
  TimePoint last_heard{};                  // from the scheduler
  TimePoint next_word = TimePoint::min();  // when to say Hello, LaneReady or Failure again
  using SetupId = std::pair<std::uint64_t, std::uint64_t>;  // set-up and turn: rise
  std::optional<SetupId> last_setup;                        // the newest that was begun
  std::unique_ptr<Shard> shard;                             // null: not set up
  std::optional<net::Message> next_setup;                   // arrived while a shard was loading
  bool is_loading = false;   // a task fills the shard: nobody else looks at it
  bool is_expected = false;  // the scheduler has shown that it knows that this lane is ready
  std::optional<Status> failure;
  std::optional<wire::Saved> saved;  // the last generation that was written, or failed
  std::uint64_t save_request = 0;
  std::uint64_t begun_generation = 0;
  TimePoint last_push{};                 // when one was applied
  std::shared_ptr<Writing> writing;      // null: no generation is on its way to storage
  std::unique_ptr<MirrorSender> mirror;  // to the backup; null: there is none
  std::unique_ptr<Copying> copying;      // null: it is in step, or there is none
  bool is_in_step = false;               // the backup has all that is acknowledged
  std::unique_ptr<Moving> moving;        // null: the lanes stay as they are
  std::uint64_t last_move = 0;           // the newest that was heard of
  wire::MoveStage told_stage = wire::MOVING;
  std::set<std::pair<std::uint32_t, std::uint64_t>> unmirrored;  // applied: (stream, seq)
  std::vector<std::pair<std::uint32_t, std::uint64_t>> waiting;  // pulls (stream, seq), by arrival
  // Memory that is used again: of what has been applied, and of a request or an answer.
  SpareNodes<Pulls> spare_pulls;
  SpareNodes<Pushes> spare_pushes;
  std::vector<Buffer> frames;
  wire::Header pulled_header, pushed_header;
  bool is_stopping = false;
  Status status;  // why it ended

  bool is_ready() const { return shard != nullptr && !is_loading; }
  bool serves() const { return is_ready() && !shard->is_backup; }
  static SetupId id_of(const wire::LaneSetup& setup) { return {setup.setup(), setup.turn()}; }

  // --- words to others ---

  wire::Header header(std::uint64_t request) const {
    wire::Header h;
    h.set_cluster(options.cluster);
    h.set_term(term);
    h.set_request(request);
    return h;
  }

  void send_hello() {
    wire::Header h = header(0);
    wire::Hello& hello = *h.mutable_hello();
    hello.set_role(wire::LANE);
    hello.set_index(options.index);
    hello.set_incarnation(options.incarnation);
    hello.set_endpoint(options.endpoint);
    hello.set_pid(options.pid);
    hello.set_host(options.host);
    if (is_ready()) hello.set_setup(shard->setup.setup());
    transport.send(net::kSchedulerName, h);
  }

  void send_ready() {
    wire::Header h = header(0);
    wire::LaneReady& ready = *h.mutable_lane_ready();
    ready.set_setup(shard->setup.setup());
    ready.set_turn(shard->setup.turn());
    ready.set_rows(rows());
    shard->add_positions(ready);
    transport.send(net::kSchedulerName, h);
  }

  void send_failure() {
    wire::Header h = header(0);
    h.mutable_failure()->set_code(static_cast<std::uint32_t>(failure->code()));
    h.mutable_failure()->set_message(failure->message());
    transport.send(net::kSchedulerName, h);
  }

  // This run cannot go on: said until Stop, or a new set-up.
  void fail(Status status) {
    if (failure) return;
    LOG(WARNING) << options.name << ": " << status.message();
    failure = std::move(status);
    send_failure();
  }

  void send_pushed(const Asker& asker, std::uint32_t stream, std::uint64_t seq,
                   wire::PushOutcome outcome) {
    wire::Pushed& pushed = *pushed_header.mutable_pushed();
    pushed.set_stream(stream);
    pushed.set_seq(seq);
    pushed.set_outcome(outcome);
    pushed.set_epoch(shard->streams[stream].epoch);
    answer(asker, pushed_header, {});
  }

  void send_pulled(const Asker& asker, std::uint32_t stream, std::uint64_t epoch, std::uint64_t seq,
                   const std::vector<Buffer>& rows) {
    wire::Pulled& pulled = *pulled_header.mutable_pulled();
    pulled.set_stream(stream);
    pulled.set_epoch(epoch);
    pulled.set_seq(seq);
    answer(asker, pulled_header, rows);
  }

  void answer(const Asker& asker, wire::Header& h, const std::vector<Buffer>& rows) {
    h.set_cluster(options.cluster);
    h.set_request(asker.request);
    transport.send(asker.peer, h, rows);
  }

  // --- set-up and roll-back ---

  void on_setup(const net::Message& message) {
    const wire::LaneSetup& setup = message.header.lane_setup();
    // Meant for one that is over, whose late Hello is taken for the newest; or a new scheduler asks
    // who is there.
    if (setup.incarnation() != options.incarnation) return send_hello();
    if (last_setup && id_of(setup) <= *last_setup) {
      if (id_of(setup) == *last_setup && is_ready()) send_ready();
      return;
    }
    if (setup.move() != 0) return take_over(setup);
    if (is_loading) {
      if (!next_setup || id_of(next_setup->header.lane_setup()) < id_of(setup)) {
        next_setup = message;
      }
      return;
    }
    begin_setup(message);
  }

  void begin_setup(const net::Message& message) {
    const wire::LaneSetup& setup = message.header.lane_setup();
    last_setup = id_of(setup);
    if (Status status = check_setup(setup, options.index); !status.ok()) {
      return fail(std::move(status));
    }
    failure.reset();
    forget_shard();
    shard.reset();  // its memory goes before the new one's comes
    shard = std::make_unique<Shard>(setup, options.index);
    if (Status status = load_presets(message.frames, *shard); !status.ok()) {
      shard.reset();
      return fail(std::move(status));
    }
    if (setup.backup() || setup.restore_dir().empty()) return send_ready();
    is_loading = true;
    const auto status = std::make_shared<Status>();
    executor.submit([this, status] { *status = restore(storage, *shard); },
                    [this, status] { finish_restore(std::move(*status)); });
  }

  // All that belongs to the shard and lies elsewhere.
  void forget_shard() {
    saved.reset();
    writing.reset();
    drop_backup();
    moving.reset();
    waiting.clear();
    is_expected = false;
  }

  void finish_restore(Status status) {
    is_loading = false;
    if (next_setup) return begin_setup(*std::exchange(next_setup, std::nullopt));
    if (!status.ok()) {
      shard.reset();
      return fail(std::move(status));
    }
    send_ready();
    advance();
  }

  // --- leases ---

  void on_fence(const net::Message& message) {
    const wire::Fence& fence = message.header.fence();
    if (!serves() || fence.stream() >= shard->streams.size()) return;
    StreamState& stream = shard->streams[fence.stream()];
    if (fence.epoch() > stream.epoch) stream.fence(fence.epoch());
    // A push that only this process has may be lost with it, and the next holder would go on behind
    // it: answered when the question comes again.
    const auto open = unmirrored.lower_bound({fence.stream(), 0});
    if (open != unmirrored.end() && open->first == fence.stream()) return;
    wire::Header h = header(message.header.request());
    wire::Fenced& fenced = *h.mutable_fenced();
    fenced.set_stream(fence.stream());
    fenced.set_epoch(stream.epoch);
    fenced.set_next(stream.next);
    fenced.set_ended(stream.has_ended);
    transport.send(message.peer, h);
  }

  // The stream if the sender may use it now; null when it has been answered, or is to be dropped.
  // An epoch that is new here shows that a newer lease was granted: it fences as Fence does.
  template <class Request>
  StreamState* admit(const net::Message& message, const Request& request) {
    if (request.stream() >= shard->streams.size()) return nullptr;
    StreamState& stream = shard->streams[request.stream()];
    if (request.epoch() < stream.epoch && !is_planted(PlantedBug::kFenceIgnored)) {
      send_pushed({message.peer, message.header.request()}, request.stream(), request.seq(),
                  wire::STALE_EPOCH);
      return nullptr;
    }
    if (request.epoch() > stream.epoch) stream.fence(request.epoch());
    return &stream;
  }

  void reject(const net::Message& message, const std::string& what) {
    fail(invalid(message.peer + " sent a malformed " + what));
  }

  // --- pulls ---

  void on_pull(const net::Message& message) {
    if (!serves()) return;
    frames = message.frames;
    frames.resize(std::max(frames.size(), shard->tables.size()));
    take_pull(message, frames);
    frames.clear();
  }

  void take_pull(const net::Message& message, const std::vector<Buffer>& keys) {
    const wire::Pull& pull = message.header.pull();
    const Asker asker{message.peer, message.header.request()};
    StreamState* stream = nullptr;
    if (!pull.read_only() && (stream = admit(message, pull)) == nullptr) return;
    const bool is_valid =
        keys.size() == shard->tables.size() && wire::Precision_IsValid(pull.precision()) &&
        std::all_of(keys.begin(), keys.end(),
                    [&](const Buffer& k) { return are_own_keys(k, shard->range); });
    // A late one, from when this lane had other partitions, has no epoch that says so.
    if (!is_valid) return pull.read_only() ? void() : reject(message, "pull");
    if (pull.read_only()) return read_and_send(asker, pull, keys);
    if (pull.seq() < stream->next) return repeat_pull(*stream, asker, pull, keys);
    if (stream->has_ended || pull.seq() - stream->next >= kPullsKeptMax) return;
    if (is_clock_torn(pull.seq())) return send_forgotten(shard->setup.setup());
    keep_pull(*stream, asker, pull, keys);
  }

  // Under BSP a batch reads rows that no push of its clock has changed. A lane that has taken over
  // may have some of a clock's pushes and not others.
  bool is_clock_torn(std::uint64_t seq) const {
    if (!shard->was_promoted || !shard->streams.is_bsp()) return false;
    for (std::uint32_t s = 0; s < shard->streams.size(); ++s) {
      if (shard->streams[s].next > seq) return true;
    }
    return false;
  }

  void read_and_send(const Asker& asker, const wire::Pull& pull, const std::vector<Buffer>& keys) {
    std::vector<Buffer> rows;
    read_rows(asker.peer, keys, format_of(pull), nullptr, rows);
    send_pulled(asker, pull.stream(), pull.epoch(), pull.seq(), rows);
  }

  // A pull of a batch that this lane has applied: another lane has not, and somebody trains it
  // again.
  void repeat_pull(const StreamState& stream, const Asker& asker, const wire::Pull& pull,
                   const std::vector<Buffer>& keys) {
    if (pull.epoch() == stream.applied_epoch) return;  // late: who asked has pushed it since
    const KeptPull* before = stream.applied_pull ? &stream.applied_pull.mapped() : nullptr;
    const bool has_rows = before != nullptr && !is_planted(PlantedBug::kRepeatReadsNewRows) &&
                          pull.seq() + 1 == stream.next && before->format == format_of(pull) &&
                          same_bytes(before->keys, keys);
    if (has_rows) {
      return send_pulled(asker, pull.stream(), pull.epoch(), pull.seq(), before->rows);
    }
    if (shard->streams.is_bsp() && !is_planted(PlantedBug::kRepeatReadsNewRows)) {
      return send_forgotten(shard->setup.setup());
    }
    read_and_send(asker, pull, keys);
  }

  void keep_pull(StreamState& stream, const Asker& asker, const wire::Pull& pull,
                 const std::vector<Buffer>& keys) {
    auto at = stream.pulls.find(pull.seq());
    const bool is_new = at == stream.pulls.end();
    if (is_new) at = spare_pulls.insert(stream.pulls, pull.seq());
    KeptPull& kept = at->second;
    if (!is_new && !same_bytes(kept.keys, keys)) return;  // its push may be held already
    kept.asker = asker;
    if (kept.format != format_of(pull)) kept.rows.clear();
    kept.format = format_of(pull);
    if (is_new) {
      kept.keys = keys;
      waiting.emplace_back(pull.stream(), pull.seq());
      answer_due_pulls();
    } else if (!kept.is_waiting) {
      answer_pull(stream, pull.stream(), pull.seq(), kept);
    }
  }

  void answer_due_pulls() {
    std::erase_if(waiting, [&](const auto& w) {
      const auto [s, seq] = w;
      StreamState& stream = shard->streams[s];
      const auto at = stream.pulls.find(seq);
      if (at == stream.pulls.end() || !at->second.is_waiting) return true;  // fenced meanwhile
      if (!shard->streams.is_due(seq)) return false;
      answer_pull(stream, s, seq, at->second);
      return true;
    });
  }

  void answer_pull(const StreamState& stream, std::uint32_t s, std::uint64_t seq, KeptPull& kept) {
    kept.is_waiting = false;
    if (kept.rows.empty()) {
      read_rows(kept.asker.peer, kept.keys, kept.format, &kept.slots, kept.rows);
    }
    send_pulled(kept.asker, s, stream.epoch, seq, kept.rows);
    if (!keeps_rows()) kept.rows.clear();
  }

  // Rows for `peer`, in memory that its wire can send from.
  void read_rows(const std::string& peer, const std::vector<Buffer>& keys, WireFormat format,
                 Slots* slots, std::vector<Buffer>& rows) {
    if (slots != nullptr) slots->resize(keys.size());
    rows.clear();
    for (std::size_t t = 0; t < keys.size(); ++t) {
      const Table& table = *shard->tables[t];
      const auto table_keys = keys[t].as<std::uint64_t>();
      const std::size_t values = table_keys.size() * table.width();
      Buffer& out = rows.emplace_back(transport.allocate(peer, values * bytes_of(format.of(t))));
      table.pull(table_keys, format.of(t), out.data(), slots == nullptr ? nullptr : &(*slots)[t]);
    }
  }

  // --- pushes ---

  void on_push(const net::Message& message) {
    if (!serves()) return;
    const wire::Push& push = message.header.push();
    StreamState* stream = admit(message, push);
    if (stream == nullptr) return;
    const Asker asker{message.peer, message.header.request()};
    if (push.seq() < stream->next && is_planted(PlantedBug::kRepeatApplied)) {
      stream->next = push.seq();
    }
    if (push.seq() < stream->next) {
      if (unmirrored.contains({push.stream(), push.seq()})) return;  // answered once it is
      return send_pushed(asker, push.stream(), push.seq(), wire::APPLIED);
    }
    if (stream->has_ended || push.seq() - stream->next >= kEarlyPushesMax) return;
    if (const auto held = stream->pushes.find(push.seq()); held != stream->pushes.end()) {
      held->second.asker = asker;
      return;
    }
    hold_push(*stream, asker, message);
    advance();
  }

  void hold_push(StreamState& stream, const Asker& asker, const net::Message& message) {
    const wire::Push& push = message.header.push();
    const auto kept = stream.pulls.find(push.seq());
    const std::vector<Buffer>* const pulled =
        kept == stream.pulls.end() ? nullptr : &kept->second.keys;
    // Without gradients there were no keys: nothing needs to be remembered.
    if (!push.keys_included() && pulled == nullptr && !are_empty(message.frames)) {
      return send_pushed(asker, push.stream(), push.seq(), wire::NEED_KEYS);
    }
    const auto at = spare_pushes.insert(stream.pushes, push.seq());
    if (fill(at->second, asker, message, pulled)) return;
    spare_pushes.give(stream.pushes.extract(at));
    reject(message, "push");
  }

  // `pulled`: the keys of its pull, or null. False: the message is malformed.
  bool fill(HeldPush& held, const Asker& asker, const net::Message& message,
            const std::vector<Buffer>* pulled) const {
    const wire::Push& push = message.header.push();
    const std::size_t tables = shard->tables.size();
    held.asker = asker;
    held.is_last = push.last();
    held.format = format_of(push);
    if (push.keys_included()) {
      if (message.frames.size() != 2 * tables) return false;
      for (std::size_t t = 0; t < tables; ++t) {
        held.keys.push_back(message.frames[2 * t]);
        held.gradients.push_back(message.frames[2 * t + 1]);
      }
    } else {
      held.gradients = message.frames;
      held.gradients.resize(std::max(held.gradients.size(), tables));
      if (pulled == nullptr) held.keys.resize(tables);
    }
    return std::all_of(held.keys.begin(), held.keys.end(),
                       [&](const Buffer& keys) { return are_own_keys(keys, shard->range); }) &&
           fits(held, held.keys.empty() ? *pulled : held.keys);
  }

  bool fits(const HeldPush& held, const std::vector<Buffer>& keys) const {
    if (held.gradients.size() != shard->tables.size()) return false;
    if (!wire::Precision_IsValid(held.format.precision)) return false;
    for (std::size_t t = 0; t < keys.size(); ++t) {
      const std::uint32_t width = shard->tables[t]->width();
      if (!is_matrix(held.gradients[t], keys[t], width, held.format.of(t))) return false;
    }
    return true;
  }

  // Applies what may be applied, and answers what was waiting for it.
  void advance() {
    for (;;) {
      if (is_held()) break;
      const std::vector<std::uint32_t>& turn = shard->streams.turn();
      if (turn.empty()) break;
      for (const std::uint32_t s : turn) apply_next(s);
    }
    answer_due_pulls();
  }

  void apply_next(std::uint32_t s) {
    StreamState& stream = shard->streams[s];
    const std::uint64_t seq = stream.next;
    auto push_node = stream.pushes.extract(stream.pushes.begin());
    auto pull_node = stream.pulls.extract(seq);
    const HeldPush& push = push_node.mapped();
    const KeptPull* const pull = pull_node ? &pull_node.mapped() : nullptr;
    apply(push, pull);
    stream.next = seq + 1;
    stream.applied_epoch = stream.epoch;
    stream.has_ended = push.is_last;
    if (is_mirrored()) {
      replicate(s, seq, push, pull);
    } else {
      send_pushed(push.asker, s, seq, wire::APPLIED);
    }
    spare_pushes.give(std::move(push_node));
    spare_pulls.give(std::move(stream.applied_pull));
    if (shard->streams.is_bsp() && pull != nullptr && !pull->rows.empty()) {
      stream.applied_pull = std::move(pull_node);
    } else {
      spare_pulls.give(std::move(pull_node));
    }
    if (stream.has_ended) {
      stream.pulls.clear();
      stream.pushes.clear();
    }
  }

  void apply(const HeldPush& push, const KeptPull* pull) {
    last_push = now;
    const bool use_pull = push.keys.empty();
    for (std::size_t t = 0; t < shard->tables.size(); ++t) {
      const Buffer& keys = use_pull ? pull->keys[t] : push.keys[t];
      std::span<const std::uint32_t> slots;
      if (use_pull && !pull->is_waiting) slots = pull->slots[t];
      const bool has_rows = use_pull && !pull->rows.empty() && pull->format == push.format;
      shard->tables[t]->push(keys.as<std::uint64_t>(), push.format.of(t), push.gradients[t].data(),
                             slots, has_rows ? pull->rows[t].data() : nullptr);
    }
  }

  // From a pull's answer to its push: for a worker that begins the batch again, or to compensate.
  bool keeps_rows() const {
    return shard->streams.is_bsp() ||
           std::ranges::any_of(shard->tables, [](const auto& t) { return t->compensates_delay(); });
  }

  // --- cuts ---

  void on_save(const net::Message& message) {
    const wire::Save& save = message.header.save();
    if (!serves() || save.setup() != shard->setup.setup()) return;
    const auto tables = static_cast<int>(shard->tables.size());
    if (save.base_steps_size() != 0 && save.base_steps_size() != tables) {
      return fail(invalid("asked to save a delta on other tables than the lane has"));
    }
    save_request = message.header.request();
    if (save.generation() > begun_generation) return take_cut(save);
    if (save.generation() != begun_generation) return;
    saved ? send_saved() : send_flipped();
  }

  // From here on pushes belong to the next generation.
  void take_cut(const wire::Save& save) {
    begun_generation = save.generation();
    saved.reset();
    if (copying) copying->interrupt();
    if (moving) moving->interrupt();
    wire::Saved result;
    result.set_generation(save.generation());
    shard->add_positions(result);
    writing = std::make_shared<Writing>(*shard, storage, save, std::move(result), options, now);
    send_flipped();
    write_on();
  }

  // When write_on() has something to do. Nobody is in the way when nobody trains.
  TimePoint write_due() const {
    if (!writing || writing->is_busy) return kNever;
    return std::min(writing->due(), last_push + kTrainingPause);
  }

  // One piece is written by a task while the next one is taken.
  void write_on() {
    while (write_due() <= now) {
      const std::shared_ptr<Writing> w = writing;
      const bool is_more = w->has_next || w->reader.next(w->next);
      w->is_busy = true;
      if (is_more) {
        w->has_next = false;
        std::swap(w->piece, w->next);
        w->written += w->piece.records.bytes();
      }
      executor.submit(
          [w, is_more] {
            w->status = is_more ? w->writer.write(w->piece.table, w->piece.records)
                                : w->writer.finish(w->saved);
          },
          [this, w, is_more] {
            w->is_busy = false;
            if (w == writing) on_written(!is_more);
          });
      if (w == writing && w->is_busy && is_more) w->has_next = w->reader.next(w->next);
    }
  }

  void on_written(bool is_last) {
    if (!writing->status.ok()) {
      LOG(WARNING) << options.name << ": generation " << begun_generation << ": "
                   << writing->status.message();
      saved.emplace();
      saved->set_generation(begun_generation);
      saved->set_error(static_cast<std::uint32_t>(writing->status.code()));
      saved->set_message(writing->status.message());
    } else if (is_last) {
      saved = std::move(writing->saved);
    }
    if (saved) {
      writing.reset();
      send_saved();
    }
    write_on();
    copy_on();
    move_on();
    if (is_ready()) advance();
  }

  // Storage is slower than rows change: pushes wait, so that copies do not fill the memory.
  bool is_waiting_for_storage() const {
    return writing != nullptr && writing->reader.bytes() > writing->copies_max;
  }

  // Nothing is applied for now.
  bool is_held() const {
    return is_waiting_for_storage() || (copying && copying->is_last()) ||
           (mirror && mirror->is_full());
  }

  // --- the backup, from the lane that serves ---

  bool is_mirrored() const { return mirror && !copying; }

  void on_back(const net::Message& message) {
    const wire::Back& back = message.header.back();
    if (!serves() || back.setup() != shard->setup.setup()) return;
    if (mirror && back.copy() <= mirror->copy()) {
      if (back.copy() == mirror->copy() && is_in_step) send_in_step();
      return;
    }
    if (mirror) mirror->settle();  // the one before is gone: acknowledged without
    drop_backup();
    if (back.peer().empty()) return advance();
    if (Status status = transport.connect(back.peer(), back.endpoint()); !status.ok()) {
      LOG(WARNING) << options.name << ": " << status.message();
      return;
    }
    mirror = std::make_unique<MirrorSender>(transport, back.peer(), options.cluster,
                                            shard->setup.setup(), back.copy());
    copying = std::make_unique<Copying>(shard->tables, Copying::Last::kAtOnce);
    copy_on();
  }

  void drop_backup() {
    copying.reset();
    mirror.reset();
    unmirrored.clear();
    is_in_step = false;
  }

  void copy_on() {
    if (!copying || writing) return;
    CutReader::Piece piece;
    while (mirror->open() < Copying::kOpenMax && copying->next(piece)) {
      if (piece.records.empty()) continue;
      wire::Header h;
      wire::Rows& rows = *h.mutable_rows();
      rows.set_table(piece.table);
      mirror->send(now, std::move(h), rows, {piece.records.release()});
    }
    if (!copying->is_over() || mirror->is_full()) return;
    copying.reset();
    wire::Header h;
    wire::Mirror& body = *h.mutable_mirror();
    shard->add_positions(body);
    mirror->send(now, std::move(h), body, {}, [this] {
      is_in_step = true;
      send_in_step();
    });
    advance();
  }

  void send_in_step() {
    wire::Header h = header(0);
    h.mutable_in_step()->set_setup(shard->setup.setup());
    h.mutable_in_step()->set_copy(mirror->copy());
    transport.send(net::kSchedulerName, h);
  }

  // Acknowledged once the backup has it.
  void replicate(std::uint32_t s, std::uint64_t seq, const HeldPush& push, const KeptPull* pull) {
    wire::Header h;
    wire::Replicate& body = *h.mutable_replicate();
    body.set_stream(s);
    body.set_epoch(shard->streams[s].epoch);
    body.set_seq(seq);
    body.set_last(push.is_last);
    body.set_precision(push.format.precision);
    body.set_narrow_tables(push.format.tables);
    const std::vector<Buffer>& keys = push.keys.empty() ? pull->keys : push.keys;
    std::vector<Buffer> both;
    for (std::size_t t = 0; t < keys.size(); ++t) {
      both.push_back(keys[t]);
      both.push_back(push.gradients[t]);
    }
    unmirrored.emplace(s, seq);
    mirror->send(now, std::move(h), body, std::move(both), [this, s, seq, asker = push.asker] {
      unmirrored.erase({s, seq});
      send_pushed(asker, s, seq, wire::APPLIED);
    });
  }

  void on_replicated(const net::Message& message) {
    const wire::Replicated& body = message.header.replicated();
    if (moving && moving->on_taken(now, message.peer, body)) return move_on();
    if (!serves() || body.setup() != shard->setup.setup()) return;
    if (!mirror || message.peer != mirror->peer() || body.copy() != mirror->copy()) return;
    if (body.deposed()) return stand_down();
    mirror->on_taken(now, body.number());
    copy_on();
    advance();
  }

  // The backup serves now, and this lane was asleep: what it has is worth nothing.
  void stand_down() {
    LOG(WARNING) << options.name << ": the backup has taken over";
    forget_shard();
    shard.reset();
    send_hello();
  }

  void send_forgotten(std::uint64_t setup) {
    wire::Header h = header(0);
    h.mutable_forgotten()->set_setup(setup);
    transport.send(net::kSchedulerName, h);
  }

  // --- other lanes than before ---

  void on_move(const net::Message& message) {
    const wire::Move& order = message.header.move();
    if (order.next().incarnation() != options.incarnation) return send_hello();
    if (order.move() < last_move || is_loading) return;
    if (shard != nullptr && (!serves() || order.setup() != shard->setup.setup())) return;
    if (order.next().lanes() == 0) {  // it is off
      if (moving) drop_later(moving->take());
      moving.reset();
    } else if (order.move() > last_move) {
      begin_move(order);
    } else if (moving) {
      moving->on_order(order);
    }
    last_move = order.move();
    if (!moving) return;
    move_on();
    send_moved();
  }

  void begin_move(const wire::Move& order) {
    moving.reset();
    const std::uint32_t lanes = order.next().lanes();
    Status status = check_setup(order.next(), std::min(options.index, lanes - 1));
    if (status.ok() && order.endpoints_size() != static_cast<int>(lanes)) {
      status = invalid("a move without endpoints");
    }
    if (!status.ok()) return fail(std::move(status));
    told_stage = wire::MOVING;
    moving =
        std::make_unique<Moving>(transport, order, options.cluster, options.index, shard.get());
    if (status = moving->connect(order); !status.ok()) {
      LOG(WARNING) << options.name << ": " << status.message();
      moving.reset();
    }
  }

  void move_on() {
    if (!moving || writing) return;
    moving->send_some(now);
    if (moving->stage() > told_stage) send_moved();
  }

  void send_moved() {
    told_stage = moving->stage();
    wire::Header h = header(0);
    h.mutable_moved()->set_move(moving->number());
    h.mutable_moved()->set_stage(told_stage);
    transport.send(net::kSchedulerName, h);
  }

  // From here on what the move has gathered is this lane's.
  void take_over(const wire::LaneSetup& setup) {
    if (!moving || moving->number() != setup.move() || !moving->is_whole()) {
      return send_forgotten(setup.setup());
    }
    std::unique_ptr<Shard> next = moving->take();
    last_setup = id_of(setup);
    forget_shard();
    drop_later(std::exchange(shard, std::move(next)));
    shard->setup = setup;
    for (std::uint32_t s = 0; s < shard->streams.size(); ++s) {
      shard->streams[s].fence(setup.first_epoch());
    }
    send_ready();
  }

  // Giving much memory back takes time.
  void drop_later(std::unique_ptr<Shard> old) {
    if (old == nullptr) return;
    executor.submit([old = std::shared_ptr<Shard>(std::move(old))]() mutable { old.reset(); },
                    [] {});
  }

  // --- the backup itself ---

  // Rows, Mirror or Replicate of the lane that serves.
  template <class Body>
  void on_mirrored(const net::Message& message, const Body& body) {
    wire::Header answer = header(0);
    if (moving && moving->receive(message, answer)) {
      move_on();
      return transport.send(message.peer, answer);
    }
    if (!is_ready() || body.setup() != shard->setup.setup()) return;
    if (shard->is_backup) {
      shard->received.receive(body.copy(), body.number(), message,
                              [this](const net::Message& m) { take_mirrored(m); });
    }
    if (shard == nullptr) return;
    wire::Header h = header(0);
    wire::Replicated& reply = *h.mutable_replicated();
    reply.set_setup(shard->setup.setup());
    reply.set_copy(shard->is_backup ? shard->received.copy() : body.copy());
    reply.set_number(shard->received.taken());
    reply.set_deposed(!shard->is_backup);
    transport.send(message.peer, h);
  }

  void take_mirrored(const net::Message& message) {
    const wire::Header& h = message.header;
    if (shard == nullptr || failure) return;
    Status taken = h.has_rows()     ? take_rows(h.rows(), message.frames)
                   : h.has_mirror() ? take_positions(h.mirror())
                                    : take_push(h.replicate(), message.frames);
    if (!taken.ok()) fail(std::move(taken).context("from " + message.peer));
  }

  Status take_rows(const wire::Rows& rows, const std::vector<Buffer>& frames) {
    shard->is_complete = false;
    return shard->take_rows(rows.table(), frames);
  }

  Status take_positions(const wire::Mirror& mirror) {
    RETURN_IF_ERROR(shard->take_positions(mirror));
    shard->is_complete = true;
    return {};
  }

  Status take_push(const wire::Replicate& push, const std::vector<Buffer>& frames) {
    if (!shard->is_complete || push.stream() >= shard->streams.size()) {
      return invalid("a push before the rows");
    }
    HeldPush held;
    held.format = format_of(push);
    for (std::size_t i = 0; i + 1 < frames.size(); i += 2) {
      held.keys.push_back(frames[i]);
      held.gradients.push_back(frames[i + 1]);
    }
    const bool are_keys = std::ranges::all_of(
        held.keys, [&](const Buffer& keys) { return are_own_keys(keys, shard->range); });
    if (held.keys.size() != shard->tables.size() || !are_keys || !fits(held, held.keys)) {
      return invalid("a malformed push");
    }
    StreamState& stream = shard->streams[push.stream()];
    if (push.seq() != stream.next) return invalid("a push out of turn");
    apply(held, nullptr);
    stream.next = push.seq() + 1;
    stream.applied_epoch = push.epoch();
    stream.has_ended = push.last();
    stream.epoch = std::max(stream.epoch, push.epoch());
    return {};
  }

  void on_promote(const wire::Promote& promote) {
    if (!is_ready() || promote.setup() != shard->setup.setup()) return;
    const SetupId id{promote.setup(), promote.turn()};
    if (id < *last_setup) return;
    if (shard->is_backup && !shard->is_complete) return;
    if (shard->is_backup) LOG(INFO) << options.name << ": the backup takes over";
    shard->was_promoted |= shard->is_backup;
    shard->is_backup = false;
    shard->setup.set_turn(promote.turn());
    last_setup = id;
    send_ready();
  }

  void send_flipped() {
    wire::Header h = header(save_request);
    h.mutable_flipped()->set_generation(begun_generation);
    h.mutable_flipped()->set_setup(shard->setup.setup());
    transport.send(net::kSchedulerName, h);
  }

  void send_saved() {
    wire::Header h = header(save_request);
    *h.mutable_saved() = *saved;
    transport.send(net::kSchedulerName, h);
  }

  void on_stop(const net::Message& message) {
    const wire::Stop& stop = message.header.stop();
    const bool is_late = stop.incarnation() != options.incarnation || stop.move() < last_move;
    if (stop.incarnation() != 0 && is_late && !is_stopping) return;
    is_stopping = true;
    wire::Header h = header(message.header.request());
    h.mutable_stopped();
    transport.send(message.peer, h);
  }

  // --- messages and time ---

  void on_scheduler(const net::Message& message) {
    if (message.header.term() < term) return;  // another has taken its place
    term = message.header.term();
    last_heard = now;
    if (options.cluster == 0) options.cluster = message.header.cluster();
    const auto body = message.header.body_case();
    if (is_ready() && body != wire::Header::kLaneSetup) is_expected = true;
    switch (body) {
      case wire::Header::kLaneSetup:
        return on_setup(message);
      case wire::Header::kFence:
        return on_fence(message);
      case wire::Header::kSave:
        return on_save(message);
      case wire::Header::kBack:
        return on_back(message);
      case wire::Header::kPromote:
        return on_promote(message.header.promote());
      case wire::Header::kMove:
        return on_move(message);
      case wire::Header::kStop:
        return on_stop(message);
      default:
        return;
    }
  }

  void on_message(const net::Message& message) {
    const std::uint64_t cluster = message.header.cluster();
    if (options.cluster != 0 && cluster != options.cluster) return;
    if (is_stopping && !message.header.has_stop()) return;
    if (message.peer == net::kSchedulerName) return on_scheduler(message);
    if (options.cluster == 0) return;
    if (message.header.has_pull()) return on_pull(message);
    if (message.header.has_push()) return on_push(message);
    if (message.header.has_replicated()) return on_replicated(message);
    if (message.header.has_rows()) return on_mirrored(message, message.header.rows());
    if (message.header.has_mirror()) return on_mirrored(message, message.header.mirror());
    if (message.header.has_replicate()) return on_mirrored(message, message.header.replicate());
  }

  // Says again what the scheduler may have missed; while files are loaded, Hello shows that the
  // lane is alive. When all is said and the scheduler has been silent for a while, Hello asks
  // whether it is there.
  void speak() {
    if (failure) {
      send_failure();
    } else if (is_ready() && !is_expected) {
      send_ready();
    } else {
      send_hello();
    }
  }
  bool is_settled() const { return is_ready() && is_expected && !failure; }
  TimePoint word_due() const {
    if (!is_settled()) return next_word;
    return std::max(next_word, last_heard + options.scheduler_silence / 4);
  }

  void on_timer() {
    if (!has_started) last_heard = now;
    has_started = true;
    if (now - last_heard >= options.scheduler_silence && !is_stopping) {
      is_stopping = true;
      status =
          unavailable("the scheduler has fallen silent: is it running, and can it be reached?");
    }
    if (mirror && !is_stopping) mirror->on_timer(now);
    write_on();
    if (moving && !is_stopping) moving->on_timer(now);
    if (!is_stopping) move_on();
    if (is_stopping || now < word_due()) return;
    next_word = now + (is_settled() ? options.scheduler_silence / 8 : options.hello_every);
    speak();
  }

  TimePoint next_timer() const {
    if (is_stopping) return kNever;
    if (!has_started) return TimePoint{};
    const TimePoint mirror_due = mirror ? mirror->next_timer() : kNever;
    const TimePoint moving_due = moving && !writing ? moving->next_timer() : kNever;
    return std::min(
        {mirror_due, moving_due, write_due(), word_due(), last_heard + options.scheduler_silence});
  }

  std::uint64_t rows() const {
    std::uint64_t sum = 0;
    if (shard != nullptr) {
      for (const auto& table : shard->tables) sum += table->rows();
    }
    return sum;
  }
};

Lane::Lane(LaneOptions options, net::Transport& transport, Storage& storage, Executor& executor)
    : impl_(std::make_unique<Impl>(std::move(options), transport, storage, executor)) {}
Lane::~Lane() = default;

void Lane::on_message(TimePoint now, const net::Message& message) {
  impl_->now = now;
  impl_->on_message(message);
}
void Lane::on_timer(TimePoint now) {
  impl_->now = now;
  impl_->on_timer();
}
TimePoint Lane::next_timer() const { return impl_->next_timer(); }
bool Lane::finished() const { return impl_->is_stopping && !impl_->is_loading; }
Status Lane::status() const { return impl_->status; }
std::uint64_t Lane::rows() const { return impl_->is_loading ? 0 : impl_->rows(); }
bool Lane::is_saving() const { return impl_->writing != nullptr; }
std::size_t Lane::copies_bytes() const {
  return impl_->writing != nullptr ? impl_->writing->reader.bytes() : 0;
}
std::size_t Lane::table_bytes() const {
  std::size_t sum = 0;
  if (!impl_->is_ready()) return sum;
  for (const auto& table : impl_->shard->tables) sum += table->bytes();
  return sum;
}
std::uint64_t Lane::next_seq(std::uint32_t stream) const {
  CHECK(impl_->is_ready() && stream < impl_->shard->streams.size());
  return impl_->shard->streams[stream].next;
}

}  // namespace meander::ps
