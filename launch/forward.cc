// SPDX-License-Identifier: Apache-2.0
#include "launch/forward.h"

#include <algorithm>
#include <utility>

#include "common/initial_row.h"
#include "common/partition.h"
#include "worker/trainer.h"

namespace meander::launch {

Forward::Forward(const nn::Graph& graph, std::span<const artefact::TableRows> tables,
                 std::span<const wire::TableSpec> specs, std::span<const float> dense,
                 std::vector<nn::ConstMatrix> frozen)
    : graph_(graph),
      tables_(tables),
      specs_(specs),
      dense_(dense),
      frozen_(std::move(frozen)),
      session_(graph),
      rows_(tables.size()) {}

void Forward::look_up(const data::Batch& batch) {
  for (std::size_t t = 0; t < tables_.size(); ++t) {
    if (graph_.is_frozen(static_cast<std::int32_t>(t))) continue;
    const artefact::TableRows& table = tables_[t];
    const std::size_t width = table.width;
    rows_[t].resize(batch.keys[t].size() * width);
    for (std::size_t i = 0; i < batch.keys[t].size(); ++i) {
      const std::uint64_t key = batch.keys[t][i];
      const std::span<float> row = std::span(rows_[t]).subspan(i * width, width);
      if (const std::size_t at = table.index_of(key); at < table.keys.size()) {
        std::copy_n(&table.rows[at * width], width, row.begin());
      } else {
        initial_row(specs_[t].seed(), static_cast<std::uint32_t>(t), key, specs_[t].init_range(),
                    row);
      }
    }
  }
}

std::span<const float> Forward::run(const data::Batch& batch, Executor& executor) {
  look_up(batch);
  std::vector<nn::PartInput> parts(batch.parts.size());
  for (std::size_t p = 0; p < parts.size(); ++p) {
    worker::bind_part(batch, batch.parts[p], parts[p]);
  }
  std::vector<nn::ConstMatrix> tables;
  for (std::size_t t = 0; t < rows_.size(); ++t) {
    if (graph_.is_frozen(static_cast<std::int32_t>(t))) {
      tables.push_back(frozen_[t]);
      continue;
    }
    const auto width = static_cast<std::int32_t>(tables_[t].width);
    tables.push_back(
        {rows_[t].data(), static_cast<std::int32_t>(batch.keys[t].size()), width, width});
  }
  logits_.resize(batch.samples);
  std::vector<nn::Catalogue> catalogues;
  for (const data::Catalogue& catalogue : batch.catalogues) {
    catalogues.push_back({catalogue.rows, catalogue.log_expected});
  }
  session_.infer({parts, tables, dense_, catalogues}, executor, logits_);
  return logits_;
}

Result<std::vector<data::Batch>> spread_batches(std::shared_ptr<const data::PreparedLog> log,
                                                const data::StreamSpec& spec,
                                                std::uint64_t samples) {
  ASSIGN_OR_RETURN(const auto stream, data::Stream::open(std::move(log), spec));
  const std::uint64_t all = stream->batches();
  const std::uint64_t wanted = std::min(all, (samples + spec.batch - 1) / spec.batch);
  const PartitionMap one_lane = PartitionMap::even(1);
  std::vector<data::Batch> batches(wanted);
  for (std::uint64_t i = 0; i < wanted; ++i) stream->build(i * all / wanted, one_lane, batches[i]);
  return batches;
}

namespace {

// One part's groups, appended to `samples`, whose sizes are fixed.
void append_part(const data::Batch& batch, const data::Part& part, const nn::Graph& graph,
                 const data::Content* content, artefact::Samples& samples) {
  const auto& slots = graph.slots();
  const auto first = static_cast<std::int64_t>(samples.history_length.size());
  samples.history_length.insert(samples.history_length.end(), part.lengths.begin(),
                                part.lengths.end());
  for (std::size_t t = 0; !part.age.empty() && t < part.step_rows.size(); ++t) {
    for (std::int32_t g = 0; g < part.step_rows[t]; ++g) {
      samples.history_age[(first + g) * samples.steps + static_cast<std::int64_t>(t)] =
          part.age[part.step_offset[t] + g];
    }
  }
  samples.numeric.insert(samples.numeric.end(), part.numeric.begin(), part.numeric.end());
  for (std::size_t s = 0; s < slots.size(); ++s) {
    const auto id_of = [&](std::uint32_t index) {
      return slots[s].frozen ? content->id_of(index)
                             : static_cast<std::int64_t>(batch.keys[slots[s].table][index]);
    };
    for (std::uint32_t index : part.target[s]) samples.target[s].push_back(id_of(index));
    if (!slots[s].in_history) continue;
    for (std::size_t t = 0; t < part.step_rows.size(); ++t) {
      for (std::int32_t g = 0; g < part.step_rows[t]; ++g) {
        const std::uint32_t index = part.history[s][part.step_offset[t] + g];
        samples.history[s][(first + g) * samples.steps + static_cast<std::int64_t>(t)] =
            id_of(index);
      }
    }
  }
}

}  // namespace

artefact::Samples to_samples(std::span<const data::Batch> batches, const nn::Graph& graph,
                             const data::Content* content) {
  artefact::Samples samples;
  for (const data::Batch& batch : batches) {
    std::int64_t groups = 0;
    for (const data::Part& part : batch.parts) groups += part.groups;
    samples.batches.push_back(groups);
    samples.groups += groups;
    samples.steps = std::max<std::int64_t>(samples.steps, batch.longest);
    if (groups > 0) samples.candidates = batch.samples / groups;
  }
  if (graph.needs_age()) samples.history_age.resize(samples.groups * samples.steps);
  samples.target.resize(graph.slots().size());
  for (const nn::SlotSpec& slot : graph.slots()) {
    samples.history.emplace_back(slot.in_history ? samples.groups * samples.steps : 0);
  }
  for (const data::Batch& batch : batches) {
    for (const data::Part& part : batch.parts) append_part(batch, part, graph, content, samples);
  }
  return samples;
}

std::vector<float> labels_of(const data::Batch& batch) {
  std::vector<float> labels;
  for (const data::Part& part : batch.parts) {
    labels.insert(labels.end(), part.label.begin(), part.label.end());
  }
  return labels;
}

}  // namespace meander::launch
