// SPDX-License-Identifier: Apache-2.0
// What is written as an export can be read back, and is there whole or not at all.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/small_export.h"

namespace meander {
namespace {

using artefact::Layout;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pointwise;

models::ModelSpec spec() { return SmallExport::spec_of("dnn", /*user=*/true, /*numeric=*/2); }

TEST(Export, HasRowsDenseItemsAndHistories) {
  SmallExport small(spec());
  const auto storage = make_memory_storage();
  const auto written = artefact::write_export(*storage, small.contents(), Layout::kPlain, "e");
  ASSERT_TRUE(written.ok()) << written.status().message();
  EXPECT_EQ(written.value().rows, 60u + 7 + 20);
  EXPECT_EQ(written.value().files, 3u + 5) << "rows; model, dense, items, histories, export.json";

  const auto loaded = serve::Artefact::load(*storage, "e");
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  const serve::Artefact& e = *loaded.value();
  EXPECT_EQ(e.description().job, "small");
  EXPECT_EQ(e.description().tables[0].stored, 30u);
  EXPECT_THAT(e.dense(), Pointwise(testing::Eq(), small.contents().dense));
  for (std::size_t t = 0; t < 3; ++t) {
    const artefact::TableRows& table = small.contents().tables[t];
    for (std::size_t i = 0; i < table.keys.size(); ++i) {
      const std::uint32_t row = e.tables()[t].row_of(table.keys[i]);
      EXPECT_EQ(e.tables()[t].rows.row(row)[table.width - 1],
                table.rows[(i + 1) * table.width - 1]);
    }
  }
  ASSERT_EQ(e.items().size(), SmallExport::kItems);
  EXPECT_EQ(e.items()[5].title, small.contents().items[5].title);
  EXPECT_EQ(e.find_item(small.item(7))->category, small.contents().items[7].category);
  EXPECT_EQ(e.find_item(12345), nullptr);
  const auto history = e.history(4);
  ASSERT_TRUE(history);
  EXPECT_THAT(history->item, Pointwise(testing::Eq(), small.contents().histories[4].item));
  EXPECT_THAT(history->time_ms, Pointwise(testing::Eq(), small.contents().histories[4].time_ms));
  EXPECT_FALSE(e.history(1000));
}

TEST(Export, AnUnknownKeyHasARowOfZeros) {
  SmallExport small(spec());
  const auto storage = make_memory_storage();
  ASSERT_TRUE(artefact::write_export(*storage, small.contents(), Layout::kPlain, "e").ok());
  const auto e = serve::Artefact::load(*storage, "e").value();
  const std::uint32_t row = e->tables()[0].row_of(424242);
  EXPECT_EQ(row, SmallExport::kItems);
  EXPECT_EQ(e->tables()[0].rows.row(row)[3], 0.0f);
}

TEST(Export, TritonLayoutIsAModelRepository) {
  SmallExport small(spec());
  const auto storage = make_memory_storage();
  ASSERT_TRUE(artefact::write_export(*storage, small.contents(), Layout::kTriton, "e").ok());
  EXPECT_TRUE(storage->exists("e/small/1/model.onnx"));
  EXPECT_TRUE(storage->exists("e/small/1/rows/item.safetensors"));
  const Buffer config = storage->read("e/small/config.pbtxt").value();
  const std::string text(reinterpret_cast<const char*>(config.data()), config.size());
  EXPECT_THAT(text, HasSubstr("name: \"target_item\" data_type: TYPE_INT64 dims: [ -1, -1 ]"));
  EXPECT_THAT(text, HasSubstr("name: \"numeric\" data_type: TYPE_FP32 dims: [ -1, -1, 2 ]"));
  EXPECT_THAT(text, HasSubstr("name: \"history_length\" data_type: TYPE_INT64 dims: [ -1 ]"));
  EXPECT_TRUE(serve::Artefact::load(*storage, "e").ok());
}

TEST(Export, ReplacesAnOlderExportAndNothingElse) {
  SmallExport small(spec());
  const auto storage = make_memory_storage();
  ASSERT_TRUE(artefact::write_export(*storage, small.contents(), Layout::kTriton, "e").ok());
  small.contents().description.generation = 4;
  ASSERT_TRUE(artefact::write_export(*storage, small.contents(), Layout::kPlain, "e/").ok());
  EXPECT_EQ(serve::Artefact::load(*storage, "e").value()->description().generation, 4u);
  EXPECT_FALSE(storage->exists("e/small/config.pbtxt"));

  ASSERT_TRUE(storage->make_directories("home").ok());
  ASSERT_TRUE(storage->write_atomic("home/letter", "x", 1).ok());
  const auto refused = artefact::write_export(*storage, small.contents(), Layout::kPlain, "home");
  EXPECT_EQ(refused.status().code(), Code::kInvalid);
  EXPECT_TRUE(storage->exists("home/letter"));
}

// Fails every write after the first `writes`.
class FullDisk final : public Storage {
 public:
  FullDisk(Storage& under, int writes) : under_(under), writes_(writes) {}
  Result<Buffer> read(const std::string& p) override { return under_.read(p); }
  Result<std::unique_ptr<WritableFile>> create(const std::string& p) override {
    if (writes_-- <= 0) return Status{Code::kExhausted, p + ": disk full"};
    return under_.create(p);
  }
  Status rename(const std::string& a, const std::string& b) override { return under_.rename(a, b); }
  Status write_exclusive(const std::string& path, const void* bytes, std::size_t size) override {
    return under_.write_exclusive(path, bytes, size);
  }
  Status remove(const std::string& p) override { return under_.remove(p); }
  Status make_directories(const std::string& p) override { return under_.make_directories(p); }
  Result<std::vector<std::string>> list(const std::string& p) override { return under_.list(p); }
  bool exists(const std::string& p) override { return under_.exists(p); }

