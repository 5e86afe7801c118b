// SPDX-License-Identifier: Apache-2.0
#include "launch/yaml.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "launch/suggest.h"
#include "proto/job.pb.h"

namespace meander::launch {
namespace {

struct Read {
  job::Job job;
  Origins origins;
  Status status;
};

Read read(const std::string& text) {
  Read r;
  r.status = read_yaml(text, "job.yaml", r.job, r.origins);
  return r;
}

TEST(Suggest, NamesTheNearestOrNothing) {
  const std::vector<std::string> known = {"batch", "epochs", "seed"};
  EXPECT_EQ(did_you_mean("bach", known), "; did you mean 'batch'?");
  EXPECT_EQ(did_you_mean("zebra", known), "");
}

TEST(Yaml, FillsEveryKindOfField) {
  const Read r = read(
      "name: one\ndata:\n  path: prepared/x\n  order: shuffle\n  train: {from: 2017-10-08}\n"
      "model:\n  attention: [80, 40]\n  slots: [item]\ntrain:\n  optimizer: {rate: 1e-2}\n");
  ASSERT_TRUE(r.status.ok()) << r.status.message();
  EXPECT_EQ(r.job.name(), "one");
  EXPECT_EQ(r.job.data().order(), job::Data::shuffle);
  EXPECT_EQ(r.job.data().train().from(), "2017-10-08");
  EXPECT_EQ(r.job.model().attention_size(), 2);
  EXPECT_EQ(r.job.model().attention(1), 40u);
  EXPECT_EQ(r.job.model().slots(0), "item");
  EXPECT_FLOAT_EQ(r.job.train().optimizer().rate(), 0.01f);
  EXPECT_EQ(r.job.train().batch(), 128u);
}

TEST(Yaml, UnknownFieldNamesPlaceAndNearestName) {
  EXPECT_EQ(read("train:\n  bach: 12\n").status.message(),
            "job.yaml:2:3: train.bach: unknown field; did you mean 'batch'?");
  EXPECT_EQ(read("modle: {}\n").status.message(),
            "job.yaml:1:1: modle: unknown field; did you mean 'model'?");
  EXPECT_NE(read("zzzzzz: 1\n").status.message().find("known here: name, data"), std::string::npos);
}

TEST(Yaml, IllTypedValueSaysWhatWasExpected) {
  EXPECT_EQ(read("train:\n  batch: many\n").status.message(),
            "job.yaml:2:10: train.batch: expected a whole number from 0 to 4294967295, got 'many'");
  EXPECT_EQ(read("train: {batch: -1}").status.code(), Code::kInvalid);
  EXPECT_EQ(read("train: {batch: 1.5}").status.code(), Code::kInvalid);
  EXPECT_EQ(read("train: {batch: 99999999999}").status.code(), Code::kInvalid);
  EXPECT_EQ(read("train: {clip_norm: nan}").status.code(), Code::kInvalid);
  EXPECT_EQ(read("train: {mode: bps}").status.message(),
            "job.yaml:1:15: train.mode: expected one of bsp, ssp, asp, got 'bps'; did you mean "
            "'bsp'?");
  EXPECT_NE(read("train: {batch: [1]}").status.message().find("found a list"), std::string::npos);
  EXPECT_NE(read("train: {batch: }").status.message().find("found nothing"), std::string::npos);
  EXPECT_NE(read("train: 5").status.message().find("expected fields"), std::string::npos);
  EXPECT_NE(read("model: {head: 5}").status.message().find("expected a list"), std::string::npos);
  EXPECT_NE(read("model: {head: [5, x]}").status.message().find("model.head[1]: expected"),
            std::string::npos);
}

TEST(Yaml, BrokenYamlAndRepeatedKeysAreRefusedWithTheirPlace) {
  EXPECT_EQ(read("train: {batch: 1\n").status.message().substr(0, 11), "job.yaml:2:");
  EXPECT_EQ(read("train: {batch: 1, batch: 2}").status.message(),
            "job.yaml:1:19: train.batch: given twice");
}

TEST(Yaml, SetOverridesAndIsCheckedLikeTheFile) {
  Read r = read("train:\n  batch: 64\n  seed: 3\n");
  ASSERT_TRUE(set_field("train.batch=512", "--set", r.job, r.origins).ok());
  ASSERT_TRUE(set_field("model.head=20,8", "--set", r.job, r.origins).ok());
  ASSERT_TRUE(set_field("model.attention=[3]", "--set", r.job, r.origins).ok());
  ASSERT_TRUE(set_field("cluster.scheduler=tcp://a:1", "--set", r.job, r.origins).ok());
  EXPECT_EQ(r.job.train().batch(), 512u);
  EXPECT_EQ(r.job.model().head(1), 8u);
  EXPECT_EQ(r.job.cluster().scheduler(), "tcp://a:1");
  EXPECT_EQ(origin_of(r.origins, "train.batch"), "--set");
  EXPECT_EQ(origin_of(r.origins, "train.seed"), "job.yaml:3:9");
  EXPECT_EQ(origin_of(r.origins, "train.epochs"), "default");
  EXPECT_EQ(set_field("train.bach=1", "--set", r.job, r.origins).message(),
            "--set: train.bach: unknown field; did you mean 'batch'?");
  EXPECT_FALSE(set_field("train.batch", "--set", r.job, r.origins).ok());
  EXPECT_FALSE(set_field("train=1", "--set", r.job, r.origins).ok());
  EXPECT_FALSE(set_field("train.batch.x=1", "--set", r.job, r.origins).ok());
}

TEST(Yaml, EnvironmentSetsFieldsBelowTheTopLevel) {
  setenv("MEANDER_TRAIN_EPOCHS", "7", 1);
  setenv("MEANDER_NAME", "ignored", 1);
  Read r = read("name: mine\n");
  ASSERT_TRUE(set_from_environment(r.job, r.origins).ok());
  EXPECT_EQ(r.job.train().epochs(), 7u);
  EXPECT_EQ(r.job.name(), "mine");
  EXPECT_EQ(origin_of(r.origins, "train.epochs"), "MEANDER_TRAIN_EPOCHS");
  setenv("MEANDER_TRAIN_EPOCHS", "x", 1);
  EXPECT_EQ(set_from_environment(r.job, r.origins).code(), Code::kInvalid);
  unsetenv("MEANDER_TRAIN_EPOCHS");
  unsetenv("MEANDER_NAME");
}

TEST(Yaml, WhatIsWrittenReadsBackEqual) {
  const Read r =
      read("name: 'a: b'\nmodel: {attention: [8, 4]}\ntrain: {optimizer: {rate: 0.1}}\n");
  ASSERT_TRUE(r.status.ok());
  const std::string text = write_yaml(r.job, &r.origins);
  const Read again = read(text);
  ASSERT_TRUE(again.status.ok()) << again.status.message() << "\n" << text;
  EXPECT_EQ(again.job.name(), "a: b");
  EXPECT_EQ(again.job.train().optimizer().rate(), 0.1f);
  EXPECT_EQ(again.job.model().attention_size(), 2);
  EXPECT_NE(text.find("# default"), std::string::npos);
  EXPECT_NE(text.find("# job.yaml:1:7"), std::string::npos);
}

TEST(Yaml, FieldTextIsOneLineOfAnyField) {
  const Read r = read("model: {attention: [8, 4]}\ndata: {train: {from: 2017-10-08}}\n");
  ASSERT_TRUE(r.status.ok());
  EXPECT_EQ(field_text(r.job, "train.batch"), "128");
  EXPECT_EQ(field_text(r.job, "model.attention"), "[8, 4]");
  EXPECT_EQ(field_text(r.job, "data.train"), "{part: train, from: 2017-10-08, until: \"\"}");
}

}  // namespace
}  // namespace meander::launch
