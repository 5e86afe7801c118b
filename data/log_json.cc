// SPDX-License-Identifier: Apache-2.0
#include "data/log_json.h"

#include <boost/json.hpp>

namespace meander::data {
namespace {

namespace json = boost::json;

constexpr std::string_view kFormat = "meander-prepared-log";
// A log without a second label is of version 1.
constexpr std::int64_t kVersion = 2;
constexpr std::uint32_t kShardsMax = 1 << 20;

template <class Strings>
json::array array_of(const Strings& strings) {
  json::array array;
  for (const std::string& s : strings) array.emplace_back(s);
  return array;
}

// Throws what Boost.JSON throws; parse_log_json() catches it.
LogMeta read_meta(const json::object& root) {
  LogMeta meta;
  meta.shards = json::value_to<std::uint32_t>(root.at("shards"));
  meta.users = json::value_to<std::uint64_t>(root.at("users"));
  meta.items = json::value_to<std::uint64_t>(root.at("items"));
  meta.categories = json::value_to<std::uint64_t>(root.at("categories"));
  meta.events = json::value_to<std::uint64_t>(root.at("events"));
  meta.train_targets = json::value_to<std::uint64_t>(root.at("train_targets"));
  meta.test_targets = json::value_to<std::uint64_t>(root.at("test_targets"));
  meta.test_negatives = json::value_to<std::uint32_t>(root.at("test_negatives"));
  meta.has_category = root.at("has_category").as_bool();
  meta.has_time = root.at("has_time").as_bool();
  meta.has_names = root.at("has_names").as_bool();
  for (const json::value& value : root.at("numeric").as_array()) {
    const json::object& column = value.as_object();
    meta.numeric.push_back({json::value_to<std::string>(column.at("name")),
                            json::value_to<float>(column.at("mean")),
                            json::value_to<float>(column.at("std"))});
  }
  meta.context = json::value_to<std::vector<std::string>>(root.at("context"));
  if (const json::value* label = root.if_contains("second_label")) {
    meta.second_label = json::value_to<std::string>(*label);
  }
  const json::object& split = root.at("split").as_object();
  meta.holdout = json::value_to<std::string>(split.at("holdout"));
  meta.min_history = json::value_to<std::uint32_t>(split.at("min_history"));
  return meta;
}

}  // namespace

std::string to_log_json(const LogMeta& meta) {
  json::array numeric;
  for (const NumericColumn& column : meta.numeric) {
    numeric.push_back({{"name", column.name}, {"mean", column.mean}, {"std", column.std}});
  }
  json::object refused;
  for (const auto& [reason, count] : meta.refused) refused[reason] = count;
  json::object root = {
      {"format", kFormat},
      {"version", meta.second_label.empty() ? 1 : kVersion},
      {"shards", meta.shards},
      {"users", meta.users},
      {"items", meta.items},
      {"categories", meta.categories},
      {"events", meta.events},
      {"train_targets", meta.train_targets},
      {"test_targets", meta.test_targets},
      {"test_negatives", meta.test_negatives},
      {"has_category", meta.has_category},
      {"has_time", meta.has_time},
      {"has_names", meta.has_names},
      {"numeric", numeric},
      {"context", array_of(meta.context)},
      {"split",
       {{"holdout", meta.holdout},
        {"from_ms", meta.holdout_from_ms},
        {"min_history", meta.min_history},
        {"targets_last", meta.targets_last}}},
      {"records", meta.records},
      {"refused", refused},
      {"sources", array_of(meta.sources)},
  };
  if (!meta.second_label.empty()) root["second_label"] = meta.second_label;
  return json::serialize(root) + "\n";
}

Result<LogMeta> parse_log_json(const std::string& path, const Buffer& text) {
  boost::system::error_code error;
  const json::value root =
      json::parse({reinterpret_cast<const char*>(text.data()), text.size()}, error);
  if (error) return invalid(path + ": damaged or truncated JSON");
  const json::value* format = root.is_object() ? root.get_object().if_contains("format") : nullptr;
  if (format == nullptr || *format != json::value(kFormat))
    return invalid(path + ": not a prepared log");
  const json::value* version = root.get_object().if_contains("version");
  if (version == nullptr || (*version != json::value(1) && *version != json::value(kVersion))) {
    return invalid(path + ": another version of the format; prepare the log again");
  }
  try {
    LogMeta meta = read_meta(root.get_object());
    if (meta.shards == 0 || meta.shards > kShardsMax) return invalid(path + ": no shards");
    return meta;
  } catch (const std::exception&) {
    return invalid(path + ": a field is missing or of another type; prepare the log again");
  }
}

}  // namespace meander::data
