// SPDX-License-Identifier: Apache-2.0
#include "export/rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "checkpoint/generation.h"
#include "common/initial_row.h"
#include "common/partition.h"

namespace meander::artefact {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::uint64_t kLargest = ~std::uint64_t{0};

// A generation of an item table of width 2 with a float of state behind, in two files, and a dense
// vector of 5 floats in blocks of 2.
class RowsTest : public testing::Test {
 protected:
  RowsTest() {
    CHECK(storage_->make_directories("gen").ok());
    add_table("item", 2, 1);
    add_file(0, "item-0", {{3, {3, 30, 0.5f}}, {700, {7, 70, 0.5f}}});
    add_file(0, "item-1", {{kLargest, {9, 90, 0.5f}}});
    add_table("dense", 2, 0);
    add_file(1, "dense", {{0, {1, 2}}, {1, {3, 4}}, {2, {5, 0}}});
    spec_.set_name("item");
    spec_.set_width(2);
    spec_.set_seed(11);
    spec_.set_init_range(0.25f);
  }

  void add_table(const char* name, std::uint32_t width, std::uint32_t state) {
    manifest::Table& table = *manifest_.add_tables();
    table.set_name(name);
    table.set_width(width);
    table.set_state_width(state);
  }
  void add_file(std::uint32_t table, const std::string& name,
                std::vector<std::pair<std::uint64_t, std::vector<float>>> rows) {
    std::ranges::sort(rows, {}, [](const auto& row) { return partition_of(row.first); });
    const manifest::Table& t = manifest_.tables(static_cast<int>(table));
    auto writer = checkpoint::RowsWriter::create(*storage_, "gen/" + name, table,
                                                 t.width() + t.state_width(), {})
                      .value();
    for (const auto& [key, values] : rows) {
      CHECK(writer->add({key, 1, 1, /*admitted=*/!values.empty(), values}).ok());
    }
    *manifest_.add_files() = writer->finish().value();
  }
  Result<TableRows> load(std::vector<std::uint64_t> known) {
    return load_table(*storage_, {{"gen", manifest_}}, 0, spec_, std::move(known));
  }

  std::unique_ptr<Storage> storage_ = make_memory_storage();
  manifest::Manifest manifest_;
  wire::TableSpec spec_;
};

TEST_F(RowsTest, HasStoredRowsByRisingSignedKey) {
  const TableRows table = load({}).value();
  EXPECT_THAT(table.keys, ElementsAre(-1, 3, 700));
  EXPECT_THAT(table.rows, ElementsAre(9, 90, 3, 30, 7, 70));
  EXPECT_EQ(table.stored, 3u);
  EXPECT_EQ(table.index_of(700), 2u);
  EXPECT_EQ(table.index_of(kLargest), 0u);
  EXPECT_EQ(table.index_of(4), 3u);
}

TEST_F(RowsTest, KnownKeysThatWereNeverStoredHaveTheTrainersInitialRow) {
  const TableRows table = load({700, 42, 42}).value();
  EXPECT_THAT(table.keys, ElementsAre(-1, 3, 42, 700));
  EXPECT_EQ(table.stored, 3u);
  float row[2];
  initial_row(11, 0, 42, 0.25f, row);
  EXPECT_NE(row[0], 0);
  EXPECT_EQ(table.rows[4], row[0]);
  EXPECT_EQ(table.rows[5], row[1]);
  EXPECT_EQ(table.rows[6], 7) << "a stored row stays as it was trained";
}

TEST_F(RowsTest, ACountedButNotAdmittedKeyHasItsInitialRow) {
  add_file(0, "item-2", {{77, {}}});
  EXPECT_THAT(load({}).value().keys, ElementsAre(-1, 3, 700));
  const TableRows table = load({77}).value();
  float row[2];
  initial_row(11, 0, 77, 0.25f, row);
  EXPECT_EQ(table.rows[2 * table.index_of(77)], row[0]);
}

TEST_F(RowsTest, DenseBlocksAreJoinedAndPaddingIsDropped) {
  EXPECT_THAT(load_dense(*storage_, {{"gen", manifest_}}, 1, 5).value(),
              ElementsAre(1, 2, 3, 4, 5));
}

TEST_F(RowsTest, AMissingOrForeignDenseBlockIsRefused) {
  EXPECT_EQ(load_dense(*storage_, {{"gen", manifest_}}, 1, 7).status().code(), Code::kCorrupt);
  EXPECT_EQ(load_dense(*storage_, {{"gen", manifest_}}, 1, 3).status().code(), Code::kInvalid);
  EXPECT_EQ(load_dense(*storage_, {{"gen", manifest_}}, 2, 3).status().code(), Code::kInvalid);
}

TEST_F(RowsTest, AnotherTableIsRefusedByName) {
  spec_.set_width(3);
  const auto refused = load({});
  EXPECT_EQ(refused.status().code(), Code::kInvalid);
  EXPECT_THAT(refused.status().message(), HasSubstr("item of width 2"));
}

TEST_F(RowsTest, ADamagedFileIsCorrupt) {
  const Buffer bytes = storage_->read("gen/item-0").value();
  ASSERT_TRUE(storage_->write_atomic("gen/item-0", bytes.data(), bytes.size() - 1).ok());
  EXPECT_EQ(load({}).status().code(), Code::kCorrupt);
}

}  // namespace
}  // namespace meander::artefact
