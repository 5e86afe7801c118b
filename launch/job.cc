// SPDX-License-Identifier: Apache-2.0
#include "launch/job.h"

#include <cstdlib>
#include <filesystem>

#include "common/partition.h"
#include "data/schema.h"
#include "launch/suggest.h"
#include "launch/text.h"
#include "models/model.h"

namespace meander::launch {
namespace {

constexpr char kDataVariable[] = "$MEANDER_DATA";

// Collects the first thing that is wrong; later checks are skipped.
class Checker {
 public:
  explicit Checker(const LoadedJob& job) : job_(job) {}

  void require(bool holds, const std::string& path, const std::string& expected) {
    if (status_.ok() && !holds) status_ = invalid(job_.place(path) + ": " + expected);
  }
  template <class T>
  void range(const std::string& path, T value, T low, T high) {
    require(value >= low && value <= high, path,
            "must be from " + number(low) + " to " + number(high) + ", got " + number(value));
  }
  void time(const std::string& path, const std::string& text, std::int64_t& ms) {
    if (text.empty() || !status_.ok()) return;
    Result<std::int64_t> parsed = data::parse_time_ms(text);
    if (!parsed.ok()) {
      status_ = std::move(parsed).status().context(job_.place(path));
    } else {
      ms = parsed.value();
    }
  }
  bool ok() const { return status_.ok(); }
  Status status() && { return std::move(status_); }

 private:
  static std::string number(double value) {
    std::string text = fixed(value, 6);
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
    return text;
  }
  template <class T>
    requires std::is_integral_v<T>
  static std::string number(T value) {
    return std::to_string(value);
  }

