// SPDX-License-Identifier: Apache-2.0
#include "export/onnx_model.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "nn/graph_writer.h"

#define ONNX_ML 1
#define ONNX_NAMESPACE onnx
#include <onnx/onnx_pb.h>

namespace meander::artefact {
namespace {

constexpr std::int64_t kOpset = 17, kMlOpset = 3, kIrVersion = 8;
constexpr std::int64_t kInt32 = onnx::TensorProto::INT32;
constexpr const char* kMlDomain = "ai.onnx.ml";

using nn::GraphWriter;
using nn::ParamId;
using nn::Source;
using nn::TensorId;

void set_attribute(onnx::NodeProto& node, const GraphWriter::Attribute& attribute) {
  onnx::AttributeProto& proto = *node.add_attribute();
  proto.set_name(attribute.first);
  if (const auto* i = std::get_if<std::int64_t>(&attribute.second)) {
    proto.set_type(onnx::AttributeProto::INT);
    proto.set_i(*i);
  } else if (const auto* f = std::get_if<float>(&attribute.second)) {
    proto.set_type(onnx::AttributeProto::FLOAT);
    proto.set_f(*f);
  } else if (const auto* s = std::get_if<std::string>(&attribute.second)) {
    proto.set_type(onnx::AttributeProto::STRING);
    proto.set_s(*s);
  } else {
    const auto& ints = std::get<std::vector<std::int64_t>>(attribute.second);
    proto.set_type(onnx::AttributeProto::INTS);
    proto.mutable_ints()->Assign(ints.begin(), ints.end());
  }
}

// A graph input or output; an empty type is left to be inferred (slices of a Scan).
void describe(onnx::ValueInfoProto& value, const std::string& name, std::int32_t type,
              const std::vector<std::string>& dimensions) {
  value.set_name(name);
  auto& tensor = *value.mutable_type()->mutable_tensor_type();
  tensor.set_elem_type(type);
  for (const std::string& d : dimensions) tensor.mutable_shape()->add_dim()->set_dim_param(d);
}

// The model under construction. Ops append nodes to `graph`, while what they read of the input goes
// to `prologue`, so that its nodes can come first in the end.
class Model {
 public:
  Model(const nn::Graph& spec, const OnnxOptions& options) : spec_(spec), options_(options) {}

  const nn::Graph& spec() const { return spec_; }
  onnx::GraphProto& graph() { return graph_; }
  // The op whose nodes follow: the first part of their names.
  void set_scope(std::string scope) { scope_ = std::move(scope); }

  std::string value(TensorId id) const {
    const auto found = values_.find(id);
    CHECK(found != values_.end()) << scope_ << ": reads tensor " << id << ", which no op has bound";
    return found->second;
  }
  void bind(TensorId id, const std::string& value) { values_[id] = value; }

  // What ops read of the input; each is made once.
  std::string rows(Source source, std::int32_t slot);
  std::string numeric();
  std::string age();
  std::string lengths();
  std::string sample_lengths();
  std::string candidates();

  std::string param(ParamId id);
  std::string ints(const std::vector<std::int64_t>& shape, std::span<const std::int64_t> numbers);
  std::string floats(const std::string& name, const std::vector<std::int64_t>& shape,
                     std::span<const float> numbers);
  std::string fresh(const std::string& what) {
    return scope_ + "/" + what + "_" + std::to_string(++names_);
  }
  // Returns the first output's name.
  std::string node(onnx::GraphProto& to, const std::string& type,
                   const std::vector<std::string>& inputs,
                   const std::vector<GraphWriter::Attribute>& attributes = {}, int outputs = 1,
                   const std::string& domain = "");

  Result<OnnxModel> finish();

 private:
  struct Column {  // a key column of the input
    Source source;
    std::int32_t slot;
    std::string input;  // "history_item"
    std::string rows() const { return input + "/rows"; }
  };
  template <class Make>
  std::string once(const std::string& what, Make make) {
    if (const auto found = made_.find(what); found != made_.end()) return found->second;
    const std::string outer = std::exchange(scope_, "input");
    std::string value = make();
    scope_ = outer;
    return made_[what] = std::move(value);
  }
  std::string target_shape();  // int64 (2): G, K
  std::string ids_in_row_order(const Column& column, onnx::GraphProto& to);
  void look_up(std::int32_t table, onnx::GraphProto& to);
  std::string table_rows(std::int32_t table);
  void add_inputs(onnx::GraphProto& to) const;
  void add_results();

