// SPDX-License-Identifier: Apache-2.0
#include "data/prepare.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "data/item_names.h"
#include "data/log_json.h"
#include "data/merge.h"
#include "data/node_graph.h"
#include "data/sampler.h"
#include "data/shard_builder.h"
#include "data/sources.h"
#include "data/spill.h"
#include "data/test_negatives.h"

namespace meander::data {
namespace {

constexpr std::uint32_t kStreamsMax = 4096;
constexpr std::uint64_t kMemoryBytesMin = std::uint64_t{1} << 20;

constexpr std::array<std::pair<std::string_view, Format>, 10> kFormats{
    {{"ml-1m", Format::kMl1m},
     {"globo", Format::kGlobo},
     {"ml-100k", Format::kMl100k},
     {"sequences", Format::kSequences},
     {"pairs", Format::kPairs},
     {"sessions", Format::kSessions},
     {"csv", Format::kCsv},
     {"tsv", Format::kTsv},
     {"jsonl", Format::kJsonl},
     {"cora", Format::kCora}}};

constexpr std::array<std::pair<std::string_view, Holdout>, 4> kHoldouts{{{"last", Holdout::kLast},
                                                                         {"time", Holdout::kTime},
                                                                         {"given", Holdout::kGiven},
                                                                         {"none", Holdout::kNone}}};

std::string_view name_of(Holdout kind) {
  for (const auto& [name, value] : kHoldouts) {
    if (value == kind) return name;
  }
  return "none";
}

// The protocol of a format: what an option is that nobody set.
struct Protocol {
  SplitRules split;
  NegativesSpec draw;
  const char* negatives_file = nullptr;  // in protocol/ beside the input
};

Protocol protocol_of(Format format) {
  Protocol protocol;
  if (format == Format::kMl1m || format == Format::kMl100k) {
    protocol.draw.exclude = Exclude::kUser;
    protocol.split.min_history = 5;
    protocol.split.targets_last = 50;
  }
  if (format == Format::kCora) {  // a node is no sequence, and its part stands beside it
    protocol.split.holdout = {Holdout::kGiven, 0};
    protocol.split.min_history = 0;
    protocol.draw.kind = NegativeKind::kNone;
  }
  if (format == Format::kMl1m) protocol.negatives_file = "ml1m_test_neg.txt";
  if (format == Format::kGlobo) {
    protocol.split.holdout = {Holdout::kTime, parse_time_ms("2017-10-13").value()};
    protocol.split.min_history = 2;
    protocol.draw.kind = NegativeKind::kRecent;
    protocol.negatives_file = "globo_test_neg.txt.zst";
  }
  return protocol;
}

Result<Protocol> protocol_of(const PrepareOptions& options) {
  Protocol protocol = protocol_of(options.format);
  if (!options.test_in.empty()) protocol.split.holdout = {Holdout::kGiven, 0};
  if (options.holdout) protocol.split.holdout = *options.holdout;
  const bool is_given = protocol.split.holdout.kind == Holdout::kGiven;
  const bool has_tests = !options.test_in.empty() || options.format == Format::kCora;
  if (is_given != has_tests) {
    return invalid("hold-out 'given' and files of test events go together: name both or neither");
  }
  if (options.min_history) protocol.split.min_history = *options.min_history;
  if (options.targets_last) protocol.split.targets_last = *options.targets_last;
  if (options.test_draw) protocol.draw = *options.test_draw;
  if (protocol.draw.kind == NegativeKind::kInBatch) {
    return invalid("test negatives cannot come from a batch; draw them popular, uniform or recent");
  }
  if (options.streams == 0 || options.streams > kStreamsMax) {
    return invalid("streams must be from 1 to " + std::to_string(kStreamsMax));
  }
  if (options.memory_bytes < kMemoryBytesMin) return invalid("memory must be at least 1 MiB");
  if (options.out.empty()) return invalid("no output directory");
  return protocol;
}

std::string without_slash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}
std::string parent_of(std::string path) {
  path = without_slash(std::move(path));
  const std::size_t at = path.rfind('/');
  return at == std::string::npos ? "." : at == 0 ? "/" : path.substr(0, at);
}

Result<LabelRule> label_rule(const PrepareOptions& options, const RecordShape& shape) {
  LabelRule rule;
  if (options.stay_s < 0 || options.stay_s > 1e9) return invalid("a stay must be above 0 s");
  if (options.stay_s > 0) {
    if (!shape.label.empty()) {
      return invalid("a second label is a stay or made of column '" + shape.label + "', not both");
    }
    if (!shape.has_time) return invalid("a stay needs times, and this input has none");
    rule.kind = LabelRule::kStay;
    rule.stay_ms = std::llround(options.stay_s * 1000);
    // Of 400,000 gaps in three days of the news clicks 212,453 are of 30.000 s, all but three of
    // them to the last click of a session, and nearly all of these: its time was not measured.
    const double filled_s = options.format == Format::kGlobo ? 30 : 0;
    rule.filled_ms = std::llround(options.stay_filled_s.value_or(filled_s) * 1000);
  } else if (!shape.label.empty()) {
    rule.kind = LabelRule::kAtLeast;
    rule.least = static_cast<float>(options.label_min.value_or(1));
  } else if (options.label_min) {
    return invalid("no column to make a second label of: the schema gives none the role label");
  }
  return rule;
}

class Preparation {
 public:
  Preparation(Storage& storage, const PrepareOptions& options, Protocol protocol, Source source,
              LabelRule label)
      : storage_(storage),
        options_(options),
        protocol_(std::move(protocol)),
        source_(std::move(source)),
        out_(without_slash(options.out)),
        directory_(out_ + ".tmp") {
    const RecordShape& shape = source_.shape();
    shape_.layout.contexts = static_cast<std::uint32_t>(shape.context.size());
    shape_.layout.numerics = static_cast<std::uint32_t>(shape.numeric.size());
    shape_.layout.has_session = shape.has_session && label.kind == LabelRule::kStay;
    shape_.layout.has_label = label.kind == LabelRule::kAtLeast;
    shape_.label = label;
    shape_.has_category = shape.has_category;
    shape_.has_time = shape.has_time;
  }

