// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>

#include "serve/ranker.h"

namespace meander::launch {

// One user's history and what is recommended, as a program and as a person read it.
struct Answer {
  boost::json::object result;  // user, items: [{item, score, title, category}], history, candidates
  std::string text;
};

// `history_shown`: of the newest behaviours. Errors as Ranker::rank.
Result<Answer> recommend(const serve::Artefact& artefact, serve::Ranker& ranker, std::uint64_t user,
                         const serve::RankOptions& options, std::size_t history_shown = 10);

}  // namespace meander::launch
