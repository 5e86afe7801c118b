// SPDX-License-Identifier: Apache-2.0
#include "export/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace meander::artefact {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<std::int64_t> kInts = {-1, 0, 1L << 62};
const std::vector<float> kFloats = {0.5f, -2, 3, 4, 5, 6};

std::unique_ptr<Storage> with_file() {
  auto storage = make_memory_storage();
  auto writer = SafetensorsWriter::create(
      *storage, "f.safetensors",
      {{"numbers", "F32", {2, 3}}, {"ids", "I64", {3}}, {"none", "I64", {0}}});
  CHECK(writer.ok());
  CHECK(writer->append(std::span<const float>(kFloats)).ok());
  CHECK(writer->append(std::span<const std::int64_t>(kInts)).ok());
  CHECK(writer->close().ok());
  return storage;
}

void overwrite(Storage& storage, const std::string& bytes) {
  ASSERT_TRUE(storage.write_atomic("f.safetensors", bytes.data(), bytes.size()).ok());
}

std::string contents(Storage& storage) {
  const Buffer bytes = storage.read("f.safetensors").value();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(Safetensors, ReadsWhatWasWritten) {
  const auto storage = with_file();
  const auto file = Safetensors::open(*storage, "f.safetensors");
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_THAT(file.value().ints("ids", 1).value(), ElementsAre(-1, 0, 1L << 62));
  EXPECT_THAT(file.value().floats("numbers", 2).value(), ElementsAre(0.5f, -2, 3, 4, 5, 6));
  EXPECT_THAT(file.value().ints("none", 1).value(), ElementsAre());
  EXPECT_EQ(file.value().find("numbers")->shape, (std::vector<std::int64_t>{2, 3}));
}

TEST(Safetensors, FirstArrayStartsAtAPage) {
  auto storage = make_memory_storage();
  auto writer = SafetensorsWriter::create(*storage, "f", {{"a", "F32", {1}}, {"b", "F32", {2}}});
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ(writer->offset("a"), kSafetensorsAlign);
  EXPECT_EQ(writer->offset("b"), kSafetensorsAlign + 4);
  EXPECT_EQ(writer->file_bytes(), kSafetensorsAlign + 12);
}

TEST(Safetensors, WrongTypeOrDimensionsAreRefused) {
  const auto storage = with_file();
  const Safetensors file = Safetensors::open(*storage, "f.safetensors").value();
  EXPECT_EQ(file.floats("ids", 1).status().code(), Code::kCorrupt);
  EXPECT_EQ(file.ints("ids", 2).status().code(), Code::kCorrupt);
  EXPECT_THAT(file.ints("absent", 1).status().message(),
              HasSubstr("f.safetensors: has no array absent"));
}

TEST(Safetensors, EveryTruncationIsCorrupt) {
  const auto storage = with_file();
  const std::string whole = contents(*storage);
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{8}, std::size_t{100},
                                 kSafetensorsAlign, whole.size() - 1}) {
    overwrite(*storage, whole.substr(0, size));
    const auto file = Safetensors::open(*storage, "f.safetensors");
    ASSERT_FALSE(file.ok()) << size;
    EXPECT_EQ(file.status().code(), Code::kCorrupt);
    EXPECT_THAT(file.status().message(), HasSubstr("f.safetensors"));
  }
}

TEST(Safetensors, HeadersThatLieAreCorrupt) {
  const auto storage = with_file();
  const std::string whole = contents(*storage);
  const std::pair<const char*, const char*> lies[] = {{"[2,3]", "[2,4]"},
                                                      {"[2,3]", "[-2,"},
                                                      {"[0,24]", "[9,24]"},
                                                      {"\"F32\"", "\"I64\""},
                                                      {"{\"numbers\"", "[\"numbers\""}};
  for (const auto& [truth, lie] : lies) {
    std::string bytes = whole;
    const std::size_t at = bytes.find(truth);
    ASSERT_NE(at, bytes.npos) << truth;
    bytes.replace(at, std::strlen(lie), lie);
    overwrite(*storage, bytes);
    EXPECT_EQ(Safetensors::open(*storage, "f.safetensors").status().code(), Code::kCorrupt) << lie;
  }
  std::string endless = whole;
  endless.replace(0, 8, 8, '\xff');
  overwrite(*storage, endless);
  EXPECT_EQ(Safetensors::open(*storage, "f.safetensors").status().code(), Code::kCorrupt);
}

TEST(Safetensors, AbsentFileIsNotFound) {
  auto storage = make_memory_storage();
  EXPECT_EQ(Safetensors::open(*storage, "absent").status().code(), Code::kNotFound);
}

}  // namespace
}  // namespace meander::artefact