  const LoadedJob& job_;
  Status status_;
};

void check_range(Checker& check, const std::string& path, const job::Range& range) {
  std::int64_t from = 0, until = 0;
  check.time(path + ".from", range.from(), from);
  check.time(path + ".until", range.until(), until);
  const bool both = !range.from().empty() && !range.until().empty();
  check.require(!both || from < until, path + ".until", "must be after " + path + ".from");
}

void check_data(Checker& check, const job::Job& job) {
  const job::Data& data = job.data();
  check.range("data.history", data.history(), 0u, 100'000u);
  check_range(check, "data.train", data.train());
  check_range(check, "data.test", data.test());
  check.range("data.folds", data.folds(), 0u, 1000u);
  check.require(data.folds() != 1, "data.folds",
                "one fold leaves nothing to train on: 0, or 2 and more");
  check.require(data.fold() < std::max(1u, data.folds()), "data.fold",
                "must be below data.folds: folds are numbered from 0");
  check.require(data.train().part() != job::Range::fold, "data.train.part",
                "a fold is held out: it is of data.test.part");
  check.require(data.test().part() != job::Range::fold || data.folds() > 0, "data.test.part",
                "say into how many folds users are dealt: data.folds");
  const job::Negatives& negatives = data.negatives();
  check.range("data.negatives.count", negatives.count(), 1u, 10'000u);
  check.range("data.negatives.shared", negatives.shared(), 0u, 1'000'000u);
  check.range("data.negatives.shared_power", negatives.shared_power(), 0.0, 10.0);
  check.require(job.model().loss() != "sampled" || negatives.shared() > 0, "data.negatives.shared",
                "say how many items model.loss: sampled is to draw for a batch");
  check.range("data.negatives.window_s", negatives.window_s(), 0.001, 1e9);
  if (data.has_content()) {
    check.require(!data.content().vectors().empty(), "data.content.vectors",
                  "say where the vectors of items are: a .npy file");
    check.require(!data.content().items().empty(), "data.content.items",
                  "say which items the vectors are of: a .npy file of int64, or a text of ids");
  }
  if (!data.has_source()) return;
  check.require(!data.source().format().empty(), "data.source.format",
                "say what the input is, such as ml-1m or csv");
  check.require(data.source().in_size() > 0, "data.source.in", "say what to read");
}

void check_widths(Checker& check, const std::string& path,
                  const google::protobuf::RepeatedField<std::uint32_t>& widths) {
  for (const std::uint32_t width : widths) check.range(path, width, 1u, 65'536u);
}

void check_word(Checker& check, const std::string& path, const std::string& word,
                const std::vector<std::string>& known) {
  const bool is_known = std::find(known.begin(), known.end(), word) != known.end();
  check.require(
      is_known, path,
      "expected one of " + join(known) + ", got '" + word + "'" + did_you_mean(word, known));
}

void check_model(Checker& check, const job::Model& model) {
  check_word(check, "model.kind", model.kind(), models::model_kinds());
  check.range("model.embedding", model.embedding(), 1u, 4096u);
  check.range("model.hidden", model.hidden(), 1u, 65'536u);
  check.range("model.layers", model.layers(), 1u, 64u);
  check_widths(check, "model.attention", model.attention());
  check_widths(check, "model.head", model.head());
  check_word(check, "model.activation", model.activation(), {"dice", "prelu", "relu"});
  check_word(check, "model.dice", model.dice(), {"batch", "moving"});
  check_word(check, "model.auxiliary_mean", model.auxiliary_mean(), {"padded", "real"});
  check.range("model.l2", model.l2(), 0.0f, 1e6f);
  check.range("model.auxiliary_weight", model.auxiliary_weight(), 0.0f, 1e6f);
  check_word(check, "model.evolution", model.evolution(), {"augru", "aigru", "agru"});
  check_word(check, "model.cell", model.cell(), {"gru", "lstm"});
  check_word(check, "model.loss", model.loss(), {"bce", "softmax", "sampled"});
  check.range("model.click_weight", model.click_weight(), 0.0f, 1e6f);
  check.range("model.second_weight", model.second_weight(), 0.0f, 1e6f);
  check.range("model.dropout", model.dropout(), 0.0f, 0.99f);
  check.range("model.initial_range", model.initial_range(), 0.0f, 1e3f);
  check.range("model.blocks", model.blocks(), 1u, 64u);
  check.range("model.heads", model.heads(), 1u, 64u);
  check.range("model.content_width", model.content_width(), 0u, 4096u);
  check_word(check, "model.decay", model.decay(), {"fixed", "learned", "user", "category"});
  check.range("model.half_life_h", model.half_life_h(), 1e-3f, 1e6f);
}

void check_schedule(Checker& check, const std::string& path, const job::Optimizer& optimizer) {
  const job::Schedule& schedule = optimizer.schedule();
  check.range(path + ".warmup", schedule.warmup(), std::uint64_t{0}, std::uint64_t{1} << 40);
  check.range(path + ".factor", schedule.factor(), 0.0f, 1.0f);
  check.require(schedule.kind() == job::Schedule::constant || schedule.steps() > 0, path + ".steps",
                "say over how many steps the rate falls");
  const bool is_plain = schedule.kind() == job::Schedule::constant && schedule.warmup() == 0;
  check.require(is_plain || optimizer.kind() != job::Optimizer::ftrl, path,
                "ftrl has a schedule of its own for each weight");
}

void check_optimizer(Checker& check, const std::string& path, const job::Optimizer& optimizer) {
  check.range(path + ".rate", optimizer.rate(), 0.0f, 1e6f);
  check.range(path + ".beta1", optimizer.beta1(), 0.0f, 0.999999f);
  check.range(path + ".beta2", optimizer.beta2(), 0.0f, 0.999999f);
  check.require(optimizer.epsilon() > 0, path + ".epsilon", "must be above 0");
  check.range(path + ".initial_accumulator", optimizer.initial_accumulator(), 0.0f, 1e6f);
  check.range(path + ".l2", optimizer.l2(), 0.0f, 1e6f);
  check.range(path + ".l1", optimizer.l1(), 0.0f, 1e6f);
  check.range(path + ".delay_compensation", optimizer.delay_compensation(), 0.0f, 1e6f);
  const auto kind = optimizer.kind();
  check.require(optimizer.l1() == 0 || kind == job::Optimizer::sgd ||
                    kind == job::Optimizer::adagrad || kind == job::Optimizer::rowwise_adagrad ||
                    kind == job::Optimizer::ftrl,
                path + ".l1", "is of sgd, adagrad, rowwise_adagrad and ftrl");
  check.require((optimizer.weight_decay() > 0) == (kind == job::Optimizer::adamw),
                path + ".weight_decay",
                kind == job::Optimizer::adamw ? "say by how much adamw decays: above 0"
                                              : "is of adamw; others have l2");
  check.require(optimizer.rate() * optimizer.weight_decay() <= 1, path + ".weight_decay",
                "must be at most 1 / rate");
  if (kind == job::Optimizer::ftrl) {
    check.require(optimizer.rate() > 0, path + ".rate", "must be above 0 for ftrl");
    check.require(optimizer.beta() > 0 && optimizer.beta() <= 1e6f, path + ".beta",
                  "must be above 0 and at most 1000000");
  }
  check_schedule(check, path + ".schedule", optimizer);
}

void check_train(Checker& check, const job::Job& job) {
  const job::Train& train = job.train();
  const job::Negatives& negatives = job.data().negatives();
  const std::uint32_t group =
      1 + (negatives.kind() == job::Negatives::none ? 0 : negatives.count());
  check.range("train.epochs", train.epochs(), 1u, 1'000'000u);
  check.require(train.batch() >= group, "train.batch",
                "must hold a target and its negatives: at least " + std::to_string(group));
  check.range("train.batch", train.batch(), 1u, 1u << 24);
  const bool stops_early = train.early_stop().patience() > 0;
  check.require(!stops_early || !job.checkpoint().dir().empty(), "train.early_stop",
                "needs checkpoint.dir, where the best epoch is kept");
  check.require(!stops_early || train.samples_max() == 0, "train.samples_max",
                "ends a run within an epoch, train.early_stop after one: give one of them");
  check.range("train.parts", train.parts(), 1u, 1024u);
  check.range("train.depth", train.depth(), 0u, 64u);
  check.range("train.staleness", train.staleness(), 0u, 1'000'000u);
  check.range("train.clip_norm", train.clip_norm(), 0.0f, 1e9f);
  check.range("train.expire_steps", train.expire_steps(), std::uint64_t{0}, std::uint64_t{1} << 39);
  check.range("train.keep_count", train.keep_count(), 0u, (1u << 24) - 1);
  check.require(train.keep_count() == 0 || train.expire_steps() > 0, "train.keep_count",
                "spares rows of expire_steps, which is not given");
  check.range("train.clip_row", train.clip_row(), 0.0f, 1e9f);
  check_optimizer(check, "train.optimizer", train.optimizer());
  check_optimizer(check, "train.dense_optimizer", train.dense_optimizer());
  const bool compensates = train.optimizer().delay_compensation() > 0 ||
                           train.dense_optimizer().delay_compensation() > 0;
  check.require(!compensates || job.cluster().replicas() == 0, "train.optimizer.delay_compensation",
                "needs what a pull read, which a backup does not hold: cluster.replicas must be 0");
  check.require(train.dense() != job::Train::allreduce || train.mode() == job::Train::bsp,
                "train.dense", "allreduce averages every step and so needs train.mode bsp");
}

void check_cluster(Checker& check, const job::Cluster& cluster) {
  check.range("cluster.ps", cluster.ps(), 1u, 4096u);
  check.range("cluster.lanes", cluster.lanes(), 0u, kPartitions);
  check.range("cluster.workers", cluster.workers(), 1u, 4096u);
  check.range("cluster.threads", cluster.threads(), 0u, 1024u);
  check.range("cluster.heartbeat_ms", cluster.heartbeat_ms(), 10u, 600'000u);
  check.range("cluster.join_s", cluster.join_s(), 1u, 86'400u);
  check.require(cluster.lease_ms() >= 2 * cluster.heartbeat_ms(), "cluster.lease_ms",
                "must be at least twice cluster.heartbeat_ms, or a late word costs a lease");
  check.range("cluster.replicas", cluster.replicas(), 0u, 1u);
  check.require(cluster.replicas() == 0 || cluster.ps() >= 2, "cluster.replicas",
                "needs cluster.ps of at least 2: a backup is in another process than its lane");
  check.require(cluster.lanes() == 0 || cluster.lanes() >= cluster.ps(), "cluster.lanes",
                "must be at least cluster.ps: every ps process needs a lane");
}

Status check_job(const LoadedJob& job) {
  Checker check(job);
  check_data(check, job.spec);
  check_model(check, job.spec.model());
  check_train(check, job.spec);
  check_cluster(check, job.spec.cluster());
  check.range("checkpoint.every_s", job.spec.checkpoint().every_s(), 0.0, 1e9);
  check.range("checkpoint.keep", job.spec.checkpoint().keep(), 1u, 1'000'000u);
  check.range("checkpoint.full_every", job.spec.checkpoint().full_every(), 1u, 1000u);
  return std::move(check).status();
}

// Replaces $MEANDER_DATA in one path. kInvalid when nothing says where the data is.
Status expand(Storage& storage, const LoadedJob& job, const std::string& field, std::string& path) {
  const std::size_t at = path.find(kDataVariable);
  if (at == std::string::npos) return {};
  const std::string folder = resolve_data_folder(storage, job.file);
  if (folder.empty()) {
    return invalid(job.place(field) +
                   ": no data folder: set MEANDER_DATA to the folder that holds ml1m/, globo/, ... "
                   "(or put it at ../shared/data)");
  }
  path.replace(at, sizeof kDataVariable - 1, folder);
  return {};
}

Status expand_paths(Storage& storage, LoadedJob& job) {
  job::Data& data = *job.spec.mutable_data();
  RETURN_IF_ERROR(expand(storage, job, "data.path", *data.mutable_path()));
  if (data.has_content()) {
    job::Content& content = *data.mutable_content();
    RETURN_IF_ERROR(expand(storage, job, "data.content.vectors", *content.mutable_vectors()));
    RETURN_IF_ERROR(expand(storage, job, "data.content.items", *content.mutable_items()));
  }
  // The source is read only when the log has not been prepared yet.
  if (!data.has_source() || storage.exists(data.path())) return {};
  for (std::string& path : *data.mutable_source()->mutable_in()) {
    RETURN_IF_ERROR(expand(storage, job, "data.source.in", path));
  }
  for (std::string& word : *data.mutable_source()->mutable_options()) {
    RETURN_IF_ERROR(expand(storage, job, "data.source.options", word));
  }
  return {};
}

void fill_defaults(LoadedJob& job) {
  job::Job& spec = job.spec;
  if (spec.name().empty()) spec.set_name(std::filesystem::path(job.file).stem().string());
  if (spec.data().path().empty()) {
    spec.mutable_data()->set_path("prepared/" + spec.name());
  }
  // Touched, so that the resolved job shows every group with its values.
  spec.mutable_data()->mutable_train();
  spec.mutable_data()->mutable_test();
  if (!spec.data().test().has_part())
    spec.mutable_data()->mutable_test()->set_part(spec.data().folds() > 0 ? job::Range::fold
                                                                          : job::Range::test);
  spec.mutable_data()->mutable_negatives();
  spec.mutable_model();
  spec.mutable_train()->mutable_optimizer();
  if (!spec.train().has_dense_optimizer()) {
    *spec.mutable_train()->mutable_dense_optimizer() = spec.train().optimizer();
  }
  spec.mutable_cluster();
  spec.mutable_checkpoint();
}

}  // namespace

std::string LoadedJob::place(const std::string& path) const {
  const auto found = origins.find(path);
  return (found == origins.end() ? file : found->second) + ": " + path;
}

std::string resolve_data_folder(Storage& storage, const std::string& job_file) {
  const char* given = std::getenv("MEANDER_DATA");
  if (given != nullptr && *given != '\0') return given;
  const std::string beside = "../shared/data";
  if (storage.exists(beside)) return beside;
  const auto folder = std::filesystem::path(job_file).parent_path();
  const std::string of_project = (folder / ".." / beside).lexically_normal().string();
  return storage.exists(of_project) ? of_project : "";
}

std::vector<std::string> batch_fields() {
  return {"data.history", "data.order",      "data.train",        "data.negatives",
          "train.seed",   "train.epochs",    "train.samples_max", "train.batch",
          "model.slots",  "cluster.workers", "data.folds",        "data.fold"};
}

Result<LoadedJob> load_job(Storage& storage, const std::string& file,
                           const std::vector<std::string>& sets) {
  LoadedJob job;
  job.file = file;
  auto text = read_text(storage, file);
  if (!text.ok()) return std::move(text).status().context("job file");
  RETURN_IF_ERROR(read_yaml(text.value(), file, job.spec, job.origins));
  RETURN_IF_ERROR(set_from_environment(job.spec, job.origins));
  for (const std::string& set : sets) {
    RETURN_IF_ERROR(set_field(set, "--set", job.spec, job.origins));
  }
  fill_defaults(job);
  RETURN_IF_ERROR(check_job(job));
  RETURN_IF_ERROR(expand_paths(storage, job));
  return job;
}

}  // namespace meander::launch
