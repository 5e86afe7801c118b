// SPDX-License-Identifier: Apache-2.0
#include "export/write.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "export/onnx_model.h"
#include "export/safetensors.h"

namespace meander::artefact {
namespace {

constexpr const char* kDescriptionFile = "export.json";

// Appends small pieces to a file in large ones.
class TextFile {
 public:
  static Result<TextFile> create(Storage& storage, const std::string& path) {
    TextFile file;
    ASSIGN_OR_RETURN(file.file_, storage.create(path));
    return file;
  }
  Status add(const std::string& text) {
    pending_ += text;
    bytes_ += text.size();
    return pending_.size() < kPieceBytes ? Status() : flush();
  }
  Status close() {
    RETURN_IF_ERROR(flush());
    return file_->close();
  }
  std::uint64_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kPieceBytes = 1 << 20;
  TextFile() = default;
  Status flush() {
    RETURN_IF_ERROR(file_->append(pending_.data(), pending_.size()));
    pending_.clear();
    return {};
  }
  std::unique_ptr<WritableFile> file_;
  std::string pending_;
  std::uint64_t bytes_ = 0;
};

// Tabs and line ends would break the columns.
std::string one_field(std::string text) {
  std::ranges::replace_if(text, [](unsigned char c) { return c < ' '; }, ' ');
  return text;
}

// A name that is a directory's everywhere.
std::string directory_name(const std::string& job) {
  std::string name = job.empty() ? "model" : job;
  const auto odd = [](unsigned char c) { return !std::isalnum(c) && c != '-' && c != '_'; };
  std::ranges::replace_if(name, odd, '_');
  return name;
}

// "out/" would make its temporary sibling a child.
std::string without_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

class Exporter {
 public:
  Exporter(Storage& storage, const Contents& contents, Layout layout, std::string dir)
      : storage_(storage),
        contents_(contents),
        description_(contents.description),
        dir_(std::move(dir)) {
    if (layout == Layout::kTriton) repository_ = directory_name(description_.job);
    model_dir_ = repository_.empty() ? "" : repository_ + "/1";
  }

  Result<Written> run() {
    RETURN_IF_ERROR(storage_.make_directories(join_path(dir_, join_path(model_dir_, "rows"))));
    for (const TableRows& table : contents_.tables) RETURN_IF_ERROR(write_table(table));
    RETURN_IF_ERROR(write_dense());
    RETURN_IF_ERROR(write_model());
    RETURN_IF_ERROR(write_items());
    RETURN_IF_ERROR(write_histories());
    RETURN_IF_ERROR(write_checks());
    if (!repository_.empty()) {
      RETURN_IF_ERROR(write_text(repository_ + "/config.pbtxt", triton_config()));
    }
    RETURN_IF_ERROR(write_text(kDescriptionFile, encode_description(description_)));
    return written_;
  }

 private:
  Status write_table(const TableRows& table);
  Status write_dense();
  Status write_model();
  Status write_items();
  Status write_histories();
  Status write_checks();
  Status write_text(const std::string& name, const std::string& text);
  std::string triton_config() const;
  void count(std::uint64_t bytes) {
    ++written_.files;
    written_.bytes += bytes;
  }

