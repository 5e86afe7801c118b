// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/input.h"

#include <algorithm>
#include <set>

#include "common/rng.h"

namespace meander::sim {
namespace {

constexpr std::uint64_t kKeys[Input::kTables] = {40, 7};

// Histories of one behaviour that is the sample itself.
class Source final : public worker::BatchSource {
 public:
  Source(Input input, std::uint32_t stream) : input_(input), stream_(stream) {}

  std::uint64_t batches() const override { return input_.batches_of(stream_); }
  Status build(std::uint64_t seq, const PartitionMap& lanes, data::Batch& batch) override {
    batch.stream = stream_;
    batch.seq = seq;
    batch.samples = input_.samples_of(stream_, seq);
    batch.longest = 1;
    batch.progress = static_cast<double>(seq + 1) / static_cast<double>(batches());
    batch.keys.assign(Input::kTables, {});
    batch.parts.resize(2);
    for (std::uint32_t table = 0; table < Input::kTables; ++table)
      collect_keys(table, lanes, batch);
    const std::uint32_t half = batch.samples / 2;
    fill(batch, batch.parts[0], 0, half);
    fill(batch, batch.parts[1], half, batch.samples);
    return {};
  }

 private:
  void collect_keys(std::uint32_t table, const PartitionMap& lanes, data::Batch& batch) const {
    std::vector<std::uint64_t>& keys = batch.keys[table];
    for (std::uint32_t i = 0; i < batch.samples; ++i) {
      keys.push_back(input_.key_of(table, stream_, batch.seq, i));
    }
    std::ranges::sort(keys);
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
    std::ranges::stable_sort(keys, {}, [&](std::uint64_t key) { return lanes.lane_of(key); });
  }
  void fill(const data::Batch& batch, data::Part& part, std::uint32_t begin,
            std::uint32_t end) const {
    const auto groups = static_cast<std::int32_t>(end - begin);
    part.groups = groups;
    part.lengths.assign(groups, 1);
    part.step_rows.assign(groups > 0 ? 1 : 0, groups);
    part.step_offset.assign(groups > 0 ? 1 : 0, 0);
    part.target.assign(Input::kTables, {});
    part.label.clear();
    for (std::uint32_t i = begin; i < end; ++i) {
      for (std::uint32_t table = 0; table < Input::kTables; ++table) {
        const std::vector<std::uint64_t>& keys = batch.keys[table];
        const auto at = std::ranges::find(keys, input_.key_of(table, stream_, batch.seq, i));
        part.target[table].push_back(static_cast<std::uint32_t>(at - keys.begin()));
      }
      part.label.push_back(i % 2 == 0 ? 1.0f : 0.0f);
    }
    part.history = part.target;
  }

  const Input input_;
  const std::uint32_t stream_;
};

}  // namespace

std::uint32_t Input::batches_of(std::uint32_t stream) const {
  if (stream >= kSlice) return 2;
  const std::uint64_t drawn = hash64(seed, stream, 1) % (batches + 1);
  return stream == 0 ? batches : static_cast<std::uint32_t>(drawn);
}

std::uint64_t Input::end_of(std::uint32_t stream) const {
  return std::max<std::uint64_t>(batches_of(stream), 1);
}

std::uint32_t Input::samples_of(std::uint32_t stream, std::uint64_t seq) const {
  return 2 + static_cast<std::uint32_t>(hash64(stream, seq) % 5);
}

std::uint64_t Input::key_of(std::uint32_t table, std::uint32_t stream, std::uint64_t seq,
                            std::uint32_t sample) const {
  const std::uint64_t random = hash64(hash64(hash64(seed, stream), seq), table, sample);
  return mix64(1 + table) + random % kKeys[table];
}

std::unique_ptr<worker::BatchSource> Input::open(std::uint32_t stream) const {
  return std::make_unique<Source>(*this, stream);
}

Input::Positions Input::ends() const {
  Positions ends;
  for (std::uint32_t stream = 0; stream < streams; ++stream) ends.push_back(end_of(stream));
  return ends;
}

std::uint64_t Input::samples_below(const Positions& positions) const {
  std::uint64_t sum = 0;
  for (std::uint32_t stream = 0; stream < streams; ++stream) {
    const std::uint64_t end = std::min<std::uint64_t>(positions[stream], batches_of(stream));
    for (std::uint64_t seq = 0; seq < end; ++seq) sum += samples_of(stream, seq);
  }
  return sum;
}

Input::Counts Input::counts_below(const Positions& positions) const {
  Counts counts;
  for (std::uint32_t stream = 0; stream < streams; ++stream) {
    const std::uint64_t end = std::min<std::uint64_t>(positions[stream], batches_of(stream));
    for (std::uint64_t seq = 0; seq < end; ++seq) {
      std::set<std::pair<std::uint32_t, std::uint64_t>> keys;
      for (std::uint32_t i = 0; i < samples_of(stream, seq); ++i) {
        for (std::uint32_t table = 0; table < kTables; ++table) {
          const std::pair key(table, key_of(table, stream, seq, i));
          ++counts[key].samples;
          keys.insert(key);
        }
      }
      for (const auto& key : keys) ++counts[key].batches;
    }
  }
  return counts;
}

std::uint64_t Input::held_out_samples(std::uint32_t slices) const {
  std::uint64_t sum = 0;
  for (std::uint32_t slice = 0; slice < slices; ++slice) {
    for (std::uint64_t seq = 0; seq < batches_of(kSlice + slice); ++seq) {
      sum += samples_of(kSlice + slice, seq);
    }
  }
  return sum;
}

}  // namespace meander::sim
