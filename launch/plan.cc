// SPDX-License-Identifier: Apache-2.0
#include "launch/plan.h"

#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>
#include <unordered_set>

#include "common/rng.h"
#include "data/node_graph.h"
#include "data/schema.h"
#include "launch/adjacency.h"
#include "launch/layout.h"
#include "launch/suggest.h"
#include "worker/dense_blocks.h"

namespace meander::launch {
namespace {

// Distinct values that a context column is taken to have, for the range of its initial rows.
constexpr double kContextValues = 64;
constexpr std::int64_t kEndOfTime = std::numeric_limits<std::int64_t>::max();
// Statistics of a model are moving means: plain SGD of this rate on (mean - observed).
constexpr float kStatisticsRate = 0.01f;

Result<data::SlotSpec> find_slot(const data::PreparedLog& log, const LoadedJob& job, bool has_words,
                                 const std::string& name) {
  data::SlotSpec slot;
  slot.name = name;
  if (name == "item") {
    slot.source = data::SlotSource::kItem;
  } else if (name == "category" && log.has_category()) {
    slot.source = data::SlotSource::kCategory;
  } else if (name == "content" && job.spec.data().has_content()) {
    slot.source = data::SlotSource::kContent;
  } else if (name == "user") {
    slot.source = data::SlotSource::kUser;
  } else if (name == "word" && has_words) {
    slot.source = data::SlotSource::kWord;
  } else if (log.context_column(name)) {
    slot.source = data::SlotSource::kContext;
    slot.column = name;
  } else {
    std::vector<std::string> known = {"item", "user"};
    if (log.has_category()) known.push_back("category");
    if (job.spec.data().has_content()) known.push_back("content");
    if (has_words) known.push_back("word");
    known.insert(known.end(), log.context().begin(), log.context().end());
    const char* hint = name == "content" ? " (vectors of items are named in data.content)" : "";
    return invalid(job.place("model.slots") + ": the log has no '" + name + "'; it has " +
                   join(known) + hint);
  }
  return slot;
}

bool is_in_history(const data::SlotSpec& slot) { return data::is_of_event(slot.source); }

// The vectors that slot `content` reads; null where there is none.
Result<std::shared_ptr<const data::Content>> load_content(
    Storage& storage, const LoadedJob& job, const data::PreparedLog& log,
    const std::vector<data::SlotSpec>& slots) {
  const auto is_content = [](const data::SlotSpec& slot) {
    return slot.source == data::SlotSource::kContent;
  };
  if (std::ranges::none_of(slots, is_content)) return std::shared_ptr<const data::Content>();
  const job::Content& files = job.spec.data().content();
  auto content = data::Content::load(storage, files.vectors(), files.items());
  if (!content.ok()) return std::move(content).status().context(job.place("data.content"));
  const auto has_vector = [&](const data::ItemEntry& item) {
    return content.value()->has(item.item);
  };
  if (std::ranges::none_of(log.items(), has_vector)) {
    return invalid(job.place("data.content.items") + ": none of the " +
                   std::to_string(content.value()->ids().size()) + " ids in " + files.items() +
                   " is an item of " + log.path() + ": they are of another log");
  }
  return content;
}

// One table for each slot, those of a behaviour first.
Result<std::vector<data::SlotSpec>> find_slots(const data::PreparedLog& log, const LoadedJob& job,
                                               bool has_words) {
  const auto& given = job.spec.model().slots();
  std::vector<std::string> names(given.begin(), given.end());
  if (names.empty()) {
    names = {"item"};
    if (log.has_category()) names.push_back("category");
  }
  std::vector<data::SlotSpec> slots;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(slots.emplace_back(), find_slot(log, job, has_words, name));
  }
  std::stable_partition(slots.begin(), slots.end(), is_in_history);
  if (!is_in_history(slots.front())) {
    return invalid(job.place("model.slots") + ": a history needs item, category or content");
  }
  for (std::size_t i = 0; i < slots.size(); ++i) slots[i].table = static_cast<std::uint32_t>(i);
  return slots;
}

std::int32_t to_int(std::uint32_t value) { return static_cast<std::int32_t>(value); }

models::ModelSpec model_spec(const job::Model& model, const data::PreparedLog& log,
                             const std::vector<data::SlotSpec>& slots, const data::Content* content,
                             const LoadedJob& job) {
  models::ModelSpec spec;
  spec.kind = model.kind();
  for (const data::SlotSpec& slot : slots) {
    nn::SlotSpec& of_model = spec.slots.emplace_back();
    of_model = {slot.name, to_int(slot.table), to_int(model.embedding()), is_in_history(slot)};
    if (slot.source != data::SlotSource::kContent) continue;
    of_model.width = to_int(content->width());
    of_model.frozen = true;
    of_model.projected = to_int(model.content_width());
  }
  spec.numeric_features = static_cast<std::int32_t>(log.numeric().size());
  spec.hidden = to_int(model.hidden());
  spec.layers = to_int(model.layers());
  // A list that is given counts as it is, even when it is empty (a head without hidden layers).
  if (job.is_given("model.attention")) {
    spec.attention.assign(model.attention().begin(), model.attention().end());
  }
  if (job.is_given("model.head")) spec.head.assign(model.head().begin(), model.head().end());
  spec.activation = model.activation();
  spec.dice = model.dice();
  spec.auxiliary_weight = model.auxiliary_weight();
  spec.l2 = model.l2();
  spec.auxiliary_mean = model.auxiliary_mean();
  spec.evolution = model.evolution();
  spec.cell = model.cell();
  spec.loss = model.loss();
  spec.click_weight = model.click_weight();
  spec.second_weight = model.second_weight();
  spec.dropout = model.dropout();
  spec.blocks = to_int(model.blocks());
  spec.heads = to_int(model.heads());
  if (job.is_given("model.fanout")) {
    spec.fanout.assign(model.fanout().begin(), model.fanout().end());
  }
  spec.positions = to_int(job.spec.data().history());
  spec.decay = model.decay();
  spec.half_life_h = model.half_life_h();
  return spec;
}

data::LogPart log_part(job::Range::Part part) {
  switch (part) {
    case job::Range::test:
      return data::LogPart::kTest;
    case job::Range::all:
      return data::LogPart::kAll;
    case job::Range::train:
    case job::Range::none:
    case job::Range::fold:  // of the training targets
      return data::LogPart::kTrain;
  }
  return data::LogPart::kTrain;
}

// The texts have been checked with the job.
std::int64_t time_or(const std::string& text, std::int64_t otherwise) {
  return text.empty() ? otherwise : data::parse_time_ms(text).value();
}

void set_range(data::StreamSpec& spec, const job::Range& range) {
  spec.part = log_part(range.part());
  spec.from_ms = time_or(range.from(), spec.from_ms);
  spec.until_ms = time_or(range.until(), spec.until_ms);
}

data::NegativesSpec negatives_spec(const job::Negatives& negatives) {
  data::NegativesSpec spec;
  spec.kind = static_cast<data::NegativeKind>(negatives.kind());
  spec.count = negatives.count();
  spec.window_ms = std::llround(negatives.window_s() * 1000);
  spec.exclude = static_cast<data::Exclude>(negatives.exclude());
  return spec;
}
static_assert(static_cast<int>(data::NegativeKind::kPopular) == job::Negatives::popular);
static_assert(static_cast<int>(data::NegativeKind::kUniform) == job::Negatives::uniform);
static_assert(static_cast<int>(data::NegativeKind::kRecent) == job::Negatives::recent);
static_assert(static_cast<int>(data::NegativeKind::kInBatch) == job::Negatives::in_batch);
static_assert(static_cast<int>(data::NegativeKind::kNone) == job::Negatives::none);
static_assert(static_cast<int>(data::Exclude::kHistory) == job::Negatives::history);
static_assert(static_cast<int>(data::Exclude::kUser) == job::Negatives::user);
static_assert(static_cast<int>(data::Exclude::kKnown) == job::Negatives::known);

static_assert(static_cast<int>(data::StreamOrder::kTime) == job::Data::time);
static_assert(static_cast<int>(data::StreamOrder::kShuffle) == job::Data::shuffle);
static_assert(static_cast<int>(data::StreamOrder::kHashed) == job::Data::hashed);
static_assert(static_cast<int>(data::StreamOrder::kUsers) == job::Data::users);

// Of a small batch fewer: products of a few rows go through all weights for each part.
std::uint32_t parts_of(const job::Train& train) {
  constexpr std::uint32_t kSmallBatch = 64, kPartsOfSmall = 2;
  const bool is_given = train.has_parts() || train.batch() >= kSmallBatch;
  return is_given ? train.parts() : kPartsOfSmall;
}

// What the graph reads of a batch, in training or at inference, besides its keys.
void set_needs(const nn::Graph& graph, bool training, data::StreamSpec& spec) {
  using Use = nn::Graph::CatalogueUse;
  spec.age = graph.needs_age();
  spec.second_label = graph.second_logits() != nn::kNoTensor;
  spec.auxiliary = training && graph.needs_negatives();
  spec.catalogues.clear();
  for (std::int32_t table = 0; table < graph.tables(); ++table) {
    const Use use = graph.catalogue(table, training);
    spec.catalogues.push_back(use == Use::kAll     ? data::CatalogueKind::kAll
                              : use == Use::kDrawn ? data::CatalogueKind::kDrawn
                                                   : data::CatalogueKind::kNone);
  }
}

data::StreamSpec stream_spec(const Plan& plan, const std::vector<data::SlotSpec>& slots) {
  const job::Job& job = plan.job.spec;
  data::StreamSpec spec;
  spec.content = plan.content;
  spec.neighbours = plan.neighbours;
  spec.fanout.assign(plan.model.fanout.begin(), plan.model.fanout.end());
  spec.order = static_cast<data::StreamOrder>(job.data().order());
  spec.seed = job.train().seed();
  spec.shuffle = job.data().shuffle_seed();
  spec.batch = job.train().batch();
  spec.parts = parts_of(job.train());
  spec.history = job.data().history();
  spec.slots = slots;
  spec.tables = static_cast<std::uint32_t>(slots.size());
  spec.negatives = negatives_spec(job.data().negatives());
  spec.drawn = job.data().negatives().shared();
  spec.drawn_power = job.data().negatives().shared_power();
  return spec;
}

static_assert(int{wire::Optimizer::ADAM} == job::Optimizer::adam);
static_assert(int{wire::Optimizer::MOMENTUM} == job::Optimizer::momentum);
static_assert(int{wire::Optimizer::RMSPROP} == job::Optimizer::rmsprop);
static_assert(int{wire::Optimizer::ADAMW} == job::Optimizer::adamw);
static_assert(int{wire::Optimizer::FTRL} == job::Optimizer::ftrl);
static_assert(int{wire::Optimizer::SGD} == job::Optimizer::sgd);
static_assert(int{wire::Optimizer::ADAGRAD} == job::Optimizer::adagrad);
static_assert(int{wire::Optimizer::ROWWISE_ADAGRAD} == job::Optimizer::rowwise_adagrad);
static_assert(int{wire::Schedule::STEP} == job::Schedule::step);
static_assert(int{wire::Schedule::EXPONENTIAL} == job::Schedule::exponential);
static_assert(int{wire::Schedule::COSINE} == job::Schedule::cosine);

wire::Optimizer wire_optimizer(const job::Optimizer& optimizer) {
  wire::Optimizer wire;
  wire.set_kind(static_cast<wire::Optimizer::Kind>(optimizer.kind()));
  wire.set_rate(optimizer.rate());
  wire.set_beta1(optimizer.beta1());
  wire.set_beta2(optimizer.beta2());
  wire.set_epsilon(optimizer.epsilon());
  wire.set_initial_accumulator(optimizer.initial_accumulator());
  wire.set_l2(optimizer.l2());
  wire.set_l1(optimizer.l1());
  wire.set_beta(optimizer.beta());
  wire.set_weight_decay(optimizer.weight_decay());
  wire.set_delay_compensation(optimizer.delay_compensation());
  wire::Schedule& schedule = *wire.mutable_schedule();
  schedule.set_kind(static_cast<wire::Schedule::Kind>(optimizer.schedule().kind()));
  schedule.set_warmup(optimizer.schedule().warmup());
  schedule.set_steps(optimizer.schedule().steps());
  schedule.set_factor(optimizer.schedule().factor());
  return wire;
}

double distinct_values(const Plan& plan, data::SlotSource source) {
  const data::PreparedLog& log = *plan.log;
  switch (source) {
    case data::SlotSource::kItem:
      return static_cast<double>(log.items().size());
    case data::SlotSource::kCategory:
      return static_cast<double>(log.categories());
    case data::SlotSource::kUser:
      return static_cast<double>(log.users());
    case data::SlotSource::kContext:
      return kContextValues;
    case data::SlotSource::kWord:
      return static_cast<double>(plan.words);
    case data::SlotSource::kContent:
      break;
  }
  return 1;
}

// Glorot and Bengio, 2010, for a table of n rows: uniform in +-sqrt(6 / (n + width)).
float glorot_range(double rows, std::uint32_t width) {
  return static_cast<float>(std::sqrt(6.0 / (rows + width)));
}

wire::TableSpec slot_table(const Plan& plan, const data::SlotSpec& slot) {
  const job::Job& job = plan.job.spec;
  wire::TableSpec table;
  table.set_name(slot.name);
  // Rows of content are the workers' own. Their table stays empty, and says how wide they are.
  if (slot.source == data::SlotSource::kContent) {
    table.set_width(plan.content->width());
    table.mutable_optimizer()->set_kind(wire::Optimizer::SGD);
    return table;
  }
  table.set_width(job.model().embedding());
  *table.mutable_optimizer() = wire_optimizer(job.train().optimizer());
  // Lazy Adam in the form that the published models' framework has for sparse rows.
  table.mutable_optimizer()->set_epsilon_hat(true);
  if (job.model().initial_range() > 0) {
    table.set_init_range(job.model().initial_range());
  } else if (job.model().initial_rows() == job::Model::glorot) {
    table.set_init_range(glorot_range(distinct_values(plan, slot.source), table.width()));
  }
  table.set_seed(hash64(job.train().seed(), slot.table));
  table.set_admit_count(job.train().admit_count());
  table.set_clip_row(job.train().clip_row());
  table.set_expire_steps(job.train().expire_steps());
  table.set_keep_count(job.train().keep_count());
  return table;
}

std::vector<wire::TableSpec> table_specs(const Plan& plan) {
  std::vector<wire::TableSpec> tables;
  for (const data::SlotSpec& slot : plan.train.slots) tables.push_back(slot_table(plan, slot));
  const auto dense = worker::dense_tables(*plan.graph, worker::WorkerOptions().dense_block);
  for (std::size_t i = 0; i < dense.size(); ++i) {
    wire::TableSpec& table = tables.emplace_back();
    table.set_name(i == 0 ? "dense" : "statistics");
    table.set_width(dense[i].block());
    if (i == 0) {
      *table.mutable_optimizer() = wire_optimizer(plan.job.spec.train().dense_optimizer());
    } else {
      table.mutable_optimizer()->set_kind(wire::Optimizer::SGD);
      table.mutable_optimizer()->set_rate(kStatisticsRate);
    }
  }
  return tables;
}

std::string model_identity(const Plan& plan) {
  std::vector<std::string> slots;
  for (const nn::SlotSpec& slot : plan.graph->slots()) {
    slots.push_back(slot.name + ":" + std::to_string(slot.width));
  }
  std::uint64_t shapes = 0;
  for (const nn::ParamSpec& param : plan.graph->params()) {
    for (const char c : param.name) shapes = hash64(shapes, static_cast<unsigned char>(c));
    shapes = hash64(shapes, static_cast<std::uint64_t>(param.rows),
                    static_cast<std::uint64_t>(param.cols));
  }
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(shapes));
  return plan.model.kind + " [" + join(slots) + "] " + text;
}