  const nn::Graph& spec_;
  const OnnxOptions& options_;
  onnx::GraphProto graph_;     // nodes of the ops; all initializers
  onnx::GraphProto prologue_;  // nodes between the input and the ops
  std::map<TensorId, std::string> values_;
  std::map<std::string, std::string> made_;
  std::map<ParamId, std::string> params_;
  std::vector<Column> columns_;
  bool reads_numeric_ = false;
  std::string scope_ = "input";
  std::int64_t names_ = 0;
};

std::string Model::node(onnx::GraphProto& to, const std::string& type,
                        const std::vector<std::string>& inputs,
                        const std::vector<GraphWriter::Attribute>& attributes, int outputs,
                        const std::string& domain) {
  onnx::NodeProto& node = *to.add_node();
  const std::string first = fresh(type);
  node.set_name(first);
  node.set_op_type(type);
  node.set_domain(domain);
  for (const std::string& input : inputs) node.add_input(input);
  node.add_output(first);
  for (int i = 1; i < outputs; ++i) node.add_output(first + "_" + std::to_string(i));
  for (const auto& attribute : attributes) set_attribute(node, attribute);
  return first;
}

std::string Model::ints(const std::vector<std::int64_t>& shape,
                        std::span<const std::int64_t> numbers) {
  onnx::TensorProto& tensor = *graph_.add_initializer();
  tensor.set_name(fresh("ints"));
  tensor.set_data_type(onnx::TensorProto::INT64);
  for (std::int64_t n : shape) tensor.add_dims(n);
  tensor.set_raw_data(numbers.data(), numbers.size_bytes());
  return tensor.name();
}

std::string Model::floats(const std::string& name, const std::vector<std::int64_t>& shape,
                          std::span<const float> numbers) {
  onnx::TensorProto& tensor = *graph_.add_initializer();
  tensor.set_name(name);
  tensor.set_data_type(onnx::TensorProto::FLOAT);
  std::int64_t count = 1;
  for (std::int64_t n : shape) {
    tensor.add_dims(n);
    count *= n;
  }
  CHECK_EQ(count, static_cast<std::int64_t>(numbers.size())) << name;
  tensor.set_raw_data(numbers.data(), numbers.size_bytes());
  return name;
}

std::string Model::param(ParamId id) {
  if (const auto found = params_.find(id); found != params_.end()) return found->second;
  const nn::ParamSpec& p = spec_.param_spec(id);
  const std::size_t floats_of_it = static_cast<std::size_t>(p.rows) * p.cols;
  return params_[id] =
             floats(p.name, {p.rows, p.cols}, options_.dense.subspan(p.offset, floats_of_it));
}

std::string Model::rows(Source source, std::int32_t slot) {
  CHECK(source != Source::kNegative) << "auxiliary negatives exist in training only";
  for (const Column& c : columns_) {
    if (c.source == source && c.slot == slot) return c.rows();
  }
  const char* prefix = source == Source::kTarget ? "target_" : "history_";
  columns_.push_back({source, slot, prefix + spec_.slots().at(slot).name});
  return columns_.back().rows();
}

std::string Model::numeric() {
  reads_numeric_ = true;
  const std::int64_t width = spec_.numeric_features();
  return once("numeric", [&] {
    return node(prologue_, "Reshape", {"numeric", ints({2}, std::vector<std::int64_t>{-1, width})});
  });
}

std::string Model::age() {
  return once("age", [&] {
    return node(prologue_, "Transpose", {"history_age"},
                {{"perm", std::vector<std::int64_t>{1, 0}}});
  });
}

std::string Model::lengths() {
  return once("lengths",
              [&] { return node(prologue_, "Cast", {"history_length"}, {{"to", kInt32}}); });
}

// Every model reads some slot of its candidates; the first one's shape says how many there are.
std::string Model::target_shape() {
  return once("target_shape", [&] {
    CHECK(!spec_.slots().empty());
    rows(Source::kTarget, 0);
    return node(prologue_, "Shape", {"target_" + spec_.slots()[0].name});
  });
}

std::string Model::candidates() {
  return once("candidates", [&] {
    const std::int64_t second = 1;
    return node(prologue_, "Gather", {target_shape(), ints({}, {&second, 1})});
  });
}

std::string Model::sample_lengths() {
  return once("sample_lengths", [&] {
    const std::int64_t one = 1, all = -1;
    const std::string column = node(prologue_, "Unsqueeze", {lengths(), ints({1}, {&one, 1})});
    const std::string each = node(prologue_, "Expand", {column, target_shape()});
    return node(prologue_, "Reshape", {each, ints({1}, {&all, 1})});
  });
}

// (G*K) of a target column, (T, G) of a history column: how the rows of nn lie.
std::string Model::ids_in_row_order(const Column& column, onnx::GraphProto& to) {
  if (column.source == Source::kTarget) {
    const std::int64_t all = -1;
    return node(to, "Reshape", {column.input, ints({1}, {&all, 1})});
  }
  return node(to, "Transpose", {column.input}, {{"perm", std::vector<std::int64_t>{1, 0}}});
}

// The rows of all columns of one table, by one encoder: it holds every key of the table, so there
// should be one of it.
void Model::look_up(std::int32_t table, onnx::GraphProto& to) {
  std::vector<const Column*> columns;
  for (const Column& c : columns_) {
    if (spec_.slots()[c.slot].table == table) columns.push_back(&c);
  }
  if (columns.empty()) return;
  set_scope("table/" + options_.tables.at(table).name);
  const std::int64_t all = -1;
  const std::string flat = ints({1}, {&all, 1});
  std::vector<std::string> ids, shapes, counts;
  for (const Column* c : columns) {
    const std::string in_order = ids_in_row_order(*c, to);
    shapes.push_back(node(to, "Shape", {in_order}));
    ids.push_back(node(to, "Reshape", {in_order, flat}));
    counts.push_back(node(to, "Shape", {ids.back()}));
  }
  const std::string joined = node(to, "Concat", ids, {{"axis", std::int64_t{0}}});
  const auto& keys = options_.tables[table].keys;
  const std::string index =
      node(to, "LabelEncoder", {joined},
           {{"default_int64", static_cast<std::int64_t>(keys.size())}}, 1, kMlDomain);
  onnx::NodeProto& encoder = *to.mutable_node(to.node_size() - 1);
  onnx::AttributeProto& from = *encoder.add_attribute();
  from.set_name("keys_int64s");
  from.set_type(onnx::AttributeProto::INTS);
  from.mutable_ints()->Assign(keys.begin(), keys.end());
  onnx::AttributeProto& into = *encoder.add_attribute();
  into.set_name("values_int64s");
  into.set_type(onnx::AttributeProto::INTS);
  into.mutable_ints()->Reserve(static_cast<int>(keys.size()));
  for (std::size_t i = 0; i < keys.size(); ++i) into.add_ints(static_cast<std::int64_t>(i));

  const std::string sizes = node(to, "Concat", counts, {{"axis", std::int64_t{0}}});
  const int outputs = static_cast<int>(columns.size());
  const std::string first = node(to, "Split", {index, sizes}, {{"axis", std::int64_t{0}}}, outputs);
  const std::string rows = table_rows(table);
  for (int i = 0; i < outputs; ++i) {
    const std::string part = i == 0 ? first : first + "_" + std::to_string(i);
    const std::string shaped = node(to, "Reshape", {part, shapes[i]});
    node(to, "Gather", {rows, shaped}, {{"axis", std::int64_t{0}}});
    to.mutable_node(to.node_size() - 1)->set_output(0, columns[i]->rows());
  }
}

std::string Model::table_rows(std::int32_t table) {
  const OnnxTable& t = options_.tables[table];
  const std::int64_t rows = static_cast<std::int64_t>(t.keys.size()) + 1;
  const std::int64_t width = spec_.table_width(table);
  onnx::TensorProto& tensor = *graph_.add_initializer();
  tensor.set_name("table/" + t.name + "/rows");
  tensor.set_data_type(onnx::TensorProto::FLOAT);
  tensor.add_dims(rows);
  tensor.add_dims(width);
  tensor.set_data_location(onnx::TensorProto::EXTERNAL);
  const auto say = [&](const char* key, std::string value) {
    onnx::StringStringEntryProto& entry = *tensor.add_external_data();
    entry.set_key(key);
    entry.set_value(std::move(value));
  };
  say("location", t.file);
  say("offset", std::to_string(t.offset));
  say("length", std::to_string(rows * width * static_cast<std::int64_t>(sizeof(float))));
  return tensor.name();
}

void Model::add_inputs(onnx::GraphProto& to) const {
  constexpr auto kId = onnx::TensorProto::INT64;
  for (const Column& c : columns_) {
    const char* second = c.source == Source::kTarget ? "candidates" : "steps";
    describe(*to.add_input(), c.input, kId, {"groups", second});
  }
  if (made_.contains("lengths")) describe(*to.add_input(), "history_length", kId, {"groups"});
  if (made_.contains("age")) {
    describe(*to.add_input(), "history_age", onnx::TensorProto::FLOAT, {"groups", "steps"});
  }
  if (!reads_numeric_) return;
  describe(*to.add_input(), "numeric", onnx::TensorProto::FLOAT, {"groups", "candidates"});
  to.mutable_input(to.input_size() - 1)
      ->mutable_type()
      ->mutable_tensor_type()
      ->mutable_shape()
      ->add_dim()
      ->set_dim_value(spec_.numeric_features());
}

void Model::add_results() {
  const std::string shape = target_shape();
  const auto result = [&](const std::string& type, std::vector<std::string> inputs,
                          const std::string& name) {
    node(graph_, type, inputs);
    graph_.mutable_node(graph_.node_size() - 1)->set_output(0, name);
    describe(*graph_.add_output(), name, onnx::TensorProto::FLOAT, {"groups", "candidates"});
  };
  set_scope("output");
  const auto task = [&](TensorId logits, const std::string& prefix) {
    result("Reshape", {value(logits), shape}, prefix + "logit");
    result("Sigmoid", {prefix + "logit"}, prefix + "score");
  };
  task(spec_.logits(), "");
  if (spec_.second_logits() != nn::kNoTensor) task(spec_.second_logits(), "second_");
}

OnnxPort port(const onnx::ValueInfoProto& value) {
  const auto& tensor = value.type().tensor_type();
  OnnxPort port{
      value.name(), tensor.elem_type() == onnx::TensorProto::INT64 ? "INT64" : "FP32", {}};
  for (const auto& d : tensor.shape().dim()) {
    port.dimensions.push_back(d.has_dim_value() ? d.dim_value() : -1);
  }
  return port;
}

Result<OnnxModel> Model::finish() {
  add_results();
  onnx::ModelProto model;
  model.set_ir_version(kIrVersion);
  model.set_producer_name("meander");
  onnx::OperatorSetIdProto& opset = *model.add_opset_import();
  opset.set_version(kOpset);
  onnx::OperatorSetIdProto& ml = *model.add_opset_import();
  ml.set_domain(kMlDomain);
  ml.set_version(kMlOpset);
  for (const auto& [key, value] : options_.metadata) {
    onnx::StringStringEntryProto& entry = *model.add_metadata_props();
    entry.set_key(key);
    entry.set_value(value);
  }
  onnx::GraphProto& whole = *model.mutable_graph();
  whole.set_name("meander");
  for (std::int32_t t = 0; t < spec_.tables(); ++t) look_up(t, whole);
  add_inputs(whole);
  whole.MergeFrom(prologue_);
  whole.MergeFrom(graph_);
  const std::size_t bytes = model.ByteSizeLong();
  if (bytes > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    return Status{Code::kExhausted, "the ONNX model would take " + std::to_string(bytes) +
                                        " bytes, above the 2 GiB of the format: keys are too many"};
  }
  OnnxModel result{model.SerializeAsString(), {}, {}};
  for (const auto& input : whole.input()) result.inputs.push_back(port(input));
  for (const auto& output : whole.output()) result.outputs.push_back(port(output));
  return result;
}

// The face that ops see: of the whole graph, or of a Scan's body.
class Writer final : public GraphWriter {
 public:
  Writer(Model& model, onnx::GraphProto& nodes) : model_(model), nodes_(nodes) {}

