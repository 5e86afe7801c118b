// SPDX-License-Identifier: Apache-2.0
// The shape of what is exported; that it scores as the trainer is for tests/golden/export.
#include "export/onnx_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nn/graph_writer.h"
#include "nn/ops/concat.h"
#include "nn/ops/embedding.h"

#define ONNX_ML 1
#define ONNX_NAMESPACE onnx
#include <onnx/onnx_pb.h>

namespace meander::artefact {
namespace {

using testing::ElementsAre;
using testing::UnorderedElementsAre;

// A logit by a Scan over the history: enough to see every kind of call of the writer.
class RunningSum final : public nn::Op {
 public:
  RunningSum(nn::TensorId target, nn::TensorId history, nn::TensorId out, nn::ParamId bias)
      : target_(target), history_(history), out_(out), bias_(bias) {}
  std::string name() const override { return "running_sum"; }
  std::vector<nn::TensorId> inputs() const override { return {target_, history_}; }
  std::vector<nn::TensorId> outputs() const override { return {out_}; }
  void forward(const nn::OpContext&) const override {}
  void backward(const nn::OpContext&) const override {}
  void emit_onnx(nn::GraphWriter& writer) const override {
    const std::string start = writer.constant({1, 1}, {0.0f});
    const auto results =
        writer.scan({start}, {writer.tensor(history_)}, 1,
                    [&](nn::GraphWriter& body, const std::vector<std::string>& states,
                        const std::vector<std::string>& slices) -> std::vector<std::string> {
                      const std::string next = body.node("Add", {states[0], slices[0]});
                      return {next, body.node("Mul", {next, body.param(bias_)})};
                    });
    EXPECT_EQ(results.size(), 2u);
    writer.sample_lengths();
    writer.candidates();
    writer.bind(out_, writer.node("Add", {writer.tensor(target_), results[0]}));
  }

 private:
  nn::TensorId target_, history_, out_;
  nn::ParamId bias_;
};

nn::Graph small_graph() {
  nn::Graph graph({{"item", 0, 1, true}, {"device", 1, 1, false}}, 0);
  const auto target = nn::embedding(graph, "target", nn::Source::kTarget, {0});
  const auto history = nn::embedding(graph, "history", nn::Source::kHistory, {0});
  const auto out = graph.tensor(nn::Rows::kSample, 1);
  const auto bias = graph.param("bias", 1, 1, {});
  graph.add(std::make_unique<RunningSum>(target, history, out, bias));
  graph.set_logits(out);
  graph.finish();
  return graph;
}

class OnnxModelTest : public testing::Test {
 protected:
  OnnxModelTest() : graph_(small_graph()), dense_(graph_.dense_size(), 2.0f) {
    options_.tables = {{"item", keys_, "rows/item.safetensors", 4096},
                       {"device", keys_, "rows/device.safetensors", 8192}};
    options_.dense = dense_;
    options_.metadata = {{"job", "small"}};
    model_ = onnx_model(graph_, options_).value();
    EXPECT_TRUE(proto_.ParseFromString(model_.bytes));
  }
  const onnx::NodeProto* find(const std::string& type) const {
    for (const auto& node : proto_.graph().node()) {
      if (node.op_type() == type) return &node;
    }
    return nullptr;
  }

