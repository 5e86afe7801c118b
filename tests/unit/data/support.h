// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "common/storage.h"
#include "data/prepare.h"
#include "data/prepared_log.h"

namespace meander::data {

inline void write_file(Storage& storage, const std::string& path, const std::string& text) {
  const std::size_t slash = path.rfind('/');
  if (slash != std::string::npos) {
    ASSERT_TRUE(storage.make_directories(path.substr(0, slash)).ok());
  }
  ASSERT_TRUE(storage.write_atomic(path, text.data(), text.size()).ok());
}

inline std::string read_file(Storage& storage, const std::string& path) {
  const Result<Buffer> bytes = storage.read(path);
  if (!bytes.ok()) return "";
  return {reinterpret_cast<const char*>(bytes->data()), bytes->size()};
}

// time, user, item, category, price and device.
inline Schema shop_schema() {
  Schema schema;
  schema.columns = {{"time", ColumnRole::kTime, ColumnType::kInt},
                    {"user", ColumnRole::kUser, ColumnType::kInt},
                    {"item", ColumnRole::kItem, ColumnType::kInt},
                    {"category", ColumnRole::kCategory, ColumnType::kString},
                    {"price", ColumnRole::kNumeric, ColumnType::kFloat},
                    {"device", ColumnRole::kContext, ColumnType::kString}};
  return schema;
}

// `users` users with 2 to 40 events each over `items` items; out of order in time and mixed between
// users, by a seed.
std::string shop_csv(std::uint64_t users, std::uint64_t items, std::uint64_t seed);

inline PrepareOptions shop_options(const std::string& in, const std::string& out) {
  PrepareOptions options;
  options.format = Format::kCsv;
  options.in = {in};
  options.out = out;
  options.schema = shop_schema();
  options.streams = 3;
  return options;
}

inline std::shared_ptr<const PreparedLog> open_log(Storage& storage, const std::string& path) {
  Result<std::shared_ptr<const PreparedLog>> log = PreparedLog::open(storage, path);
  EXPECT_TRUE(log.ok()) << log.status().message();
  return log.ok() ? std::move(log).value() : nullptr;
}

inline std::shared_ptr<const PreparedLog> prepare_log(Storage& storage,
                                                      const PrepareOptions& options) {
  const Result<PrepareReport> report = prepare(storage, options);
  EXPECT_TRUE(report.ok()) << report.status().message();
  return report.ok() ? open_log(storage, options.out) : nullptr;
}

// The shop's log, prepared in memory.
inline std::shared_ptr<const PreparedLog> shop_log(Storage& storage, std::uint64_t users = 60,
                                                   std::uint64_t items = 40) {
  write_file(storage, "shop.csv", shop_csv(users, items, 7));
  return prepare_log(storage, shop_options("shop.csv", "shop"));
}

// The folder of real data sets, or empty.
inline std::string real_data() {
  const char* named = std::getenv("MEANDER_DATA");
  const std::string folder = named != nullptr ? named : "../shared/data";
  return std::filesystem::exists(folder) ? folder : "";
}

// A directory that is removed at the end of the test.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "meander-data-XXXXXX").string();
    CHECK(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace meander::data
