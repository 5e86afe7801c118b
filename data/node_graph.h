// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/status.h"
#include "common/storage.h"
#include "data/line_reader.h"
#include "data/record.h"

namespace meander::data {

// What a log of nodes has beside its events, in which a node is a user and its class an item: which
// nodes are linked, and which words a node has. Layout: docs/prepared-log.md.
struct NodeLink {
  std::uint64_t from = 0, to = 0;  // each pair once, in either direction
};
struct NodeWord {
  std::uint64_t node = 0, word = 0;
};
struct NodeGraph {
  std::vector<NodeLink> links;
  std::vector<NodeWord> words;
};

// Beside the columns of a prepared log, or of one in the making. Errors are the storage's.
Status write_node_graph(Storage& storage, const std::string& directory, const NodeGraph& graph);
// kNotFound: the log has none. kInvalid: damaged.
Result<NodeGraph> read_node_graph(Storage& storage, const std::string& log);

// node class part word word ...; part is train, test, or another word: a node of the graph that no
// target names. A node becomes an event, and its words lines of `graph`. Bad lines are refused.
Status read_nodes(LineReader& reader, Intake& intake, NodeGraph& graph);
// node node; more words are ignored. kInvalid: a line that is something else.
Status read_links(LineReader& reader, NodeGraph& graph);

}  // namespace meander::data
