// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "nn/graph_writer.h"

namespace meander::nn {

// Pieces of ONNX that several ops share.

// int64 (T): 0, 1, ... for the steps of `history` (T, G, w).
std::string onnx_steps(GraphWriter& writer, const std::string& history);
// bool (T, G, 1): which steps of `history` (T, G, w) are real, and which are the last real one.
std::string onnx_history_mask(GraphWriter& writer, const std::string& history);
std::string onnx_last_mask(GraphWriter& writer, const std::string& history);
// (G, w) of `history` (T, G, w): its last real step.
std::string onnx_last_states(GraphWriter& writer, const std::string& history);
// (G*K, w) of `groups` (G, w): each row K times.
std::string onnx_repeat_candidates(GraphWriter& writer, const std::string& groups);
// (T, G*K, w) of `history` (T, G, w): each row K times.
std::string onnx_repeat_history(GraphWriter& writer, const std::string& history);
// Rows of `x` (..., w) by their own mean and variance, then gamma and beta (1, w).
std::string onnx_layer_norm(GraphWriter& writer, const std::string& x, ParamId gamma, ParamId beta,
                            float epsilon);

}  // namespace meander::nn