  Storage& storage_;
  const Contents& contents_;
  Description description_;
  std::string dir_, repository_, model_dir_;
  std::vector<OnnxTable> onnx_tables_;
  OnnxModel model_;
  Written written_;
};

Status Exporter::write_table(const TableRows& table) {
  const auto keys = static_cast<std::int64_t>(table.keys.size()), width = std::int64_t{table.width};
  // The row of an unknown key lies right behind the others, so the graph has all in one tensor. A
  // second one where needed brings the keys to a multiple of 8 bytes.
  const std::int64_t zero_rows = (keys + 1) * width % 2 == 0 ? 1 : 2;
  const std::string file = "rows/" + table.name + ".safetensors";
  ASSIGN_OR_RETURN(auto writer,
                   SafetensorsWriter::create(storage_, join_path(dir_, join_path(model_dir_, file)),
                                             {{"rows", "F32", {keys, width}},
                                              {"unknown", "F32", {zero_rows, width}},
                                              {"keys", "I64", {keys}}}));
  RETURN_IF_ERROR(writer.append(std::span<const float>(table.rows)));
  const std::vector<float> zeros(static_cast<std::size_t>(zero_rows * width));
  RETURN_IF_ERROR(writer.append(std::span<const float>(zeros)));
  RETURN_IF_ERROR(writer.append(std::span<const std::int64_t>(table.keys)));
  RETURN_IF_ERROR(writer.close());
  count(writer.file_bytes());
  written_.rows += table.keys.size();
  onnx_tables_.push_back({table.name, table.keys, file, writer.offset("rows")});
  description_.tables.push_back(
      {table.name, table.width, table.keys.size(), table.stored, join_path(model_dir_, file)});
  return {};
}

Status Exporter::write_dense() {
  std::vector<ArraySpec> arrays;
  std::vector<std::span<const float>> values;
  for (const nn::ParamSpec& p : contents_.graph->params()) {
    arrays.push_back({p.name, "F32", {p.rows, p.cols}});
    values.push_back(std::span(contents_.dense).subspan(p.offset, arrays.back().count()));
  }
  ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::create(
                                    storage_, join_path(dir_, "dense.safetensors"), arrays));
  for (const auto& v : values) RETURN_IF_ERROR(writer.append(v));
  RETURN_IF_ERROR(writer.close());
  count(writer.file_bytes());
  return {};
}

Status Exporter::write_model() {
  OnnxOptions options;
  options.tables = onnx_tables_;
  options.dense = contents_.dense;
  options.metadata = {
      {"job", description_.job},         {"generation", std::to_string(description_.generation)},
      {"digest", description_.digest},   {"model", description_.model.kind},
      {"dice", description_.model.dice}, {"history", std::to_string(description_.history)}};
  ASSIGN_OR_RETURN(model_, onnx_model(*contents_.graph, options));
  description_.model_file = join_path(model_dir_, "model.onnx");
  return write_text(description_.model_file, std::exchange(model_.bytes, {}));
}

Status Exporter::write_items() {
  ASSIGN_OR_RETURN(auto file, TextFile::create(storage_, join_path(dir_, "items.tsv")));
  RETURN_IF_ERROR(file.add("item\tcategory\tlast_ms\tcount\tcategory_name\ttitle\n"));
  for (const Item& i : contents_.items) {
    RETURN_IF_ERROR(file.add(std::to_string(i.id) + '\t' + std::to_string(i.category) + '\t' +
                             std::to_string(i.last_ms) + '\t' + std::to_string(i.count) + '\t' +
                             one_field(i.category_name) + '\t' + one_field(i.title) + '\n'));
  }
  RETURN_IF_ERROR(file.close());
  count(file.bytes());
  description_.items = contents_.items.size();
  return {};
}

// Columns: user, first (users + 1), and of every behaviour item, category, time_ms.
Status Exporter::write_histories() {
  const auto& histories = contents_.histories;
  std::vector<std::int64_t> users, first = {0};
  for (const UserHistory& h : histories) {
    users.push_back(static_cast<std::int64_t>(h.user));
    first.push_back(first.back() + static_cast<std::int64_t>(h.item.size()));
  }
  const std::int64_t behaviours = first.back(), n = static_cast<std::int64_t>(users.size());
  const std::string path = join_path(dir_, "histories.safetensors");
  ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::create(storage_, path,
                                                          {{"user", "I64", {n}},
                                                           {"first", "I64", {n + 1}},
                                                           {"item", "I64", {behaviours}},
                                                           {"category", "I64", {behaviours}},
                                                           {"time_ms", "I64", {behaviours}}}));
  RETURN_IF_ERROR(writer.append(std::span<const std::int64_t>(users)));
  RETURN_IF_ERROR(writer.append(std::span<const std::int64_t>(first)));
  const auto column = [&](const auto& of) -> Status {
    std::vector<std::byte> zeros;
    for (const UserHistory& h : histories) {
      const auto values = of(h);
      if (!values.empty()) {
        CHECK_EQ(values.size(), h.item.size());
        RETURN_IF_ERROR(writer.append(values.data(), values.size_bytes()));
      } else if (!h.item.empty()) {
        zeros.resize(h.item.size() * sizeof(std::int64_t));
        RETURN_IF_ERROR(writer.append(zeros.data(), zeros.size()));
      }
    }
    return {};
  };
  RETURN_IF_ERROR(column([](const UserHistory& h) { return h.item; }));
  RETURN_IF_ERROR(column([](const UserHistory& h) { return h.category; }));
  RETURN_IF_ERROR(column([](const UserHistory& h) { return h.time_ms; }));
  RETURN_IF_ERROR(writer.close());
  count(writer.file_bytes());
  description_.users = users.size();
  description_.behaviours = static_cast<std::uint64_t>(behaviours);
  return {};
}

