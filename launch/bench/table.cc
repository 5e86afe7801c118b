// SPDX-License-Identifier: Apache-2.0
// How many rows a second does one lane's table give and take, beside the same records read and
// written where their place is known?
#include <sys/mman.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstring>
#include <memory>

#include "common/rng.h"
#include "launch/bench/bench.h"
#include "launch/bench/measure.h"
#include "launch/bench/table_spec.h"
#include "ps/table.h"

namespace meander::launch::bench {
namespace {

struct Options {
  std::uint64_t rows = 10'000'000;
  std::uint32_t width = 36;
  std::uint32_t request = 12'800;
  unsigned lanes = 1;
};

constexpr std::size_t kHeaderBytes = 16;  // of a record: key, step, count (docs/table.md)
constexpr std::size_t kLine = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLead = 16;  // records asked for ahead of the one at hand

// As many records as the table has, of the same bytes, on huge pages; and no index.
class Records {
 public:
  Records(std::uint64_t count, std::uint32_t width, std::uint32_t state_width)
      : stride_(kHeaderBytes + (width + state_width) * sizeof(float)),
        bytes_((count * stride_ + kHugePage - 1) / kHugePage * kHugePage),
        width_(width) {
    void* memory =
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED) << "no memory for " << bytes_ << " bytes of bare records";
    madvise(memory, bytes_, MADV_HUGEPAGE);
    std::memset(memory, 1, bytes_);
    memory_ = static_cast<std::byte*>(memory);
  }
  ~Records() { munmap(memory_, bytes_); }
  Records(const Records&) = delete;
  Records& operator=(const Records&) = delete;

  void gather(std::span<const std::uint64_t> places, float* out) const {
    walk(places, kHeaderBytes + width_ * sizeof(float),
         [&](std::size_t i, const std::byte* record) {
           std::memcpy(out + i * width_, record + kHeaderBytes, width_ * sizeof(float));
         });
  }
  // Adds to each weight, as the cheapest optimizer would, and touches the header.
  void update(std::span<const std::uint64_t> places, const float* gradients) {
    walk(places, stride_, [&](std::size_t i, std::byte* record) {
      record[8] ^= std::byte{1};
      auto* weights = reinterpret_cast<float*>(record + kHeaderBytes);
      for (std::uint32_t c = 0; c < width_; ++c) weights[c] -= 0.01f * gradients[i * width_ + c];
    });
  }

 private:
  template <class Use>
  void walk(std::span<const std::uint64_t> places, std::size_t used, Use use) const {
    for (std::size_t i = 0; i < places.size() + kLead; ++i) {
      if (i < places.size()) {
        const std::byte* record = memory_ + places[i] * stride_;
        for (std::size_t at = 0; at < used + kLine; at += kLine) {
          __builtin_prefetch(record + std::min(at, used - 1), 0, 2);
        }
      }
      if (i >= kLead) use(i - kLead, memory_ + places[i - kLead] * stride_);
    }
  }

  std::size_t stride_, bytes_;
  std::uint32_t width_;
  std::byte* memory_ = nullptr;
};

// Keys are hashes of the numbers below `rows`, as good as any 64-bit keys.
struct Requests {
  std::vector<std::vector<std::uint64_t>> keys, places;
  std::vector<float> rows, gradients;
  std::vector<std::uint32_t> slots;
};

Requests draw(const Options& options, std::size_t count) {
  Requests requests;
  Rng rng(1);
  for (std::size_t r = 0; r < count; ++r) {
    auto& keys = requests.keys.emplace_back();
    auto& places = requests.places.emplace_back();
    for (std::uint32_t i = 0; i < options.request; ++i) {
      places.push_back(rng.below(options.rows));
      keys.push_back(mix64(places.back()));
    }
  }
  requests.rows.resize(std::size_t{options.request} * options.width);
  requests.gradients.assign(requests.rows.size(), 0.01f);
  return requests;
}

double fill(ps::Table& table, const Options& options) {
  std::vector<std::uint64_t> keys;
  const std::vector<float> gradients(std::size_t{options.request} * options.width, 0.01f);
  return options.rows / seconds_on_threads(1, [&](unsigned) {
           for (std::uint64_t next = 0; next < options.rows;) {
             keys.clear();
             while (keys.size() < options.request && next < options.rows) {
               keys.push_back(mix64(next++));
             }
             table.push(keys, gradients.data());
           }
         });
}

// Pulls, then pushes of the same keys, of `lanes` lanes side by side: each has its own thread,
// table, and requests.
class Lanes {
 public:
  Lanes(const Options& options, unsigned lanes, const Requests& requests) : requests_(requests) {
    for (unsigned lane = 0; lane < lanes; ++lane) {
      tables_.push_back(std::make_unique<ps::Table>(0, rowwise_table(options.width)));
      fill(*tables_.back(), options);
    }
  }

