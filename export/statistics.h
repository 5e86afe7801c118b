// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "nn/graph.h"

namespace meander::artefact {

// The dense vector of `to` with the values that `from` has for parameters of the same name; others
// start as the graph says. Parameters of one name must have one shape (CHECK): the two are forms of
// one model.
std::vector<float> convert_dense(const nn::Graph& from, std::span<const float> dense,
                                 const nn::Graph& to);

// Gives moving statistics to a model that was trained without: a graph whose Dice takes mean and
// variance from each batch runs on some batches, and what it saw of an op's input becomes the
// parameters <op>/mean and <op>/variance of the serving graph: the means over batches, as a moving
// mean would be of parameters that stand still.
class StatisticsObserver {
 public:
  // `serving` is the same model as `trained`, with statistics.
  StatisticsObserver(const nn::Graph& trained, const nn::Graph& serving);
  // Is there anything that `trained` does not keep?
  bool has_work() const { return !observed_.empty(); }
  // After session.infer() on the trained graph.
  void observe(const nn::Session& session);
  std::uint64_t batches() const { return batches_; }
  // Into the serving graph's dense vector. At least one batch has been observed.
  void write(std::span<float> dense) const;

 private:
  struct Observed {
    nn::TensorId input;
    std::size_t mean_at, variance_at;    // offsets in the serving dense vector
    std::vector<double> mean, variance;  // sums over batches
  };
  std::vector<Observed> observed_;
  std::uint64_t batches_ = 0;
};

}  // namespace meander::artefact
