// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/oracle.h"

#include <algorithm>

#include "checkpoint/generation.h"
#include "common/executor.h"
#include "ps/snapshot.h"
#include "ps/table.h"
#include "worker/trainer.h"

namespace meander::sim {
namespace {

using Steps = std::vector<std::shared_ptr<worker::Step>>;

std::string digest_of(const Input& input, std::uint64_t clock, ps::Tables& tables) {
  manifest::Manifest manifest;
  std::uint64_t sum = 0;
  for (std::uint32_t t = 0; t < tables.size(); ++t) {
    manifest::Table& table = *manifest.add_tables();
    table.set_step(tables[t]->step());
    tables[t]->begin_cut();
    for (bool is_more = true; is_more;) {
      ps::PackedRecords records;
      is_more = tables[t]->take_cut(1 << 20, records);
      CHECK(records
                .visit([&](const checkpoint::Record& record) {
                  sum += checkpoint::record_digest(t, record);
                  table.set_rows(table.rows() + 1);
                  return Status();
                })
                .ok());
    }
  }
  for (std::uint32_t s = 0; s < input.streams; ++s) {
    manifest::Stream& stream = *manifest.add_streams();
    stream.set_stream(s);
    stream.set_next(std::min(clock, input.end_of(s)));
    stream.set_ended(clock >= input.end_of(s));
  }
  return checkpoint::final_digest(sum, manifest);
}

std::shared_ptr<worker::Step> pull(const Input& input, std::uint32_t stream, std::uint64_t seq,
                                   const PartitionMap& partitions, const worker::Trainer& trainer,
                                   const ps::Tables& tables, std::vector<Buffer>& keys) {
  auto step = std::make_shared<worker::Step>();
  step->id = {.stream = stream, .epoch = 1, .seq = seq};
  if (seq < input.batches_of(stream)) {
    CHECK(input.open(stream)->build(seq, partitions, step->batch).ok());
  } else {
    step->batch.samples = 0;
  }
  trainer.keys(step, keys);
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const auto table_keys = keys[t].as<std::uint64_t>();
    Buffer& rows = step->rows.emplace_back(
        Buffer::allocate(table_keys.size() * tables[t]->width() * sizeof(float)));
    tables[t]->pull(table_keys, rows.as_mutable<float>().data());
  }
  return step;
}

}  // namespace

Oracle::Oracle(const Input& input, const nn::Graph& graph, const Tables& spec) {
  ps::Tables tables;
  for (std::uint32_t t = 0; t < spec.specs.size(); ++t) {
    tables.push_back(std::make_unique<ps::Table>(t, spec.specs[t]));
  }
  for (const auto& preset : spec.presets) {
    tables[preset.table]->assign(preset.keys, preset.rows.data());
  }
  const PartitionMap partitions = PartitionMap::even(1);
  worker::Trainer trainer(graph, kDenseBlock, 0);
  trainer.set_partitions(partitions);
  InlineExecutor executor;
  const Input::Positions ends = input.ends();
  const std::uint64_t last = *std::ranges::max_element(ends);
  digests_.push_back(digest_of(input, 0, tables));
  for (std::uint64_t seq = 0; seq < last; ++seq) {
    Steps steps;
    std::vector<std::vector<Buffer>> keys;
    for (std::uint32_t stream = 0; stream < input.streams; ++stream) {
      if (seq >= ends[stream]) continue;
      steps.push_back(pull(input, stream, seq, partitions, trainer, tables, keys.emplace_back()));
    }
    for (std::size_t i = 0; i < steps.size(); ++i) {
      if (trainer.has_work(*steps[i])) CHECK(trainer.train(*steps[i], executor).ok());
      std::vector<Buffer> gradients;
      trainer.gradients(steps[i], gradients);
      for (std::size_t t = 0; t < tables.size(); ++t) {
        tables[t]->push(keys[i][t].as<std::uint64_t>(), gradients[t].as<float>().data());
      }
    }
    digests_.push_back(digest_of(input, seq + 1, tables));
  }
}

}  // namespace meander::sim
