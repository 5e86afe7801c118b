// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/check.h"

#include <algorithm>

#include "checkpoint/generation.h"
#include "common/metrics.h"

namespace meander::sim {
namespace {

std::string at(const std::string& dir, const std::string& what) { return dir + ": " + what; }

// Under BSP all streams stand at one clock.
std::string check_bits(Storage& storage, const checkpoint::Chain& chain,
                       const Input::Positions& positions, const Expected& expected) {
  const Input::Positions ends = expected.input.ends();
  const std::uint64_t clock = *std::ranges::max_element(positions);
  for (std::size_t s = 0; s < positions.size(); ++s) {
    if (positions[s] != std::min(clock, ends[s])) {
      return "stream " + std::to_string(s) + " stands at " + std::to_string(positions[s]) +
             " where clock " + std::to_string(clock) + " is done";
    }
  }
  const auto digest = checkpoint::read_digest(storage, chain);
  if (!digest.ok()) return digest.status().message();
  if (digest.value() == expected.oracle->digest(clock)) return {};
  return "its digest is not that of an undisturbed run at clock " + std::to_string(clock);
}

std::string check_counts(Storage& storage, const checkpoint::Chain& chain,
                         const Input::Positions& positions, const Expected& expected) {
  Input::Counts counts = expected.input.counts_below(positions);
  std::string wrong;
  for (std::uint32_t table = 0; table < Input::kTables; ++table) {
    const Status read = checkpoint::read_table(
        storage, chain, table, 0, kPartitions - 1,
        checkpoint::RecordVisitor([&](const checkpoint::Record& record) {
          const auto count = counts.find({table, record.key});
          const std::string row =
              "table " + std::to_string(table) + " key " + std::to_string(record.key);
          if (count == counts.end()) {
            wrong = row + " was not trained, or is there twice";
            return Status();
          }
          const bool is_right = record.admitted && record.count == count->second.batches &&
                                std::ranges::all_of(record.values, [&](float value) {
                                  return value == static_cast<float>(count->second.samples);
                                });
          if (!is_right) {
            wrong = row + " was trained " + std::to_string(count->second.samples) + " times in " +
                    std::to_string(count->second.batches) + " batches, the row says " +
                    std::to_string(record.values.empty() ? -1 : record.values[0]) + " in " +
                    std::to_string(record.count);
          }
          counts.erase(count);
          return Status();
        }));
    if (!read.ok()) return read.message();
  }
  if (wrong.empty() && !counts.empty()) {
    wrong = std::to_string(counts.size()) + " rows are missing, such as key " +
            std::to_string(counts.begin()->first.second);
  }
  return wrong;
}

std::string check_metrics(Storage& storage, const std::string& dir,
                          const Input::Positions& positions, const Expected& expected) {
  const auto bytes = storage.read(join_path(dir, "metrics"));
  if (!bytes.ok()) return bytes.status().message();
  const auto metrics = Accumulator::decode(bytes.value());
  if (!metrics.ok()) return metrics.status().message();
  const std::uint64_t trained = expected.input.samples_below(positions);
  if (metrics->samples == trained) return {};
  if (metrics->samples < trained && !expected.is_all_counted) return {};
  return std::to_string(metrics->samples) + " samples are counted, " + std::to_string(trained) +
         " are trained";
}

}  // namespace

std::string check_generation(Storage& storage, const std::string& dir, const Expected& expected) {
  const auto verified = checkpoint::verify(storage, dir);
  if (!verified.ok()) return at(dir, verified.status().message());
  if (!verified->errors.empty()) return at(dir, verified->errors.front());
  const auto chain = checkpoint::open_chain(storage, dir);
  if (!chain.ok()) return at(dir, chain.status().message());
  const manifest::Manifest& manifest = chain->back().manifest;
  if (manifest.streams_size() != static_cast<int>(expected.input.streams)) {
    return at(dir, "streams are missing");
  }
  Input::Positions positions;
  for (const manifest::Stream& stream : manifest.streams()) {
    positions.push_back(stream.next());
    const std::uint64_t end = expected.input.end_of(stream.stream());
    if (stream.next() > end || stream.ended() != (stream.next() == end)) {
      return at(dir, "stream " + std::to_string(stream.stream()) + " has an impossible position");
    }
  }
  std::string wrong = check_metrics(storage, dir, positions, expected);
  if (wrong.empty() && expected.oracle != nullptr) {
    wrong = check_bits(storage, chain.value(), positions, expected);
  }
  if (wrong.empty() && expected.is_counting) {
    wrong = check_counts(storage, chain.value(), positions, expected);
  }
  return wrong.empty() ? wrong : at(dir, wrong);
}

std::string check_all(Storage& storage, const std::string& dir) {
  const auto complete = checkpoint::list_generations(storage, dir);
  if (!complete.ok()) {
    return complete.status().code() == Code::kNotFound ? "" : complete.status().message();
  }
  for (const std::string& generation : complete.value()) {
    const auto verified = checkpoint::verify(storage, generation);
    if (!verified.ok()) return at(generation, verified.status().message());
    if (!verified->errors.empty()) return at(generation, verified->errors.front());
  }
  return {};
}

std::string check_directory(Storage& storage, const std::string& dir, std::uint32_t keep) {
  if (std::string wrong = check_all(storage, dir); !wrong.empty()) return wrong;
  const auto kept = checkpoint::list_generations(storage, dir);
  const auto names = storage.list(dir);
  if (!kept.ok() || !names.ok()) return at(dir, "cannot be listed");
  for (const std::string& name : names.value()) {
    if (std::ranges::find(kept.value(), join_path(dir, name)) == kept->end()) {
      return at(dir, name + " is left, which is no generation");
    }
  }
  // A prune that was interrupted is made up for by the next one: `keep`, and back to a full one.
  const Status pruned = checkpoint::prune(storage, dir, keep);
  if (!pruned.ok()) return pruned.message();
  const auto left = checkpoint::list_generations(storage, dir);
  if (!left.ok() || left->size() < std::min<std::size_t>(keep, kept->size())) {
    return at(dir, "too little is left by a prune");
  }
  std::size_t needed = 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(keep, left->size()); ++i) {
    const auto chain = checkpoint::open_chain(storage, left.value()[left->size() - 1 - i]);
    if (!chain.ok()) return chain.status().message();
    needed = std::max(needed, i + chain->size());
  }
  if (left->size() > needed) {
    return at(dir, std::to_string(left->size()) + " generations are left, " +
                       std::to_string(needed) + " are needed");
  }
  return {};
}

}  // namespace meander::sim