  Result<PrepareReport> run() {
    RETURN_IF_ERROR(storage_.remove(directory_));
    RETURN_IF_ERROR(storage_.make_directories(directory_));
    Status status = write();
    if (status.ok()) status = storage_.rename(directory_, out_);
    if (status.ok()) return std::move(report_);
    // What is half written is of no use; if it cannot be removed either, the first error counts.
    (void)storage_.remove(directory_);
    return status;
  }

 private:
  Status write() {
    ASSIGN_OR_RETURN(std::vector<SpillFile> spills, read_source());
    ASSIGN_OR_RETURN(
        spills, split_large(storage_, std::move(spills), shape_.layout, options_.memory_bytes));
    RETURN_IF_ERROR(build_shards(spills));
    ASSIGN_OR_RETURN(const MergeResult merged, merge_runs(storage_, directory_, drafts_, shape_));
    RETURN_IF_ERROR(
        write_column(storage_, path("items.col"), std::span<const ItemEntry>(merged.items)));
    for (const ShardDraft& draft : drafts_) RETURN_IF_ERROR(finish_shard(storage_, draft, shape_));
    RETURN_IF_ERROR(write_names(merged));
    if (options_.format == Format::kCora) {
      RETURN_IF_ERROR(write_node_graph(storage_, directory_, source_.nodes()));
    }
    fill_meta(merged);
    RETURN_IF_ERROR(write_meta());
    return write_test_negatives();
  }

  std::string path(const std::string& name) const { return join_path(directory_, name); }

  Result<std::vector<SpillFile>> read_source() {
    ASSIGN_OR_RETURN(Spill spill,
                     Spill::create(storage_, path("spill"), shape_.layout, options_.streams, 0));
    std::int64_t newest_ms = std::numeric_limits<std::int64_t>::min();
    shape_.rows_in_order = true;
    std::uint64_t row = 0;  // refused ones not counted: in order of time it is the place in the log
    Intake intake(
        [&](const Record& record) {
          shape_.rows_in_order &= record.time_ms >= newest_ms;
          newest_ms = std::max(newest_ms, record.time_ms);
          spill.add(record, row++);
        },
        options_.refusals_kept);
    RETURN_IF_ERROR(source_.read(intake));
    report_.records = intake.records();
    report_.refused = intake.refused();
    report_.refused_by_reason = intake.by_reason();
    report_.refusals = intake.first();
    report_.bytes_read = source_.bytes_read();
    RETURN_IF_ERROR(check_intake());
    return spill.finish();
  }

  Status check_intake() const {
    const std::string counts = std::to_string(report_.refused) + " of " +
                               std::to_string(report_.records) + " records refused";
    const std::string first = report_.refusals.empty() ? "" : report_.refusals.front() + "; ";
    if (report_.records == 0) return invalid(source_.files().front() + ": holds no events");
    if (report_.refused == report_.records) return invalid(first + "no record is usable");
    const double share =
        static_cast<double>(report_.refused) / static_cast<double>(report_.records);
    if (share <= options_.refused_share_max) return {};
    return invalid(first + counts + ", more than the " +
                   std::to_string(static_cast<int>(options_.refused_share_max * 100 + 0.5)) +
                   " % that are allowed; mend the input or the schema, or allow more");
  }