Result<std::shared_ptr<const data::PreparedLog>> open_log(Storage& storage, const LoadedJob& job) {
  const std::string& path = job.spec.data().path();
  auto log = data::PreparedLog::open(storage, path);
  if (log.ok() || storage.exists(path)) {
    if (log.ok()) return log;
    return std::move(log).status().context(job.place("data.path"));
  }
  return not_found(job.place("data.path") + ": no prepared log '" + path +
                   "'; write one with: meander prepare --format ... --in ... --out " + path);
}

std::uint32_t table_of(const std::vector<data::SlotSpec>& slots, data::SlotSource source) {
  const auto slot = std::ranges::find(slots, source, &data::SlotSpec::source);
  return slot == slots.end() ? 0 : slot->table;
}

// What a model of a graph works on: whole, or what batches draw from. `nodes`: of a log of nodes.
Status add_graph(const std::optional<data::NodeGraph>& nodes,
                 const std::vector<data::SlotSpec>& slots, Plan& plan) {
  using data::SlotSource;
  using models::GraphKind;
  models::ModelSpec& model = plan.model;
  const GraphKind kind = models::graph_of(model.kind);
  if (kind == GraphKind::kNone) return {};
  const std::int64_t until = time_or(plan.job.spec.data().train().until(), kEndOfTime);
  const float half_life_h = plan.job.is_given("model.half_life_h") ? model.half_life_h : 0;
  if (kind == GraphKind::kUsersAndItems) {
    model.adjacency = adjacency_of(*plan.log, until, half_life_h);
    return {};
  }
  if (nodes) model.classes = static_cast<std::int32_t>(plan.log->items().size());
  if (kind == GraphKind::kNodes) {
    CHECK(nodes.has_value());
    ASSIGN_OR_RETURN(const NodeMatrices matrices, node_matrices(*plan.log, *nodes));
    model.adjacency = matrices.adjacency;
    model.features = matrices.features;
    return {};
  }
  data::NeighbourGraph graph;
  if (nodes) {
    ASSIGN_OR_RETURN(graph, neighbours_of(*plan.log, *nodes));
  } else {
    graph = neighbours_of(*plan.log, until, half_life_h);
  }
  graph.user_table = table_of(slots, nodes ? SlotSource::kWord : SlotSource::kUser);
  graph.item_table = table_of(slots, SlotSource::kItem);
  plan.neighbours = std::make_shared<const data::NeighbourGraph>(std::move(graph));
  return {};
}