 private:
  Storage& under_;
  int writes_;
};

TEST(Export, OnAFullDiskTheOlderExportStays) {
  SmallExport small(spec());
  const auto storage = make_memory_storage();
  ASSERT_TRUE(artefact::write_export(*storage, small.contents(), Layout::kPlain, "e").ok());
  small.contents().description.generation = 4;
  for (int writes = 0; writes < 8; ++writes) {
    FullDisk disk(*storage, writes);
    const auto written = artefact::write_export(disk, small.contents(), Layout::kPlain, "e");
    ASSERT_EQ(written.status().code(), Code::kExhausted);
    EXPECT_EQ(serve::Artefact::load(*storage, "e").value()->description().generation, 3u);
    EXPECT_FALSE(storage->exists("e.tmp"));
  }
}

TEST(Export, DamagedFilesAreNamed) {
  SmallExport small(spec());
  const auto storage = make_memory_storage();
  for (const char* name : {"items.tsv", "dense.safetensors", "histories.safetensors",
                           "rows/category.safetensors", "export.json"}) {
    ASSERT_TRUE(artefact::write_export(*storage, small.contents(), Layout::kPlain, "e").ok());
    const std::string path = join_path("e", name);
    const Buffer bytes = storage->read(path).value();
    ASSERT_TRUE(storage->write_atomic(path, bytes.data(), bytes.size() - 9).ok());
    const auto loaded = serve::Artefact::load(*storage, "e");
    ASSERT_FALSE(loaded.ok()) << name;
    EXPECT_EQ(loaded.status().code(), Code::kCorrupt) << name;
    EXPECT_THAT(loaded.status().message(), HasSubstr(name));
  }
  EXPECT_EQ(serve::Artefact::load(*storage, "absent").status().code(), Code::kNotFound);
}

TEST(Export, TitlesCannotBreakTheLinesOfItems) {
  SmallExport small(spec());
  small.contents().items[2].title = "a\tb\nc";
  const auto storage = make_memory_storage();
  ASSERT_TRUE(artefact::write_export(*storage, small.contents(), Layout::kPlain, "e").ok());
  const auto e = serve::Artefact::load(*storage, "e");
  ASSERT_TRUE(e.ok()) << e.status().message();
  EXPECT_EQ(e.value()->items()[2].title, "a b c");
}

TEST(Samples, AreCalledAsTheInputsOfTheModel) {
  SmallExport small(spec());
  artefact::Samples samples = small.samples(5, 3, 4);
  samples.logit.assign(15, 0.25f);
  const auto storage = make_memory_storage();
  ASSERT_TRUE(artefact::write_samples(*storage, "s", spec(), samples).ok());
  const auto file = artefact::Safetensors::open(*storage, "s").value();
  EXPECT_THAT(file.ints("target_user", 2).value(), Pointwise(testing::Eq(), samples.target[2]));
  EXPECT_THAT(file.ints("history_item", 2).value(), Pointwise(testing::Eq(), samples.history[0]));
  EXPECT_EQ(file.find("history_user"), nullptr);
  EXPECT_THAT(file.ints("history_length", 1).value(),
              Pointwise(testing::Eq(), samples.history_length));
  EXPECT_THAT(file.floats("numeric", 3).value(), Pointwise(testing::Eq(), samples.numeric));
  EXPECT_THAT(file.floats("logit", 2).value(), testing::Each(0.25f));
  EXPECT_EQ(file.find("history_category")->shape, (std::vector<std::int64_t>{5, 4}));
  EXPECT_THAT(file.ints("batches", 1).value(), ElementsAre(5));
}

}  // namespace
}  // namespace meander