  Status build_shards(const std::vector<SpillFile>& spills) {
    for (const SpillFile& spill : spills) {
      const std::string directory =
          path(shard_directory(static_cast<std::uint32_t>(drafts_.size())));
      ASSIGN_OR_RETURN(ShardDraft draft,
                       build_shard(storage_, spill, directory, protocol_.split, shape_));
      RETURN_IF_ERROR(storage_.remove(spill.path));
      drafts_.push_back(std::move(draft));
    }
    return {};
  }

  // items.tsv: the items that occur, with what the source says of them.
  Status write_names(const MergeResult& merged) {
    if (!source_.names() || source_.names()->categories.empty()) return {};
    const ItemNames& names = *source_.names();
    const auto clean = [](std::string text) {
      std::replace_if(text.begin(), text.end(), [](char c) { return c >= 0 && c < ' '; }, ' ');
      return text;
    };
    std::string text;
    for (const ItemEntry& entry : merged.items) {
      const auto item = names.items.find(entry.item);
      const auto category = names.categories.find(entry.category);
      text += std::to_string(entry.item) + "\t" + std::to_string(entry.category) + "\t" +
              (category == names.categories.end() ? "" : clean(category->second)) + "\t" +
              (item == names.items.end() ? "" : clean(item->second.title)) + "\n";
    }
    meta_.has_names = true;
    ASSIGN_OR_RETURN(auto file, storage_.create(path(kItemsTsv)));
    RETURN_IF_ERROR(file->append(text.data(), text.size()));
    return file->close();
  }

  void fill_meta(const MergeResult& merged) {
    report_.items = meta_.items = merged.items.size();
    report_.categories = meta_.categories = merged.categories;
    report_.streams = meta_.shards = static_cast<std::uint32_t>(drafts_.size());
    for (const ShardDraft& draft : drafts_) {
      report_.users = meta_.users += draft.users;
      report_.events = meta_.events += draft.events;
      report_.train_targets = meta_.train_targets += draft.train_targets;
      report_.test_targets = meta_.test_targets += draft.test_targets;
      report_.labels_known += draft.labels_known;
      report_.labels_positive += draft.labels_positive;
    }
    meta_.has_category = shape_.has_category;
    meta_.has_time = shape_.has_time;
    meta_.context = source_.shape().context;
    if (shape_.label.kind == LabelRule::kStay) meta_.second_label = "stay";
    if (shape_.label.kind == LabelRule::kAtLeast) meta_.second_label = source_.shape().label;
    for (std::size_t i = 0; i < source_.shape().numeric.size(); ++i) {
      Moments moments;
      for (const ShardDraft& draft : drafts_) moments.add(draft.numeric[i]);
      meta_.numeric.push_back({source_.shape().numeric[i], static_cast<float>(moments.mean),
                               static_cast<float>(moments.std())});
    }
    meta_.holdout = name_of(protocol_.split.holdout.kind);
    meta_.holdout_from_ms = protocol_.split.holdout.from_ms;
    meta_.min_history = protocol_.split.min_history;
    meta_.targets_last = protocol_.split.targets_last;
    meta_.records = report_.records;
    meta_.refused = report_.refused_by_reason;
    for (const std::string& file : source_.files()) {
      meta_.sources.push_back(file.substr(file.rfind('/') + 1));
    }
  }

  Status write_meta() {
    const std::string text = to_log_json(meta_);
    return storage_.write_atomic(path(kLogJson), text.data(), text.size());
  }

  // A file that options name, or the protocol's beside the input.
  std::string negatives_file() const {
    if (!options_.test_negatives.empty()) return options_.test_negatives;
    if (protocol_.negatives_file == nullptr) return "";
    for (const std::string& in : options_.in) {
      for (const std::string& folder : {in, parent_of(in), parent_of(parent_of(in))}) {
        const std::string file = join_path(join_path(folder, "protocol"), protocol_.negatives_file);
        if (storage_.exists(file)) return file;
      }
    }
    return "";
  }