// Of a log of nodes, if the model has any use for it.
Result<std::optional<data::NodeGraph>> load_nodes(Storage& storage, const Plan& plan) {
  const models::GraphKind kind = models::graph_of(plan.job.spec.model().kind());
  const bool wants = kind == models::GraphKind::kNodes || kind == models::GraphKind::kDrawn;
  if (!wants) return std::optional<data::NodeGraph>();
  auto nodes = data::read_node_graph(storage, plan.log->path());
  if (nodes.ok()) return std::optional(std::move(nodes).value());
  if (kind == models::GraphKind::kDrawn && nodes.status().code() == Code::kNotFound) {
    return std::optional<data::NodeGraph>();
  }
  return std::move(nodes).status();
}

std::size_t distinct_words(const data::NodeGraph& nodes) {
  std::unordered_set<std::uint64_t> words;
  for (const data::NodeWord& has : nodes.words) words.insert(has.word);
  return words.size();
}

// Batches of one data::Stream, in part: `count` of them from `first` on. Those behind the stream's
// end are empty.
class StreamSource final : public worker::BatchSource {
 public:
  StreamSource(std::unique_ptr<data::Stream> stream, std::uint64_t first, std::uint64_t count)
      : stream_(std::move(stream)), first_(first), count_(count) {}
  std::uint64_t batches() const override { return count_; }
  Status build(std::uint64_t seq, const PartitionMap& lanes, data::Batch& batch) override {
    CHECK_LT(seq, count_);
    if (first_ + seq < stream_->batches()) {
      stream_->build(first_ + seq, lanes, batch);
    } else {
      batch.samples = 0;
      batch.progress = 1;
    }
    return {};
  }

