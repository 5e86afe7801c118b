// SPDX-License-Identifier: Apache-2.0
// How fast does one thread take in an event log, and how fast does it read the prepared one and
// build batches of it, beside a bare look at the same bytes?
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstring>
#include <filesystem>
#include <memory>

#include "data/generate.h"
#include "data/line_reader.h"
#include "data/prepare.h"
#include "data/readers.h"
#include "data/sampler.h"
#include "data/stream.h"
#include "data/target_order.h"
#include "launch/bench/bench.h"
#include "launch/bench/measure.h"

namespace meander::launch::bench {
namespace {

struct Options {
  std::uint64_t events = 2'000'000;
  std::string dir;  // empty: the system's folder for temporary files
};

constexpr std::uint64_t kTargetsAtOnce = 64;
constexpr std::uint64_t kTargetsMax = 200'000;  // of one measurement
constexpr double kHistoryBytes = 24;            // of an event: item, category, time

// Sums of what is read end here: the compiler may not leave the reading out.
std::uint64_t volatile sink;

data::Schema generated_schema() {
  data::Schema schema;
  schema.delimiter.push_back(',');
  const auto i = data::ColumnType::kInt;
  schema.columns = {{"time_ms", data::ColumnRole::kTime, i},
                    {"user", data::ColumnRole::kUser, i},
                    {"item", data::ColumnRole::kItem, i},
                    {"category", data::ColumnRole::kCategory, i}};
  return schema;
}

data::StreamSpec stream_spec(data::StreamOrder order, bool auxiliary) {
  data::StreamSpec spec;
  spec.order = order;
  spec.auxiliary = auxiliary;
  spec.slots = {{"item", data::SlotSource::kItem, 0, ""},
                {"category", data::SlotSource::kCategory, 1, ""}};
  spec.tables = 2;
  return spec;
}

template <class T>
std::uint64_t sum_of(std::span<const T> values) {
  std::uint64_t sum = 0;
  for (const T& value : values) sum += static_cast<std::uint64_t>(value);
  return sum;
}

// A generated log in a folder that is removed at the end, and what one thread does with it. Each
// piece of work returns how much it did; what fails is in status().
class Logs {
 public:
  explicit Logs(const Options& options)
      : events_(options.events),
        folder_((std::filesystem::path(options.dir.empty()
                                           ? std::filesystem::temp_directory_path().string()
                                           : options.dir) /
                 ("meander-bench-data-" + std::to_string(getpid())))
                    .string()),
        storage_(make_posix_storage()) {}
  ~Logs() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  Status generate() {
    data::GenerateOptions options;
    options.out = join_path(folder_, "log");
    options.events = events_;
    options.users = std::max<std::uint64_t>(1, events_ / 40);
    options.items = std::max<std::uint64_t>(options.categories, events_ / 100);
    RETURN_IF_ERROR(storage_->make_directories(folder_));
    ASSIGN_OR_RETURN(const auto report, data::generate(*storage_, options));
    CHECK_EQ(report.events, events_);
    prepare_mb();
    RETURN_IF_ERROR(status_);
    ASSIGN_OR_RETURN(log_, data::PreparedLog::open(*storage_, prepared()));
    return {};
  }
  const Status& status() const { return status_; }

  double scan_mb() {
    const Result<Buffer> bytes = storage_->read(csv());
    if (!bytes.ok()) return fail(bytes.status());
    const char* at = reinterpret_cast<const char*>(bytes.value().data());
    const char* const end = at + bytes.value().size();
    std::uint64_t lines = 0;
    while (const void* found = std::memchr(at, '\n', end - at)) {
      at = static_cast<const char*>(found) + 1;
      ++lines;
    }
    sink = lines;
    return static_cast<double>(bytes.value().size()) / 1e6;
  }

  double parse_mb() {
    std::uint64_t sum = 0;
    data::Intake intake(
        [&](const data::Record& r) {
          sum += r.user ^ r.item ^ static_cast<std::uint64_t>(r.time_ms);
        },
        1);
    Result<data::LineReader> reader = data::LineReader::open(*storage_, csv());
    if (!reader.ok()) return fail(reader.status());
    const Status read = data::read_delimited(reader.value(), generated_schema(), true, nullptr,
                                             data::RecordKind::kOpen, intake);
    if (!read.ok()) return fail(read);
    CHECK_EQ(intake.refused(), 0u);
    sink = sum;
    return static_cast<double>(reader.value().bytes()) / 1e6;
  }

  double prepare_mb() {
    data::PrepareOptions options;
    options.in = {csv()};
    options.out = prepared();
    options.schema = generated_schema();
    const Result<data::PrepareReport> report = data::prepare(*storage_, options);
    if (!report.ok()) return fail(report.status());
    return static_cast<double>(report.value().bytes_read) / 1e6;
  }

  // All columns from one end to the other.
  double columns_gb() const {
    std::uint64_t sum = 0, events = 0;
    for (const data::Shard& shard : log_->shards()) {
      sum += sum_of(shard.item) + sum_of(shard.category) + sum_of(shard.time_ms);
      events += shard.item.size();
    }
    sink = sum;
    return static_cast<double>(events) * kHistoryBytes / 1e9;
  }