  // The log is whole but for these; they are drawn from it as a reader sees it.
  Status write_test_negatives() {
    NegativesSpec draw = protocol_.draw;
    if (meta_.test_targets == 0) return {};
    std::optional<ListedNegatives> listed;
    const std::string file = negatives_file();
    if (!file.empty()) {
      ASSIGN_OR_RETURN(listed, ListedNegatives::read(storage_, file));
      draw.count = listed->per_target();
    }
    if (draw.per_target() == 0) return {};
    ASSIGN_OR_RETURN(const auto log, PreparedLog::open(storage_, directory_));
    if (log->pool().empty()) return invalid("no training events to draw test negatives from");
    for (std::uint32_t s = 0; s < drafts_.size(); ++s) {
      RETURN_IF_ERROR(write_test_negatives(*log, s, draw, listed));
    }
    if (!options_.test_negatives.empty() && report_.test_negatives_listed == 0) {
      return invalid(file + ": lists none of this log's " + std::to_string(meta_.test_targets) +
                     " test targets");
    }
    meta_.test_negatives = draw.count;
    return write_meta();
  }

  Status write_test_negatives(const PreparedLog& log, std::uint32_t index,
                              const NegativesSpec& draw, std::optional<ListedNegatives>& listed) {
    const Shard& shard = log.shards()[index];
    const Sampler sampler(log, draw);
    std::vector<ItemRef> negatives(draw.count);
    ASSIGN_OR_RETURN(ColumnWriter writer,
                     ColumnWriter::create(
                         storage_, join_path(path(shard_directory(index)), "test_negatives.col"),
                         sizeof(ItemRef)));
    for (const Target& target : shard.test_targets) {
      const std::uint64_t* items =
          listed ? listed->take(shard.users[target.user].id, shard.item[target.event],
                                shard.time_ms.empty() ? 0 : shard.time_ms[target.event])
                 : nullptr;
      if (items != nullptr) {
        ++report_.test_negatives_listed;
        for (std::uint32_t n = 0; n < draw.count; ++n) negatives[n] = ref_of(log, items[n]);
      } else {
        const Sample sample = sample_of(log, shard, target, true, options_.history);
        sampler.draw(options_.test_seed, sample, negatives);
      }
      writer.append(std::span<const ItemRef>(negatives));
    }
    return writer.finish();
  }

  ItemRef ref_of(const PreparedLog& log, std::uint64_t item) const {
    if (const ItemEntry* entry = log.find_item(item)) return {item, entry->category};
    if (source_.names()) return {item, source_.names()->category_of(item)};
    return {item, log.has_category() ? unknown_category() : 0};
  }

  Storage& storage_;
  const PrepareOptions& options_;
  const Protocol protocol_;
  Source source_;
  const std::string out_;
  const std::string directory_;  // of work in progress
  LogShape shape_;
  LogMeta meta_;
  PrepareReport report_;
  std::vector<ShardDraft> drafts_;
};

}  // namespace

Result<Format> parse_format(std::string_view word) {
  std::string known;
  for (const auto& [name, format] : kFormats) {
    if (name == word) return format;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  return invalid("unknown format '" + std::string(word) + "'; known: " + known);
}

Result<HoldoutSpec> parse_holdout(std::string_view word) {
  if (word.starts_with("time:")) {
    ASSIGN_OR_RETURN(const std::int64_t from_ms, parse_time_ms(word.substr(5)));
    return HoldoutSpec{Holdout::kTime, from_ms};
  }
  if (word == "last+validation") return HoldoutSpec{Holdout::kLast, 0, true};
  for (const auto& [name, kind] : kHoldouts) {
    if (name == word && kind != Holdout::kTime) return HoldoutSpec{kind, 0};
  }
  return invalid("unknown hold-out '" + std::string(word) +
                 "'; known: last, last+validation, none, given, time:2017-10-13");
}

Result<PrepareReport> prepare(Storage& storage, const PrepareOptions& options) {
  ASSIGN_OR_RETURN(Protocol protocol, protocol_of(options));
  const Result<std::vector<std::string>> there = storage.list(options.out);
  const bool is_empty = there.ok() && there->empty();
  if (storage.exists(options.out) && !is_empty &&
      !storage.exists(join_path(options.out, kLogJson))) {
    return invalid(options.out + ": is there and is not a prepared log; choose another directory");
  }
  ASSIGN_OR_RETURN(Source source, Source::open(storage, options));
  const bool needs_time =
      protocol.split.holdout.kind == Holdout::kTime || protocol.draw.kind == NegativeKind::kRecent;
  if (needs_time && !source.shape().has_time) {
    return invalid(
        "the log has no times: hold-out by time and recent negatives need a time column");
  }
  ASSIGN_OR_RETURN(const LabelRule label, label_rule(options, source.shape()));
  return Preparation(storage, options, std::move(protocol), std::move(source), label).run();
}

}  // namespace meander::data