 private:
  std::unique_ptr<data::Stream> stream_;
  std::uint64_t first_, count_;
};

}  // namespace

std::uint32_t Plan::lanes() const { return lane_count(job.spec.cluster()); }

std::int64_t Plan::staleness() const {
  switch (job.spec.train().mode()) {
    case job::Train::bsp:
      return 0;
    case job::Train::ssp:
      return job.spec.train().staleness();
    case job::Train::asp:
      return -1;
  }
  return 0;
}

Result<Plan> make_plan(Storage& storage, LoadedJob job) {
  Plan plan;
  plan.job = std::move(job);
  const job::Job& spec = plan.job.spec;
  ASSIGN_OR_RETURN(plan.log, open_log(storage, plan.job));
  ASSIGN_OR_RETURN(const std::optional<data::NodeGraph> nodes, load_nodes(storage, plan));
  if (nodes) plan.words = distinct_words(*nodes);
  ASSIGN_OR_RETURN(const std::vector<data::SlotSpec> slots,
                   find_slots(*plan.log, plan.job, nodes.has_value()));
  ASSIGN_OR_RETURN(plan.content, load_content(storage, plan.job, *plan.log, slots));
  plan.model = model_spec(spec.model(), *plan.log, slots, plan.content.get(), plan.job);
  RETURN_IF_ERROR(add_graph(nodes, slots, plan));
  auto graph = models::build_model(plan.model);
  if (!graph.ok()) return std::move(graph).status().context(plan.job.file + ": model");
  plan.graph = std::make_shared<const nn::Graph>(std::move(graph).value());
  if (plan.model.second_weight > 0 && plan.log->second_label().empty()) {
    return invalid(plan.job.place("model.second_weight") + ": " + plan.log->path() +
                   " has no second label; prepare it with --stay or --label-min");
  }

  plan.train = stream_spec(plan, slots);
  set_range(plan.train, spec.data().train());
  plan.train.folds = spec.data().folds();
  plan.train.fold = spec.data().fold();
  plan.train.count = plan.workers();
  plan.train.epochs = spec.train().epochs();
  plan.train.samples_max = spec.train().samples_max();
  set_needs(*plan.graph, true, plan.train);
  plan.trains = spec.data().train().part() != job::Range::none;

  plan.held_out = stream_spec(plan, slots);
  set_range(plan.held_out, spec.data().test());
  plan.held_out.order = data::StreamOrder::kTime;
  set_needs(*plan.graph, false, plan.held_out);
  // Targets that have negatives of their own are ranked among those.
  const bool is_fold = spec.data().test().part() == job::Range::fold;
  const bool ranks_all =
      plan.graph->ranks() != nn::kNoTensor && (is_fold || plan.log->test_negatives() == 0);
  if (is_fold) {
    plan.held_out.folds = plan.train.folds;
    plan.held_out.fold = plan.train.fold;
    plan.held_out.is_fold = true;
    if (ranks_all) plan.held_out.negatives.kind = data::NegativeKind::kNone;
  }
  plan.held_out.seen = ranks_all && !spec.data().rank_seen();
  // Test targets have the negatives that the log says, however many training draws.
  if (plan.held_out.part == data::LogPart::kTest) {
    plan.held_out.negatives.count = plan.log->test_negatives();
    if (plan.log->test_negatives() == 0) plan.held_out.negatives.kind = data::NegativeKind::kNone;
    const std::uint32_t groups = plan.train.batch / (1 + plan.train.negatives.per_target());
    plan.held_out.batch = groups * (1 + plan.held_out.negatives.per_target());
  }
  plan.evaluates =
      is_fold || (spec.data().test().part() != job::Range::none && plan.log->test_targets() > 0);

  // What a stream cannot do on this log is found here, before any role starts.
  if (plan.trains) {
    auto stream = data::Stream::open(plan.log, plan.train);
    if (!stream.ok()) return std::move(stream).status().context(plan.job.file + ": data.train");
  }
  if (plan.evaluates) {
    auto stream = data::Stream::open(plan.log, plan.held_out);
    if (!stream.ok()) return std::move(stream).status().context(plan.job.file + ": data.test");
    plan.evaluates = stream.value()->batches() > 0;
  }
  plan.tables = table_specs(plan);
  plan.identity = model_identity(plan);
  return plan;
}

