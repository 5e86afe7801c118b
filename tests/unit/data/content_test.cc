// SPDX-License-Identifier: Apache-2.0
#include "data/content.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "common/rng.h"
#include "data/npy.h"
#include "tests/unit/data/support.h"

namespace meander::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <class T>
std::string npy(const char* type, const std::vector<std::uint64_t>& shape,
                const std::vector<T>& values) {
  std::string bytes = npy_header(type, shape);
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  return bytes;
}

class ContentTest : public testing::Test {
 protected:
  Result<std::shared_ptr<const Content>> load(const std::string& vectors,
                                              const std::string& items) {
    write_file(*storage_, "v.npy", vectors);
    write_file(*storage_, "i", items);
    return Content::load(*storage_, "v.npy", "i");
  }
  void expect_refused(const std::string& vectors, const std::string& items, Code code,
                      const std::string& what) {
    const auto content = load(vectors, items);
    ASSERT_FALSE(content.ok()) << what;
    EXPECT_EQ(content.status().code(), code) << content.status().message();
    EXPECT_THAT(content.status().message(), HasSubstr(what));
    EXPECT_THAT(content.status().message(), testing::Not(HasSubstr("\n")));
  }
  const std::unique_ptr<Storage> storage_ = make_memory_storage();
};

TEST_F(ContentTest, RowsAreByIdAndOthersHaveZeros) {
  for (const std::string& items : {std::string("7\n-3\n5"), std::string("7\r\n-3\r\n5\r\n"),
                                   npy<std::int64_t>("<i8", {3}, {7, -3, 5})}) {
    const auto content = load(npy<float>("<f4", {3, 2}, {1, 2, 3, 4, 5, 6}), items);
    ASSERT_TRUE(content.ok()) << content.status().message();
    const Content& c = *content.value();
    EXPECT_EQ(c.width(), 2u);
    EXPECT_THAT(c.ids(), ElementsAre(-3, 5, 7));
    EXPECT_THAT(c.rows(), ElementsAre(3, 4, 5, 6, 1, 2, 0, 0));
    EXPECT_EQ(c.row_of(7), 2u);
    EXPECT_EQ(c.row_of(static_cast<std::uint64_t>(-3)), 0u);
    EXPECT_EQ(c.row_of(6), 3u);
    EXPECT_EQ(c.id_of(1), 5);
    EXPECT_FALSE(c.has(static_cast<std::uint64_t>(c.id_of(3))));
  }
}

TEST_F(ContentTest, Float16IsReadAsItsValue) {
  const auto content =
      load(npy<_Float16>("<f2", {2, 2}, {_Float16(0.5), _Float16(-2), _Float16(6e-8), _Float16(0)}),
           "0\n1\n");
  ASSERT_TRUE(content.ok()) << content.status().message();
  EXPECT_THAT(content.value()->rows(),
              ElementsAre(0.5f, -2.0f, static_cast<float>(_Float16(6e-8)), 0, 0, 0));
  EXPECT_EQ(content.value()->id_of(2), 2);
}

TEST_F(ContentTest, EveryIdIsFoundAmongMany) {
  Rng rng(1);
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < 5000; ++i) ids.push_back(i * 1'000'003 - 7);
  for (std::size_t i = ids.size(); i-- > 1;) std::swap(ids[i], ids[rng.below(i + 1)]);
  std::vector<float> rows;
  for (const std::int64_t id : ids) rows.push_back(static_cast<float>(id));
  const auto content = Content::create(ids, rows, 1).value();
  for (const std::int64_t id : ids) {
    const std::uint32_t row = content->row_of(static_cast<std::uint64_t>(id));
    ASSERT_EQ(content->id_of(row), id);
    ASSERT_EQ(content->rows()[row], static_cast<float>(id));
    ASSERT_FALSE(content->has(static_cast<std::uint64_t>(id + 1)));
  }
}

TEST_F(ContentTest, FilesThatDoNotFitAreRefusedInOneLine) {
  const std::string good = npy<float>("<f4", {2, 1}, {1, 2});
  const auto refused = [&](const std::string& vectors, const std::string& what) {
    expect_refused(vectors, "1\n2\n", Code::kInvalid, what);
  };
  refused("1.0 2.0\n", "v.npy: not a NumPy file");
  refused(npy<double>("<f8", {2, 1}, {1, 2}),
          "v.npy: has <f8 (2, 1), vectors of items are float32");
  refused(npy<float>("<f4", {2}, {1, 2}), "has <f4 (2)");
  refused(npy<float>("<f4", {2, 0}, {}), "a vector has 1 to");
  refused(npy<float>(">f4", {2, 1}, {1, 2}), "of type >f4");
  refused(npy<float>("<f4", {2, 1}, {1, std::numeric_limits<float>::quiet_NaN()}),
          "value 0 of row 1 is not finite");
  std::string fortran = npy<float>("<f4", {2, 2}, {1, 2, 3, 4});
  fortran.replace(fortran.find("False"), 5, "True ");
  refused(fortran, "in Fortran order");
  refused(npy<float>("<f4", {3, 1}, {1, 2, 3}), "has 2 ids, v.npy has 3 vectors");
  expect_refused(good, "1\n1\n", Code::kInvalid, "i: item 1 is there twice");
  expect_refused(good, "1\nx\n", Code::kInvalid, "i:2: 'x' is not the id of an item");
  expect_refused(good, npy<std::int32_t>("<i4", {2}, {1, 2}), Code::kInvalid, "i: has <i4 (2)");
  EXPECT_EQ(Content::load(*storage_, "none", "i").status().code(), Code::kNotFound);
}

TEST_F(ContentTest, FilesCutAnywhereAreRefused) {
  const std::string good = npy<float>("<f4", {2, 3}, {1, 2, 3, 4, 5, 6});
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(load(good.substr(0, size), "1\n2\n").ok()) << size;
  }
  EXPECT_FALSE(load(good + "x", "1\n2\n").ok());
}

TEST_F(ContentTest, AnyByteOfTheHeaderMayBeWrong) {
  const std::string good = npy<float>("<f4", {2, 3}, {1, 2, 3, 4, 5, 6});
  Rng rng(2);
  for (int i = 0; i < 3000; ++i) {
    std::string bad = good;
    for (int n = 0; n < 2; ++n) bad[rng.below(128)] = static_cast<char>(rng.below(256));
    (void)load(bad, "1\n2\n");  // refused or not, it ends
  }
}

TEST(Npy, ShapesAreReadAsTheyAreWritten) {
  const auto storage = make_memory_storage();
  for (const std::vector<std::uint64_t>& shape :
       {std::vector<std::uint64_t>{}, {0}, {3}, {2, 3}, {4, 1, 2}}) {
    std::uint64_t n = 1;
    for (const std::uint64_t size : shape) n *= size;
    write_file(*storage, "a.npy", npy<float>("<f4", shape, std::vector<float>(n, 1.5f)));
    const auto array = read_npy(*storage, "a.npy");
    ASSERT_TRUE(array.ok()) << array.status().message();
    EXPECT_EQ(array->shape, shape);
    EXPECT_EQ(array->type, "<f4");
    EXPECT_EQ(array->values.size(), n * sizeof(float));
  }
}

}  // namespace
}  // namespace meander::data