  std::vector<std::int64_t> keys_ = {-5, 0, 7};
  nn::Graph graph_;
  std::vector<float> dense_;
  OnnxOptions options_;
  OnnxModel model_;
  onnx::ModelProto proto_;
};

TEST_F(OnnxModelTest, DeclaresWhatTheModelReadsAndNothingElse) {
  std::vector<std::string> inputs, outputs;
  for (const OnnxPort& port : model_.inputs) inputs.push_back(port.name);
  for (const OnnxPort& port : model_.outputs) outputs.push_back(port.name);
  EXPECT_THAT(inputs, UnorderedElementsAre("target_item", "history_item", "history_length"));
  EXPECT_THAT(outputs, ElementsAre("logit", "score"));
  EXPECT_EQ(model_.inputs[0].type, "INT64");
  EXPECT_EQ(model_.outputs[0].type, "FP32");
  EXPECT_THAT(model_.inputs[0].dimensions, ElementsAre(-1, -1));
}

TEST_F(OnnxModelTest, ATableHasOneEncoderWhateverReadsIt) {
  int encoders = 0;
  for (const auto& node : proto_.graph().node()) encoders += node.op_type() == "LabelEncoder";
  EXPECT_EQ(encoders, 1);
  const onnx::NodeProto* encoder = find("LabelEncoder");
  EXPECT_EQ(encoder->domain(), "ai.onnx.ml");
  for (const auto& a : encoder->attribute()) {
    if (a.name() == "keys_int64s") {
      EXPECT_THAT(a.ints(), ElementsAre(-5, 0, 7));
    }
    if (a.name() == "values_int64s") {
      EXPECT_THAT(a.ints(), ElementsAre(0, 1, 2));
    }
    if (a.name() == "default_int64") {
      EXPECT_EQ(a.i(), 3) << "the row behind the last";
    }
  }
}

TEST_F(OnnxModelTest, RowsLieOutsideWithOneMoreForUnknownKeys) {
  const onnx::TensorProto* rows = nullptr;
  for (const auto& tensor : proto_.graph().initializer()) {
    if (tensor.name() == "table/item/rows") rows = &tensor;
  }
  ASSERT_NE(rows, nullptr);
  EXPECT_EQ(rows->data_location(), onnx::TensorProto::EXTERNAL);
  EXPECT_THAT(rows->dims(), ElementsAre(4, 1));
  std::map<std::string, std::string> external;
  for (const auto& entry : rows->external_data()) external[entry.key()] = entry.value();
  EXPECT_EQ(external["location"], "rows/item.safetensors");
  EXPECT_EQ(external["offset"], "4096");
  EXPECT_EQ(external["length"], "16");
}

TEST_F(OnnxModelTest, NodesComeAfterWhatTheyRead) {
  std::set<std::string> known;
  for (const auto& input : proto_.graph().input()) known.insert(input.name());
  for (const auto& tensor : proto_.graph().initializer()) known.insert(tensor.name());
  for (const auto& node : proto_.graph().node()) {
    for (const std::string& input : node.input()) {
      EXPECT_TRUE(input.empty() || known.contains(input)) << node.name() << " reads " << input;
    }
    for (const std::string& output : node.output()) {
      EXPECT_TRUE(known.insert(output).second) << output << " is there twice";
    }
  }
  for (const auto& output : proto_.graph().output()) EXPECT_TRUE(known.contains(output.name()));
}

TEST_F(OnnxModelTest, ScanBodyHasItsStateSliceAndResults) {
  const onnx::NodeProto* scan = find("Scan");
  ASSERT_NE(scan, nullptr);
  EXPECT_EQ(scan->input_size(), 2);
  EXPECT_EQ(scan->output_size(), 2);
  for (const auto& a : scan->attribute()) {
    if (a.name() == "num_scan_inputs") {
      EXPECT_EQ(a.i(), 1);
    }
    if (a.name() != "body") continue;
    EXPECT_EQ(a.g().input_size(), 2);
    EXPECT_EQ(a.g().output_size(), 2);
    EXPECT_EQ(a.g().node_size(), 4);  // Add, Mul and an Identity for each result
  }
}

TEST_F(OnnxModelTest, SaysItsOperatorSetsAndWhatItIs) {
  std::map<std::string, std::int64_t> opsets;
  for (const auto& opset : proto_.opset_import()) opsets[opset.domain()] = opset.version();
  EXPECT_EQ(opsets[""], 17);
  EXPECT_EQ(opsets["ai.onnx.ml"], 3);
  ASSERT_EQ(proto_.metadata_props_size(), 1);
  EXPECT_EQ(proto_.metadata_props(0).value(), "small");
}

}  // namespace
}  // namespace meander::artefact