  // Targets from the middle of the stream on, in its order, with all columns of their histories.
  struct Read {
    double samples = 0, gb = 0;
  };
  Read histories(data::StreamOrder order) const {
    const data::StreamSpec spec = stream_spec(order, false);
    data::TargetOrder targets(*log_, spec);
    std::vector<data::TargetRef> some;
    const std::uint64_t begin = targets.size() / 2;
    const std::uint64_t end = std::min(targets.size(), begin + kTargetsMax);
    std::uint64_t sum = 0, events = 0;
    for (std::uint64_t at = begin; at < end; at += some.size()) {
      some.resize(std::min(kTargetsAtOnce, end - at));
      targets.get(0, at, some);
      for (const data::TargetRef& target : some) {
        const data::Sample sample =
            data::sample_of(*log_, *target.shard, target.target, false, spec.history);
        const std::uint32_t first = sample.history_begin, length = sample.length();
        sum += sum_of(target.shard->item.subspan(first, length)) +
               sum_of(target.shard->category.subspan(first, length)) +
               sum_of(target.shard->time_ms.subspan(first, length));
        events += length;
      }
    }
    sink = sum;
    return {2 * static_cast<double>(end - begin),
            static_cast<double>(events) * kHistoryBytes / 1e9};
  }

  double batches_samples(bool auxiliary) {
    const auto stream = data::Stream::open(log_, stream_spec(data::StreamOrder::kTime, auxiliary));
    if (!stream.ok()) return fail(stream.status());
    const PartitionMap lanes = PartitionMap::even(1);
    const std::uint64_t begin = stream.value()->batches() / 2;
    const std::uint64_t end =
        std::min(stream.value()->batches(), begin + kTargetsMax / kTargetsAtOnce);
    data::Batch batch;
    std::uint64_t samples = 0;
    for (std::uint64_t seq = begin; seq < end; ++seq) {
      stream.value()->build(seq, lanes, batch);
      samples += batch.samples;
    }
    return static_cast<double>(samples);
  }

 private:
  std::string csv() const { return join_path(folder_, "log/events.csv"); }
  std::string prepared() const { return join_path(folder_, "prepared"); }
  double fail(const Status& status) {
    if (status_.ok()) status_ = status;
    return 0;
  }

  const std::uint64_t events_;
  const std::string folder_;
  std::unique_ptr<Storage> storage_;
  std::shared_ptr<const data::PreparedLog> log_;
  Status status_;
};

// A probe of how much `work` does in a second.
template <class Work>
Probe rate_of(Work work) {
  return [work](std::vector<double>& figures) {
    const SystemClock clock;
    const TimePoint begin = clock.now();
    const double done = work();
    figures.push_back(done / seconds(clock.now() - begin));
  };
}

Result<std::vector<Row>> run(Options options, const Settings& settings) {
  if (settings.quick) options.events = 5000;
  if (options.events < 1000) return invalid("--events must be 1000 at least");
  Logs logs(options);
  RETURN_IF_ERROR(logs.generate());
  const auto time = data::StreamOrder::kTime, shuffle = data::StreamOrder::kShuffle;
  const std::vector<double> rates = medians_in_turn(
      settings.repetitions,
      {rate_of([&] { return logs.scan_mb(); }), rate_of([&] { return logs.parse_mb(); }),
       rate_of([&] { return logs.prepare_mb(); }), rate_of([&] { return logs.columns_gb(); }),
       rate_of([&] { return logs.histories(time).gb; }),
       rate_of([&] { return logs.histories(shuffle).gb; }),
       rate_of([&] { return logs.histories(time).samples; }),
       rate_of([&] { return logs.batches_samples(false); }),
       rate_of([&] { return logs.batches_samples(true); })});
  RETURN_IF_ERROR(logs.status());
  const std::string scan = "finding the line ends", columns = "the columns from end to end",
                    read = "reading their histories only";
  return std::vector<Row>{{"parse CSV", rates[1], rates[0], scan, "MB/s", 1},
                          {"prepare", rates[2], rates[0], scan, "MB/s", 1},
                          {"read histories", rates[4], rates[3], columns, "GB/s", 1},
                          {"read histories, shuffled", rates[5], rates[3], columns, "GB/s", 1},
                          {"build batches", rates[7], rates[6], read, "samples/s", 1},
                          {"build batches, auxiliary", rates[8], rates[6], read, "samples/s", 1}};
}

}  // namespace

void add_data(CLI::App& family, Context& context) {
  auto options = std::make_shared<Options>();
  CLI::App& command = add_benchmark(
      family, context, "data",
      "How fast does one thread take in an event log, and how fast does it read the prepared one "
      "and build batches of it, beside a bare look at the same bytes?",
      "meander bench data --events 10000000 --dir /var/tmp",
      [options](const Settings& settings) { return run(*options, settings); });
  command.add_option("--events", options->events, "of the generated log")->capture_default_str();
  command.add_option("--dir", options->dir,
                     "where to write; the folder of temporary files by default");
}

}  // namespace meander::launch::bench