scheduler::SchedulerOptions scheduler_options(const Plan& plan, std::uint64_t cluster) {
  const job::Job& job = plan.job.spec;
  scheduler::SchedulerOptions options;
  options.cluster = cluster;
  options.lanes = plan.lanes();
  options.replicas = job.cluster().replicas();
  options.workers = plan.workers();
  options.streams = plan.workers();
  options.staleness = plan.staleness();
  options.tables = plan.tables;
  const std::vector<float> dense = plan.graph->initial_dense(job.train().seed());
  auto table = static_cast<std::uint32_t>(plan.graph->tables());
  for (const worker::DenseBlocks& blocks :
       worker::dense_tables(*plan.graph, worker::WorkerOptions().dense_block)) {
    scheduler::SchedulerOptions::Preset preset;
    preset.table = table++;
    preset.keys = blocks.keys();
    preset.rows.resize(blocks.blocks() * blocks.block());
    blocks.scatter(dense, preset.rows);
    options.presets.push_back(std::move(preset));
  }
  options.train = plan.trains;
  options.evaluate = plan.evaluates;
  options.model = plan.identity;
  options.job = write_yaml(job, nullptr);
  options.checkpoint_dir = job.checkpoint().dir();
  options.checkpoint_every_s = job.checkpoint().every_s();
  options.keep = job.checkpoint().keep();
  options.full_every = job.checkpoint().full_every();
  options.heartbeat = std::chrono::milliseconds(job.cluster().heartbeat_ms());
  options.lease = std::chrono::milliseconds(job.cluster().lease_ms());
  options.join = std::chrono::seconds(job.cluster().join_s());
  return options;
}

