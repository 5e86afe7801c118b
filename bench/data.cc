// SPDX-License-Identifier: Apache-2.0
// How fast does one thread take in an event log, and how fast does it read the prepared one? Each
// row has, from the same process and interleaved with it, the limit that the machine sets to the
// same bytes. Prints medians.
//   bench_data [events = 4000000] [folder = /tmp/meander-bench-data] [only = rows that begin so]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/storage.h"
#include "data/generate.h"
#include "data/line_reader.h"
#include "data/prepare.h"
#include "data/readers.h"
#include "data/sampler.h"
#include "data/stream.h"
#include "data/target_order.h"

namespace meander::data {
namespace {

constexpr int kRepetitions = 5;
constexpr std::uint64_t kTargetsAtOnce = 64;

std::string only;

// What the compiler may not leave out.
std::uint64_t volatile sink;

template <class Work>
double seconds_of(Work work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// `work` and `limit` in turn; each returns how much it did.
template <class Work, class Limit>
void compare(const char* what, const char* unit, Work work, const char* limit_name, Limit limit) {
  if (!std::string_view(what).starts_with(only)) return;
  std::vector<double> rates, limits;
  for (int i = 0; i < kRepetitions; ++i) {
    double done = 0;
    const double seconds = seconds_of([&] { done = work(); });
    rates.push_back(done / seconds);
    const double limit_seconds = seconds_of([&] { done = limit(); });
    limits.push_back(done / limit_seconds);
  }
  const double rate = median(rates), most = median(limits);
  std::printf("%-22s %9.2f %-10s %s %.2f, ratio %.3f\n", what, rate, unit, limit_name, most,
              rate / most);
  std::fflush(stdout);
}

Schema generated_schema() {
  Schema schema;
  schema.delimiter.push_back(',');
  const auto i = ColumnType::kInt;
  schema.columns = {{"time_ms", ColumnRole::kTime, i},
                    {"user", ColumnRole::kUser, i},
                    {"item", ColumnRole::kItem, i},
                    {"category", ColumnRole::kCategory, i}};
  return schema;
}

double parse(Storage& storage, const std::string& csv) {
  std::uint64_t sum = 0;
  Intake intake([&](const Record& r) { sum += r.user ^ r.item ^ r.time_ms; }, 5);
  auto reader = LineReader::open(storage, csv);
  CHECK(reader.ok());
  CHECK(read_delimited(reader.value(), generated_schema(), true, nullptr, RecordKind::kOpen, intake)
            .ok());
  sink = sum;
  return static_cast<double>(reader.value().bytes()) / 1e6;
}

double count_lines(Storage& storage, const std::string& csv) {
  const Buffer bytes = storage.read(csv).value();
  const char* at = reinterpret_cast<const char*>(bytes.data());
  const char* const end = at + bytes.size();
  std::uint64_t lines = 0;
  while (const void* found = std::memchr(at, '\n', end - at)) {
    at = static_cast<const char*>(found) + 1;
    ++lines;
  }
  sink = lines;
  return static_cast<double>(bytes.size()) / 1e6;
}

double prepare_log(Storage& storage, const std::string& csv, const std::string& out) {
  PrepareOptions options;
  options.in = {csv};
  options.out = out;
  options.schema = generated_schema();
  const auto report = prepare(storage, options);
  CHECK(report.ok()) << report.status().message();
  return static_cast<double>(report->bytes_read) / 1e6;
}

template <class T>
std::uint64_t sum_of(std::span<const T> values) {
  std::uint64_t sum = 0;
  for (const T& value : values) sum += static_cast<std::uint64_t>(value);
  return sum;
}

// Every target in the stream's order with all columns of its history, as a batch needs them.
double read_histories(const PreparedLog& log, const StreamSpec& spec) {
  TargetOrder order(log, spec);
  std::vector<TargetRef> targets;
  std::uint64_t sum = 0, events = 0;
  for (std::uint64_t at = 0; at < order.size(); at += targets.size()) {
    targets.resize(std::min<std::uint64_t>(kTargetsAtOnce, order.size() - at));
    order.get(0, at, targets);
    for (const TargetRef& target : targets) {
      const Sample sample = sample_of(log, *target.shard, target.target, false, spec.history);
      const std::uint32_t length = sample.length();
      sum += sum_of(target.shard->item.subspan(sample.history_begin, length)) +
             sum_of(target.shard->category.subspan(sample.history_begin, length)) +
             sum_of(target.shard->time_ms.subspan(sample.history_begin, length));
      events += length;
    }
  }
  sink = sum;
  return static_cast<double>(events) * 24 / 1e9;
}

// The same columns from one end to the other.
double read_columns(const PreparedLog& log) {
  std::uint64_t sum = 0, events = 0;
  for (const Shard& shard : log.shards()) {
    sum += sum_of(shard.item) + sum_of(shard.category) + sum_of(shard.time_ms);
    events += shard.item.size();
  }
  sink = sum;
  return static_cast<double>(events) * 24 / 1e9;
}

StreamSpec spec_of(StreamOrder order, bool auxiliary) {
  StreamSpec spec;
  spec.order = order;
  spec.auxiliary = auxiliary;
  spec.slots = {{"item", SlotSource::kItem, 0, ""}, {"category", SlotSource::kCategory, 1, ""}};
  spec.tables = 2;
  return spec;
}

double build_batches(const std::shared_ptr<const PreparedLog>& log, const StreamSpec& spec) {
  const auto stream = Stream::open(log, spec);
  CHECK(stream.ok());
  const PartitionMap lanes = PartitionMap::even(1);
  Batch batch;
  const std::uint64_t batches = std::min<std::uint64_t>(stream.value()->batches(), 4000);
  std::uint64_t samples = 0;
  for (std::uint64_t seq = 0; seq < batches; ++seq) {
    stream.value()->build(seq, lanes, batch);
    samples += batch.samples;
  }
  return static_cast<double>(samples) / 1e3;
}

void run(std::uint64_t events, const std::string& folder) {
  const auto storage = make_posix_storage();
  const std::string log_folder = folder + "/log-" + std::to_string(events);
  const std::string csv = log_folder + "/events.csv", prepared = folder + "/prepared";
  if (!storage->exists(csv)) {
    GenerateOptions options;
    options.out = log_folder;
    options.events = events;
    options.users = std::max<std::uint64_t>(1, events / 40);
    options.items = std::max<std::uint64_t>(options.categories, events / 100);
    CHECK(storage->make_directories(folder).ok());
    CHECK(generate(*storage, options).ok());
  }
  compare(
      "parse", "MB/s", [&] { return parse(*storage, csv); }, "newline scan",
      [&] { return count_lines(*storage, csv); });
  compare(
      "prepare", "MB/s", [&] { return prepare_log(*storage, csv, prepared); }, "newline scan",
      [&] { return count_lines(*storage, csv); });
  const auto log = PreparedLog::open(*storage, prepared).value();
  for (const bool shuffled : {false, true}) {
    const StreamSpec spec = spec_of(shuffled ? StreamOrder::kShuffle : StreamOrder::kTime, false);
    compare(
        shuffled ? "histories, shuffled" : "histories", "GB/s",
        [&] { return read_histories(*log, spec); }, "columns end to end",
        [&] { return read_columns(*log); });
  }
  for (const bool auxiliary : {false, true}) {
    const StreamSpec spec = spec_of(StreamOrder::kTime, auxiliary);
    compare(
        auxiliary ? "batches, auxiliary" : "batches", "ksamples/s",
        [&] { return build_batches(log, spec); }, "histories, GB/s",
        [&] { return read_histories(*log, spec); });
  }
}

}  // namespace
}  // namespace meander::data

int main(int argc, char** argv) {
  if (argc > 3) meander::data::only = argv[3];
  meander::data::run(argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 4'000'000,
                     argc > 2 ? argv[2] : "/tmp/meander-bench-data");
  return 0;
}
