// SPDX-License-Identifier: Apache-2.0
// How many samples a second does one thread train, without tables and streams around it? Batches of
// 128 samples, random histories, the sizes of the published models; prints a line for the model:
// minimum / median / maximum over batches, of the thread's own time.
//   bench_model_step [model = dien] [parts = 4] [shortest = 20] [longest = 50] [batches = 60]
//                    [candidates = 2] [mixed]
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "common/executor.h"
#include "models/model.h"
#include "tests/jagged_batch.h"

namespace meander {
namespace {

constexpr std::int32_t kSamples = 128, kWidth = 18;
const std::vector<std::uint32_t> kKeys = {2000, 18};  // distinct in a batch: items, categories

double thread_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

struct Rows {
  std::vector<float> values, gradients;
};

std::vector<std::vector<JaggedGroup>> deal(Rng& rng, std::size_t parts, std::int32_t shortest,
                                           std::int32_t longest, std::int32_t candidates) {
  std::vector<std::int32_t> lengths(kSamples / candidates);
  for (std::int32_t& length : lengths) {
    length = shortest + static_cast<std::int32_t>(rng.below(longest - shortest + 1));
  }
  std::sort(lengths.rbegin(), lengths.rend());
  std::vector<std::vector<std::int32_t>> dealt(parts);
  for (std::size_t g = 0; g < lengths.size(); ++g) dealt[g % parts].push_back(lengths[g]);
  std::vector<std::vector<JaggedGroup>> groups;
  for (const auto& part : dealt) {
    groups.push_back(random_groups(rng, part, candidates, kKeys, kKeys.size()));
  }
  return groups;
}

int run(const std::string& kind, std::size_t parts, std::int32_t shortest, std::int32_t longest,
        int batches, std::int32_t candidates, nn::Precision precision) {
  models::ModelSpec spec;
  spec.kind = kind;
  spec.slots = {{"item", 0, kWidth, true}, {"category", 1, kWidth, true}};
  if (kind == "lstm") spec.hidden = 64;
  const Result<nn::Graph> built = models::build_model(spec);
  if (!built.ok()) {
    std::fprintf(stderr, "%s\n", built.status().message().c_str());
    return 1;
  }
  const nn::Graph& graph = built.value();
  Rng rng(1);
  const JaggedBatch batch(deal(rng, parts, shortest, longest, candidates));
  std::vector<Rows> tables;
  std::vector<nn::ConstMatrix> rows;
  std::vector<nn::Matrix> drows;
  for (std::uint32_t keys : kKeys) {
    Rows& table = tables.emplace_back();
    table.values.resize(std::size_t{keys} * kWidth);
    for (float& x : table.values) x = static_cast<float>(0.1 * (rng.uniform() - 0.5));
    table.gradients.resize(table.values.size());
  }
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const auto keys = static_cast<std::int32_t>(kKeys[t]);
    rows.push_back({tables[t].values.data(), keys, kWidth, kWidth});
    drows.push_back({tables[t].gradients.data(), keys, kWidth, kWidth});
  }
  const std::vector<float> dense = graph.initial_dense(1);
  std::vector<float> ddense(dense.size()), logits(kSamples);
  nn::StepOutput output{drows, ddense, logits};
  InlineExecutor executor;
  nn::Session session(graph, precision);
  std::vector<double> rates;
  for (int i = 0; i < batches; ++i) {
    const double begin = thread_seconds();
    session.train({batch.inputs(), rows, dense}, executor, output);
    rates.push_back(kSamples / (thread_seconds() - begin));
  }
  std::sort(rates.begin(), rates.end());
  std::printf("%s, %zu parts, histories of %d to %d: %.0f / %.0f / %.0f samples/s\n", kind.c_str(),
              parts, shortest, longest, rates.front(), rates[rates.size() / 2], rates.back());
  return 0;
}

}  // namespace
}  // namespace meander

int main(int argc, char** argv) {
  const auto number = [&](int index, int otherwise) {
    return argc > index ? std::atoi(argv[index]) : otherwise;
  };
  return meander::run(argc > 1 ? argv[1] : "dien", static_cast<std::size_t>(number(2, 4)),
                      number(3, 20), number(4, 50), number(5, 60), number(6, 2),
                      argc > 7 ? meander::nn::Precision::kMixed : meander::nn::Precision::kF32);
}