  std::string tensor(TensorId id) const override { return model_.value(id); }
  void bind(TensorId id, const std::string& value) override { model_.bind(id, value); }
  std::string embedding(Source source, std::int32_t slot) override {
    return model_.rows(source, slot);
  }
  std::string numeric() override { return model_.numeric(); }
  std::string age() override { return model_.age(); }
  std::string lengths() override { return model_.lengths(); }
  std::string sample_lengths() override { return model_.sample_lengths(); }
  std::string candidates() override { return model_.candidates(); }
  std::string param(ParamId id) override { return model_.param(id); }
  std::string constant(std::vector<std::int64_t> shape, std::vector<float> values) override {
    return model_.floats(model_.fresh("floats"), shape, values);
  }
  std::string constant_int(std::vector<std::int64_t> shape,
                           std::vector<std::int64_t> values) override {
    return model_.ints(shape, values);
  }
  std::string node(const std::string& type, std::vector<std::string> inputs,
                   std::vector<Attribute> attributes, int outputs) override {
    return model_.node(nodes_, type, inputs, attributes, outputs);
  }
  std::vector<std::string> scan(std::vector<std::string> initial_states,
                                std::vector<std::string> sequences, int outputs,
                                const ScanBody& body) override;

 private:
  Model& model_;
  onnx::GraphProto& nodes_;
};

std::vector<std::string> Writer::scan(std::vector<std::string> initial_states,
                                      std::vector<std::string> sequences, int outputs,
                                      const ScanBody& body) {
  onnx::GraphProto inner;
  inner.set_name(model_.fresh("body"));
  const auto declare = [&](const char* what, std::size_t count) {
    std::vector<std::string> names(count);
    for (std::string& name : names) inner.add_input()->set_name(name = model_.fresh(what));
    return names;
  };
  const std::vector<std::string> states = declare("state", initial_states.size());
  const std::vector<std::string> slices = declare("slice", sequences.size());
  Writer writer(model_, inner);
  const std::vector<std::string> results = body(writer, states, slices);
  CHECK_EQ(results.size(), states.size() + outputs);
  for (const std::string& result : results) {
    // An identity, for a body's output may not be its input or a value of the outer graph.
    inner.add_output()->set_name(model_.node(inner, "Identity", {result}));
  }
  std::vector<std::string> inputs = std::move(initial_states);
  inputs.insert(inputs.end(), sequences.begin(), sequences.end());
  const std::string first = model_.node(
      nodes_, "Scan", inputs, {{"num_scan_inputs", static_cast<std::int64_t>(sequences.size())}},
      static_cast<int>(results.size()));
  onnx::AttributeProto& attribute = *nodes_.mutable_node(nodes_.node_size() - 1)->add_attribute();
  attribute.set_name("body");
  attribute.set_type(onnx::AttributeProto::GRAPH);
  *attribute.mutable_g() = std::move(inner);
  std::vector<std::string> names = {first};
  for (std::size_t i = 1; i < results.size(); ++i) names.push_back(first + "_" + std::to_string(i));
  return names;
}

}  // namespace

Result<OnnxModel> onnx_model(const nn::Graph& graph, const OnnxOptions& options) {
  CHECK_EQ(options.tables.size(), static_cast<std::size_t>(graph.tables()));
  CHECK_EQ(options.dense.size(), graph.dense_size());
  Model model(graph, options);
  Writer writer(model, model.graph());
  for (const auto& op : graph.ops()) {
    model.set_scope(op->name());
    op->emit_onnx(writer);
  }
  return model.finish();
}

}  // namespace meander::artefact