Result<std::uint64_t> samples_until(const Plan& plan, const manifest::Manifest* manifest) {
  std::uint64_t samples = 0;
  for (std::uint32_t i = 0; i < plan.workers(); ++i) {
    data::StreamSpec spec = plan.train;
    spec.index = i;
    ASSIGN_OR_RETURN(const auto stream, data::Stream::open(plan.log, spec));
    std::uint64_t next = manifest == nullptr ? stream->batches() : 0;
    if (manifest != nullptr) {
      for (const manifest::Stream& position : manifest->streams()) {
        if (position.stream() == i) next = position.ended() ? stream->batches() : position.next();
      }
    }
    const std::uint64_t group = 1 + spec.negatives.per_target();
    const std::uint64_t full = std::max<std::uint64_t>(1, spec.batch / group) * group;
    samples += next >= stream->batches() ? stream->samples() : next * full;
  }
  return samples;
}

nn::Precision precision_of(const Plan& plan) {
  return plan.job.spec.train().precision() == job::Train::mixed ? nn::Precision::kMixed
                                                                : nn::Precision::kF32;
}

bool averages_dense(const Plan& plan) {
  return plan.job.spec.train().dense() == job::Train::allreduce;
}

Status check_no_averaging(const Plan& plan) {
  if (!averages_dense(plan)) return {};
  return invalid(plan.job.place("train.dense") +
                 ": allreduce needs MPI: start it with mpirun -np N meander train");
}