  // Seconds in which each of the first `lanes` works all requests.
  double run(unsigned lanes) {
    return seconds_on_threads(lanes, [&](unsigned lane) {
      std::vector<float> rows(requests_.rows.size());
      std::vector<std::uint32_t> slots;
      for (const auto& keys : requests_.keys) {
        tables_[lane]->pull(keys, rows.data(), &slots);
        tables_[lane]->push(keys, requests_.gradients.data(), slots);
      }
    });
  }

 private:
  const Requests& requests_;
  std::vector<std::unique_ptr<ps::Table>> tables_;
};

// One lane's rate as limit, so that the ratio is how much more the others add. `options`: of a
// lane.
std::vector<Row> measure_lanes(const Options& options, const Settings& settings) {
  const Requests requests = draw(options, settings.quick ? 2 : 40);
  const double rows = static_cast<double>(requests.keys.size()) * options.request;
  Lanes lanes(options, options.lanes, requests);
  const auto probe = [&](unsigned n) -> Probe {
    return [&lanes, rows, n](std::vector<double>& figures) {
      figures.push_back(n * rows / lanes.run(n));
    };
  };
  const std::vector<double> m =
      medians_in_turn(settings.repetitions, {probe(options.lanes), probe(1)});
  return {{std::to_string(options.lanes) + " lanes: pull, then push", m[0] / 1e6, m[1] / 1e6,
           "one of them alone", "M rows/s", options.lanes}};
}

Result<std::vector<Row>> measure(Options options, const Settings& settings) {
  if (settings.quick) options.rows = std::min<std::uint64_t>(options.rows, 20'000);
  options.rows /= options.lanes;  // as the lanes of a job divide its keys
  if (options.rows == 0 || options.request == 0) {
    return invalid("--rows starts at 1 for each lane, and --request at 1");
  }
  const wire::TableSpec spec = rowwise_table(options.width);
  RETURN_IF_ERROR(ps::check_table(spec));
  if (options.lanes > 1) return measure_lanes(options, settings);
  ps::Table table(0, spec);
  Records records(options.rows, options.width, table.state_width());
  Requests r = draw(options, settings.quick ? 2 : 40);
  const double inserted = fill(table, options);
  const double rows = static_cast<double>(r.keys.size()) * options.request;
  // Every request once; its rate.
  const auto probe = [&](auto work) -> Probe {
    return [&r, rows, work](std::vector<double>& figures) {
      figures.push_back(rows / seconds_on_threads(1, [&](unsigned) {
                          for (std::size_t i = 0; i < r.keys.size(); ++i) work(i);
                        }));
    };
  };
  const auto gather = [&](std::size_t i) { records.gather(r.places[i], r.rows.data()); };
  const auto update = [&](std::size_t i) { records.update(r.places[i], r.gradients.data()); };
  const auto pull = [&](std::size_t i) { table.pull(r.keys[i], r.rows.data(), &r.slots); };
  const std::vector<double> m = medians_in_turn(
      settings.repetitions,
      {probe([&](std::size_t i) {
         pull(i);
         table.push(r.keys[i], r.gradients.data(), r.slots);
       }),
       probe([&](std::size_t i) {
         gather(i);
         update(i);
       }),
       probe(pull), probe(gather),
       probe([&](std::size_t i) { table.push(r.keys[i], r.gradients.data()); }), probe(update)});
  const std::string what = std::to_string(options.width) + " floats";
  const double own = 8 + (options.width + table.state_width()) * sizeof(float);
  const double overhead =
      static_cast<double>(table.bytes()) / static_cast<double>(table.rows()) - own;
  return std::vector<Row>{{"pull, then push of the same keys, " + what, m[0] / 1e6, m[1] / 1e6,
                           "bare gather and update", "M rows/s"},
                          {"pull, " + what, m[2] / 1e6, m[3] / 1e6, "bare gather", "M rows/s"},
                          {"push, " + what, m[4] / 1e6, m[5] / 1e6, "bare update", "M rows/s"},
                          {"push of new keys", inserted / 1e6, 0, "", "M rows/s"},
                          {"bytes a row beyond key, weights and state", overhead, 0, "", "bytes"}};
}

}  // namespace

void add_table(CLI::App& family, Context& context) {
  auto options = std::make_shared<Options>();
  CLI::App& command = add_benchmark(
      family, context, "table",
      "How many rows a second does one lane's table give and take, beside the same records without "
      "an index?",
      "meander bench table --rows 50000000 --width 32",
      [options](const Settings& settings) { return measure(*options, settings); });
  command.add_option("--rows", options->rows, "of the table")->capture_default_str();
  command.add_option("--width", options->width, "floats of a row")->capture_default_str();
  command.add_option("--request", options->request, "keys of a pull or push")
      ->capture_default_str();
  command.add_option("--lanes", options->lanes, "side by side, each with its part of the rows")
      ->check(CLI::Range(1u, 64u))
      ->capture_default_str();
}

}  // namespace meander::launch::bench
