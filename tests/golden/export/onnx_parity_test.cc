// SPDX-License-Identifier: Apache-2.0
// Each model, exported and scored by onnxruntime (tools/check_onnx.py), says what its graph says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "tests/small_export.h"

namespace meander {
namespace {

bool has_python() {
  static const bool has =
      std::system("python3 -c 'import numpy, onnxruntime, safetensors' >/dev/null 2>&1") == 0;
  return has;
}

struct Case {
  std::string name;
  models::ModelSpec spec;
  artefact::Layout layout = artefact::Layout::kPlain;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const std::string& kind : models::model_kinds()) {
    if (models::graph_of(kind) != models::GraphKind::kNone) continue;  // those are not exported
    for (const char* dice : {"batch", "moving"}) {
      models::ModelSpec spec = SmallExport::spec_of(kind, /*user=*/kind == "mf");
      spec.dice = dice;
      for (nn::SlotSpec& slot : spec.slots) {
        if (kind == "mf") slot.width = spec.slots[0].width;
      }
      all.push_back({kind + "_dice_" + dice, spec});
    }
  }
  all.push_back({"dnn_user_and_numbers", SmallExport::spec_of("dnn", true, 3)});
  all.push_back({"dnn_triton", SmallExport::spec_of("dnn"), artefact::Layout::kTriton});
  models::ModelSpec prelu = SmallExport::spec_of("dnn");
  prelu.activation = "prelu";
  all.push_back({"dnn_prelu", prelu});
  models::ModelSpec two_layers = SmallExport::spec_of("lstm");
  two_layers.layers = 2;
  all.push_back({"lstm_two_layers", two_layers});
  for (const char* evolution : {"agru", "aigru"}) {
    models::ModelSpec dien = SmallExport::spec_of("dien");
    dien.evolution = evolution;
    all.push_back({std::string("dien_") + evolution, dien});
  }
  models::ModelSpec relu = SmallExport::spec_of("dnn");
  relu.activation = "relu";
  all.push_back({"dnn_relu", relu});
  for (const char* kind : {"sasrec", "bst"}) {
    models::ModelSpec heads = SmallExport::spec_of(kind);
    heads.heads = 2;
    heads.positions = 5;  // fewer than some histories have behaviours
    all.push_back({std::string(kind) + "_two_heads", heads});
  }
  for (const char* kind : {"bst", "caser", "decay", "dien", "din", "dnn", "lstm"}) {
    models::ModelSpec second = SmallExport::spec_of(kind);
    second.dice = "moving";
    second.second_weight = 0.5f;
    all.push_back({std::string(kind) + "_second", second});
  }
  for (const char* kind : {"dnn", "din", "dien"}) {
    models::ModelSpec content = SmallExport::spec_of(kind);
    content.slots.push_back({"content", 2, 7, true, true, 5});
    content.hidden = 15;  // DIEN's state is as wide as a behaviour
    all.push_back({std::string(kind) + "_content", content});
  }
  return all;
}

class OnnxParity : public testing::TestWithParam<Case> {};

TEST_P(OnnxParity, OnnxruntimeScoresAsTheTrainer) {
  if (!has_python()) GTEST_SKIP() << "python3 has no numpy, onnxruntime, safetensors";
  const auto storage = make_posix_storage();
  const std::string dir = testing::TempDir() + "onnx_parity_" + GetParam().name;
  SmallExport small(GetParam().spec);
  ASSERT_TRUE(storage->remove(dir).ok());
  const auto written = artefact::write_export(*storage, small.contents(), GetParam().layout, dir);
  ASSERT_TRUE(written.ok()) << written.status().message();
  auto loaded = serve::Artefact::load(*storage, dir);
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();

  artefact::Samples samples = small.samples(/*groups=*/40, /*candidates=*/3, /*steps=*/9);
  samples.batches = {24, 1, 15};
  const bool has_second = small.graph().second_logits() != nn::kNoTensor;
  samples.logit = score_all(loaded.value(), samples, has_second ? &samples.second_logit : nullptr);
  if (has_second) EXPECT_NE(samples.second_logit, samples.logit);
  ASSERT_TRUE(
      artefact::write_samples(*storage, dir + "/samples.safetensors", GetParam().spec, samples)
          .ok());
  EXPECT_EQ(std::system(("python3 tools/check_onnx.py " + dir).c_str()), 0);
  ASSERT_TRUE(storage->remove(dir).ok());
}

TEST(OnnxCheck, ADifferenceIsFoundInEitherTask) {
  if (!has_python()) GTEST_SKIP() << "python3 has no numpy, onnxruntime, safetensors";
  const auto storage = make_posix_storage();
  const std::string dir = testing::TempDir() + "onnx_check";
  models::ModelSpec spec = SmallExport::spec_of("dnn");
  spec.second_weight = 1;
  SmallExport small(spec);
  ASSERT_TRUE(storage->remove(dir).ok());
  ASSERT_TRUE(
      artefact::write_export(*storage, small.contents(), artefact::Layout::kPlain, dir).ok());
  artefact::Samples samples = small.samples(4, 2, 5);
  samples.logit =
      score_all(serve::Artefact::load(*storage, dir).value(), samples, &samples.second_logit);
  const auto is_good = [&](const artefact::Samples& written) {
    EXPECT_TRUE(
        artefact::write_samples(*storage, dir + "/samples.safetensors", spec, written).ok());
    return std::system(("python3 tools/check_onnx.py " + dir).c_str()) == 0;
  };
  EXPECT_TRUE(is_good(samples));
  for (auto task : {&artefact::Samples::logit, &artefact::Samples::second_logit}) {
    artefact::Samples other = samples;
    (other.*task)[3] += 1e-3f;
    EXPECT_FALSE(is_good(other));
  }
  ASSERT_TRUE(storage->remove(dir).ok());
}

INSTANTIATE_TEST_SUITE_P(Models, OnnxParity, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace meander
