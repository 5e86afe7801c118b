// SPDX-License-Identifier: Apache-2.0
#include "data/node_graph.h"

#include <span>
#include <string_view>

#include "data/column_file.h"
#include "data/fields.h"

namespace meander::data {
namespace {

constexpr const char* kLinks = "links.col";
constexpr const char* kWords = "words.col";

template <class T>
Result<std::vector<T>> read_column(Storage& storage, const std::string& path) {
  ASSIGN_OR_RETURN(const ColumnFile file, open_column(storage, path, sizeof(T)));
  RETURN_IF_ERROR(file.verify());
  const std::span<const T> values = file.values<T>();
  return std::vector<T>(values.begin(), values.end());
}

RecordKind kind_of(std::string_view part) {
  if (part == "train") return RecordKind::kOpen;
  return part == "test" ? RecordKind::kTestTarget : RecordKind::kTestContext;
}

}  // namespace

Status write_node_graph(Storage& storage, const std::string& directory, const NodeGraph& graph) {
  RETURN_IF_ERROR(write_column(storage, join_path(directory, kLinks), std::span(graph.links)));
  return write_column(storage, join_path(directory, kWords), std::span(graph.words));
}

Result<NodeGraph> read_node_graph(Storage& storage, const std::string& log) {
  NodeGraph graph;
  if (!storage.exists(join_path(log, kLinks))) {
    return not_found(log + " has no links between nodes; a log of format cora has");
  }
  ASSIGN_OR_RETURN(graph.links, read_column<NodeLink>(storage, join_path(log, kLinks)));
  ASSIGN_OR_RETURN(graph.words, read_column<NodeWord>(storage, join_path(log, kWords)));
  return graph;
}

Status read_nodes(LineReader& reader, Intake& intake, NodeGraph& graph) {
  Record record;
  for (std::string_view line; reader.next(line);) {
    const std::string_view node = take_word(line), of_class = take_word(line);
    const std::string_view part = take_word(line);
    if (node.empty()) continue;
    if (!parse_key(node, record.user)) {
      intake.refuse(reader, "node is not a whole number", node);
      continue;
    }
    if (!parse_key(of_class, record.item)) {
      intake.refuse(reader, "class is not a whole number", of_class);
      continue;
    }
    record.kind = kind_of(part);
    intake.accept(record);
    for (std::string_view word = take_word(line); !word.empty(); word = take_word(line)) {
      NodeWord& has = graph.words.emplace_back();
      has.node = record.user;
      if (parse_key(word, has.word)) continue;
      graph.words.pop_back();
      intake.refuse(reader, "word is not a whole number", word);
    }
  }
  return reader.status();
}

Status read_links(LineReader& reader, NodeGraph& graph) {
  for (std::string_view line; reader.next(line);) {
    const std::string_view from = take_word(line), to = take_word(line);
    if (from.empty()) continue;
    NodeLink& link = graph.links.emplace_back();
    if (!parse_key(from, link.from) || !parse_key(to, link.to)) {
      return invalid(reader.place() + ": not a pair of nodes");
    }
  }
  return reader.status();
}

}  // namespace meander::data