Status Exporter::write_checks() {
  if (contents_.samples == nullptr) return {};
  const std::string path = join_path(dir_, "samples.safetensors");
  ASSIGN_OR_RETURN(const std::uint64_t bytes,
                   write_samples(storage_, path, description_.model, *contents_.samples));
  count(bytes);
  return {};
}

Status Exporter::write_text(const std::string& name, const std::string& text) {
  ASSIGN_OR_RETURN(auto file, storage_.create(join_path(dir_, name)));
  RETURN_IF_ERROR(file->append(text.data(), text.size()));
  RETURN_IF_ERROR(file->close());
  count(text.size());
  return {};
}

std::string triton_ports(const char* what, const std::vector<OnnxPort>& ports) {
  std::string text;
  for (const OnnxPort& port : ports) {
    std::string dims;
    for (std::int64_t d : port.dimensions) dims += (dims.empty() ? "" : ", ") + std::to_string(d);
    text += std::string(what) + " [ { name: \"" + port.name + "\" data_type: TYPE_" + port.type +
            " dims: [ " + dims + " ] } ]\n";
  }
  return text;
}

// The first dimension is ours and not Triton's to batch: the histories of one request must be
// padded to one length.
std::string Exporter::triton_config() const {
  return "name: \"" + repository_ +
         "\"\n"
         "backend: \"onnxruntime\"\n"
         "max_batch_size: 0\n" +
         triton_ports("input", model_.inputs) + triton_ports("output", model_.outputs) +
         "instance_group [ { kind: KIND_CPU } ]\n";
}

}  // namespace

Status check_target(Storage& storage, const std::string& path) {
  const std::string out = without_slash(path);
  if (!storage.exists(out) || storage.exists(join_path(out, kDescriptionFile))) return {};
  if (auto names = storage.list(out); names.ok() && names.value().empty()) return {};
  return invalid(out + ": is there and is no export; name another directory or remove it");
}

Result<Written> write_export(Storage& storage, const Contents& contents, Layout layout,
                             const std::string& path, const CheckExport& check) {
  CHECK_EQ(contents.tables.size(), static_cast<std::size_t>(contents.graph->tables()));
  RETURN_IF_ERROR(check_target(storage, path));
  const std::string out = without_slash(path), making = out + ".tmp", old = out + ".old";
  RETURN_IF_ERROR(storage.remove(making));
  Result<Written> written = Exporter(storage, contents, layout, making).run();
  if (written.ok() && check) {
    if (Status status = check(making); !status.ok()) written = std::move(status);
  }
  if (!written.ok()) {
    if (Status s = storage.remove(making); !s.ok()) LOG(WARNING) << s.message();
    return std::move(written).status().context("export to " + out);
  }
  // A directory cannot replace another that holds files: the older export steps aside first.
  if (storage.exists(out)) {
    RETURN_IF_ERROR(storage.remove(old));
    RETURN_IF_ERROR(storage.rename(out, old));
  }
  RETURN_IF_ERROR(storage.rename(making, out));
  RETURN_IF_ERROR(storage.remove(old));
  return written;
}

}  // namespace meander::artefact