std::vector<nn::ConstMatrix> frozen_rows(const Plan& plan) {
  std::vector<nn::ConstMatrix> frozen(plan.graph->tables());
  for (const data::SlotSpec& slot : plan.train.slots) {
    if (slot.source != data::SlotSource::kContent) continue;
    const auto width = static_cast<std::int32_t>(plan.content->width());
    const auto rows = static_cast<std::int32_t>(plan.content->rows_count());
    frozen[slot.table] = {plan.content->rows().data(), rows, width, width};
  }
  return frozen;
}

worker::OpenStream open_stream(const Plan& plan) {
  return [log = plan.log, spec = plan.train, in_step = averages_dense(plan)](
             std::uint32_t index) -> Result<std::unique_ptr<worker::BatchSource>> {
    data::StreamSpec of_stream = spec;
    std::uint64_t batches = 0;
    for (std::uint32_t i = 0; in_step && i < spec.count; ++i) {
      of_stream.index = i;
      ASSIGN_OR_RETURN(const auto stream, data::Stream::open(log, of_stream));
      batches = std::max(batches, stream->batches());
    }
    of_stream.index = index;
    ASSIGN_OR_RETURN(auto stream, data::Stream::open(log, of_stream));
    batches = std::max(batches, stream->batches());
    return std::unique_ptr<worker::BatchSource>(
        std::make_unique<StreamSource>(std::move(stream), 0, batches));
  };
}

worker::OpenSlice open_slice(const Plan& plan) {
  return [log = plan.log, spec = plan.held_out](
             std::uint32_t slice,
             std::uint32_t slices) -> Result<std::unique_ptr<worker::BatchSource>> {
    ASSIGN_OR_RETURN(auto stream, data::Stream::open(log, spec));
    const std::uint64_t all = stream->batches();
    const std::uint64_t first = all * slice / slices, end = all * (slice + 1) / slices;
    return std::unique_ptr<worker::BatchSource>(
        std::make_unique<StreamSource>(std::move(stream), first, end - first));
  };
}

}  // namespace meander::launch
