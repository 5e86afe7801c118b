// SPDX-License-Identifier: Apache-2.0
#include "data/sources.h"

#include <algorithm>

#include "data/readers.h"

namespace meander::data {
namespace {

std::string_view base_name(std::string_view path) {
  while (path.ends_with('/')) path.remove_suffix(1);
  return path.substr(path.rfind('/') + 1);
}
std::string directory_of(const std::string& path) {
  const std::size_t at = path.rfind('/');
  return at == std::string::npos ? "." : at == 0 ? "/" : path.substr(0, at);
}
// The name without .zst, which any file may have.
std::string_view stem(std::string_view path) {
  path = base_name(path);
  if (path.ends_with(".zst")) path.remove_suffix(4);
  return path;
}

// What a directory must hold to be read in this format: for messages, and for is_log_file().
const char* log_files_of(Format format) {
  switch (format) {
    case Format::kMl1m:
      return "sequences.txt or ratings.dat";
    case Format::kGlobo:
      return "clicks*.csv";
    case Format::kMl100k:
      return "*.inter";
    case Format::kCora:
      return "*_nodes.txt";
    case Format::kCsv:
      return "*.csv";
    case Format::kTsv:
      return "*.tsv";
    case Format::kJsonl:
      return "*.jsonl";
    default:
      return "*.txt";
  }
}
bool is_log_file(Format format, std::string_view name) {
  name = stem(name);
  switch (format) {
    case Format::kMl1m:
      return name == "sequences.txt" || name == "ratings.dat";
    case Format::kGlobo:
      return name.starts_with("clicks") && name.ends_with(".csv");
    default:
      return name.ends_with(std::string_view(log_files_of(format)).substr(1));
  }
}
bool is_item_file(Format format, std::string_view name) {
  name = stem(name);
  return (format == Format::kMl1m && name == "movies.dat") ||
         (format == Format::kMl100k && name.ends_with(".item"));
}

// The files of `format` that `path` is, or holds. Item files are found by find_names().
Status add_files(Storage& storage, Format format, const std::string& path,
                 std::vector<std::string>& files) {
  const Result<std::vector<std::string>> names = storage.list(path);
  if (!names.ok()) {
    if (!storage.exists(path)) return not_found(path + ": no such file or directory");
    if (!is_item_file(format, path)) files.push_back(path);
    return {};
  }
  const std::size_t before = files.size();
  for (const std::string& name : names.value()) {
    if (is_log_file(format, name)) files.push_back(join_path(path, name));
  }
  if (files.size() == before) {
    return not_found(path + ": holds no " + log_files_of(format));
  }
  // Both forms of MovieLens-1M hold the same ratings: read one.
  if (format == Format::kMl1m) files.resize(before + 1);
  return {};
}

// `rated`, `staying`: a second label is made of ratings, of stays.
Schema schema_of(Format format, bool is_ratings, bool rated, bool staying) {
  const auto i = ColumnType::kInt;
  Schema schema;
  if (format == Format::kGlobo) {
    schema.columns = {{"ts_ms", ColumnRole::kTime, i},     {"user", ColumnRole::kUser, i},
                      {"item", ColumnRole::kItem, i},      {"category", ColumnRole::kCategory, i},
                      {"env", ColumnRole::kContext, i},    {"device", ColumnRole::kContext, i},
                      {"os", ColumnRole::kContext, i},     {"country", ColumnRole::kContext, i},
                      {"region", ColumnRole::kContext, i}, {"referrer", ColumnRole::kContext, i}};
    if (staying) schema.columns.push_back({"session", ColumnRole::kSession, i});
  } else if (format == Format::kMl100k) {
    schema.delimiter = std::string("\t");
    schema.time_unit = TimeUnit::kSeconds;
    schema.columns = {{"user_id:token", ColumnRole::kUser, i},
                      {"item_id:token", ColumnRole::kItem, i},
                      {"timestamp:float", ColumnRole::kTime, ColumnType::kFloat}};
    if (rated) {
      schema.columns.push_back({"rating:float", ColumnRole::kLabel, ColumnType::kFloat});
    }
  } else if (format == Format::kMl1m && is_ratings) {
    schema.delimiter = std::string("::");
    schema.header = false;
    schema.time_unit = TimeUnit::kSeconds;
    schema.columns = {{"user", ColumnRole::kUser, i},
                      {"item", ColumnRole::kItem, i},
                      {"rating", rated ? ColumnRole::kLabel : ColumnRole::kIgnore, i},
                      {"time", ColumnRole::kTime, i}};
  }
  return schema;
}

RecordShape shape_of(const Schema& schema) {
  RecordShape shape;
  for (const ColumnSpec& column : schema.columns) {
    shape.has_category |= column.role == ColumnRole::kCategory;
    shape.has_time |= column.role == ColumnRole::kTime;
    shape.has_session |= column.role == ColumnRole::kSession;
    if (column.role == ColumnRole::kLabel) shape.label = column.name;
    if (column.role == ColumnRole::kNumeric) shape.numeric.push_back(column.name);
    if (column.role == ColumnRole::kContext) shape.context.push_back(column.name);
  }
  return shape;
}

}  // namespace

Result<Source> Source::open(Storage& storage, const PrepareOptions& options) {
  Source source(storage, options.format);
  RETURN_IF_ERROR(source.find_files(options));
  const bool is_ratings = stem(source.files_.front()) == "ratings.dat";
  source.schema_ =
      schema_of(options.format, is_ratings, options.label_min.has_value(), options.stay_s > 0);
  if (options.format == Format::kCsv || options.format == Format::kTsv ||
      options.format == Format::kJsonl) {
    RETURN_IF_ERROR(check_schema(options.schema));
    source.schema_ = options.schema;
  }
  if (source.schema_.delimiter.empty()) {
    source.schema_.delimiter.push_back(options.format == Format::kTsv ? '\t' : ',');
  }
  source.shape_ = shape_of(source.schema_);
  RETURN_IF_ERROR(source.find_names(options));
  source.shape_.has_category |= source.names_.has_value();
  return source;
}

Status Source::find_files(const PrepareOptions& options) {
  if (options.in.empty()) return invalid("no input; name files or a directory");
  for (const std::string& path : options.in) {
    RETURN_IF_ERROR(add_files(*storage_, format_, path, files_));
  }
  if (files_.empty()) return invalid("no input; name a log, not only its items");
  const std::size_t before = files_.size();
  for (const std::string& path : options.test_in) {
    RETURN_IF_ERROR(add_files(*storage_, format_, path, files_));
  }
  test_files_ = files_.size() - before;
  return {};
}

Status Source::find_names(const PrepareOptions& options) {
  if (!options.attributes.empty()) {
    ASSIGN_OR_RETURN(names_, read_attributes(*storage_, options.attributes));
    return {};
  }
  if (format_ != Format::kMl1m && format_ != Format::kMl100k) return {};
  std::string found;
  for (const std::string& path : options.in) {
    if (is_item_file(format_, path)) found = path;
  }
  const std::string beside = directory_of(files_.front());
  if (found.empty()) {
    ASSIGN_OR_RETURN(const auto names, storage_->list(beside));
    for (const std::string& name : names) {
      if (is_item_file(format_, name)) found = join_path(beside, name);
    }
  }
  if (found.empty()) return {};
  if (format_ == Format::kMl1m) {
    ASSIGN_OR_RETURN(names_, read_movies_dat(*storage_, found));
  } else {
    ASSIGN_OR_RETURN(names_, read_recbole_items(*storage_, found));
  }
  return {};
}

Status Source::read(Intake& intake) {
  for (std::size_t i = 0; i < files_.size(); ++i) {
    RETURN_IF_ERROR(read_file(files_[i], i + test_files_ >= files_.size(), intake));
  }
  return {};
}

// x_edges.txt of x_nodes.txt.
Status Source::read_links_beside(const std::string& path) {
  constexpr std::string_view kNodes = "_nodes.txt", kLinks = "_edges.txt";
  const std::size_t at = path.rfind(kNodes);
  if (at == std::string::npos) return invalid(path + ": a file of nodes is called *_nodes.txt");
  std::string links = path;
  links.replace(at, kNodes.size(), kLinks);
  ASSIGN_OR_RETURN(LineReader reader, LineReader::open(*storage_, links));
  RETURN_IF_ERROR(read_links(reader, nodes_));
  bytes_read_ += reader.bytes();
  return {};
}

Status Source::read_file(const std::string& path, bool is_test, Intake& intake) {
  ASSIGN_OR_RETURN(LineReader reader, LineReader::open(*storage_, path));
  const ItemNames* names = names_ ? &*names_ : nullptr;
  const RecordKind kind = is_test ? RecordKind::kTestTarget : RecordKind::kOpen;
  const auto read = [&]() -> Status {
    if (format_ == Format::kCora) {
      RETURN_IF_ERROR(read_nodes(reader, intake, nodes_));
      return read_links_beside(path);
    }
    if (format_ == Format::kPairs) return read_pairs(reader, names, kind, intake);
    if (format_ == Format::kSessions) {
      return read_sessions(reader, names, is_test, sessions_, intake);
    }
    if (format_ == Format::kJsonl) return read_jsonl(reader, schema_, names, kind, intake);
    if (schema_.columns.empty()) return read_sequences(reader, names, kind, intake);
    const bool quotes = format_ == Format::kCsv && schema_.delimiter.size() == 1;
    return read_delimited(reader, schema_, quotes, names, kind, intake);
  };
  RETURN_IF_ERROR(read());
  bytes_read_ += reader.bytes();
  return {};
}

}  // namespace meander::data
