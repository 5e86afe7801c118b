// SPDX-License-Identifier: Apache-2.0
#include "serve/artefact.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <string_view>

namespace meander::serve {
namespace {

using artefact::Description;
using artefact::Item;
using artefact::Safetensors;

Result<std::string> read_text(Storage& storage, const std::string& path) {
  ASSIGN_OR_RETURN(const Buffer bytes, storage.read(path));
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::span<const std::uint64_t> as_ids(std::span<const std::int64_t> values) {
  return {reinterpret_cast<const std::uint64_t*>(values.data()), values.size()};
}

bool rises(std::span<const std::int64_t> keys) {
  return std::ranges::adjacent_find(keys, std::ranges::greater_equal()) == keys.end();
}

template <class T>
bool parse(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

// One line of items.tsv; false: not one.
bool parse_item(std::string_view line, Item& item) {
  constexpr std::size_t kFields = 6;
  std::array<std::string_view, kFields> fields;
  for (std::size_t f = 0; f < kFields; ++f) {
    const std::size_t tab = line.find('\t');
    if ((tab == line.npos) != (f == kFields - 1)) return false;
    fields[f] = line.substr(0, tab);
    if (tab != line.npos) line.remove_prefix(tab + 1);
  }
  item.category_name = fields[4];
  item.title = fields[5];
  return parse(fields[0], item.id) && parse(fields[1], item.category) &&
         parse(fields[2], item.last_ms) && parse(fields[3], item.count);
}

}  // namespace

std::uint32_t Artefact::Table::row_of(std::int64_t key) const {
  const auto at = std::ranges::lower_bound(keys, key);
  return static_cast<std::uint32_t>(at != keys.end() && *at == key ? at - keys.begin()
                                                                   : keys.size());
}

Result<std::shared_ptr<const Artefact>> Artefact::load(Storage& storage, const std::string& dir) {
  const std::string path = join_path(dir, "export.json");
  if (!storage.exists(path)) {
    return not_found(dir +
                     ": no export there (it has no export.json); write one with: meander "
                     "export JOB --checkpoint DIR --out " +
                     dir);
  }
  std::shared_ptr<Artefact> artefact(new Artefact);
  ASSIGN_OR_RETURN(const std::string text, read_text(storage, path));
  ASSIGN_OR_RETURN(artefact->description_, artefact::decode_description(text, path));
  auto graph = models::build_model(artefact->description_.model);
  if (!graph.ok()) return std::move(graph).status().context(path);
  artefact->graph_ = std::make_unique<const nn::Graph>(std::move(graph).value());
  RETURN_IF_ERROR(artefact->load_tables(storage, dir));
  RETURN_IF_ERROR(artefact->load_dense(storage, dir));
  RETURN_IF_ERROR(artefact->load_items(storage, dir));
  RETURN_IF_ERROR(artefact->load_histories(storage, dir));
  return std::shared_ptr<const Artefact>(std::move(artefact));
}

Status Artefact::load_tables(Storage& storage, const std::string& dir) {
  if (description_.tables.size() != static_cast<std::size_t>(graph_->tables())) {
    return corrupt(join_path(dir, "export.json") + ": its tables are not the model's");
  }
  for (std::size_t t = 0; t < description_.tables.size(); ++t) {
    const std::string path = join_path(dir, description_.tables[t].file);
    ASSIGN_OR_RETURN(Safetensors file, Safetensors::open(storage, path));
    ASSIGN_OR_RETURN(const auto keys, file.ints("keys", 1));
    ASSIGN_OR_RETURN(const auto rows, file.floats("rows", 2));
    ASSIGN_OR_RETURN(const auto unknown, file.floats("unknown", 2));
    const auto width = static_cast<std::size_t>(graph_->table_width(static_cast<int>(t)));
    if (rows.size() != keys.size() * width || unknown.size() < width ||
        unknown.data() != rows.data() + rows.size()) {
      return corrupt(path + ": keys and rows do not go together, or the model's width is another");
    }
    if (keys.size() >= std::numeric_limits<std::int32_t>::max()) {
      return corrupt(path + ": more rows than this program can number");
    }
    if (!rises(keys)) return corrupt(path + ": keys are not in order");
    const nn::ConstMatrix matrix{rows.data(), static_cast<std::int32_t>(keys.size()) + 1,
                                 static_cast<std::int32_t>(width),
                                 static_cast<std::int32_t>(width)};
    tables_.push_back({keys, matrix});
    table_rows_.push_back(matrix);
    files_.push_back(std::move(file));
  }
  return {};
}

Status Artefact::load_dense(Storage& storage, const std::string& dir) {
  const std::string path = join_path(dir, "dense.safetensors");
  ASSIGN_OR_RETURN(const Safetensors file, Safetensors::open(storage, path));
  dense_.resize(graph_->dense_size());
  for (const nn::ParamSpec& p : graph_->params()) {
    ASSIGN_OR_RETURN(const auto values, file.floats(p.name, 2));
    const artefact::ArraySpec& array = *file.find(p.name);
    if (array.shape[0] != p.rows || array.shape[1] != p.cols) {
      return corrupt(path + ": parameter " + p.name + " is not of the model's shape");
    }
    std::ranges::copy(values, dense_.begin() + static_cast<std::ptrdiff_t>(p.offset));
  }
  return {};
}

Status Artefact::load_items(Storage& storage, const std::string& dir) {
  const std::string path = join_path(dir, "items.tsv");
  ASSIGN_OR_RETURN(const std::string text, read_text(storage, path));
  if (!text.ends_with('\n')) return corrupt(path + ": ends in the middle of a line (truncated?)");
  std::string_view rest = text;
  std::uint64_t number = 0;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (++number == 1) continue;  // the names of the columns
    Item item;
    if (!parse_item(line, item)) {
      return corrupt(path + ":" + std::to_string(number) + ": not a line of an item");
    }
    items_.push_back(std::move(item));
  }
  if (items_.size() != description_.items) return corrupt(path + ": items are missing");
  if (!std::ranges::is_sorted(items_, {}, &Item::id)) return corrupt(path + ": not sorted by item");
  return {};
}

Status Artefact::load_histories(Storage& storage, const std::string& dir) {
  const std::string path = join_path(dir, "histories.safetensors");
  ASSIGN_OR_RETURN(Safetensors file, Safetensors::open(storage, path));
  ASSIGN_OR_RETURN(users_, file.ints("user", 1));
  ASSIGN_OR_RETURN(first_, file.ints("first", 1));
  ASSIGN_OR_RETURN(item_, file.ints("item", 1));
  ASSIGN_OR_RETURN(category_, file.ints("category", 1));
  ASSIGN_OR_RETURN(time_ms_, file.ints("time_ms", 1));
  const bool fit = first_.size() == users_.size() + 1 && first_.front() == 0 &&
                   first_.back() == static_cast<std::int64_t>(item_.size()) &&
                   std::ranges::is_sorted(first_) && category_.size() == item_.size() &&
                   time_ms_.size() == item_.size() && rises(users_);
  if (!fit) return corrupt(path + ": columns do not go together");
  files_.push_back(std::move(file));
  return {};
}

const Item* Artefact::find_item(std::uint64_t id) const {
  const auto at = std::ranges::lower_bound(items_, id, {}, &Item::id);
  return at != items_.end() && at->id == id ? &*at : nullptr;
}

std::optional<artefact::UserHistory> Artefact::history(std::uint64_t user) const {
  const auto wanted = static_cast<std::int64_t>(user);
  const auto at = std::ranges::lower_bound(users_, wanted);
  if (at == users_.end() || *at != wanted) return std::nullopt;
  const std::size_t u = at - users_.begin();
  const std::size_t begin = first_[u], count = first_[u + 1] - first_[u];
  return artefact::UserHistory{user, as_ids(item_.subspan(begin, count)),
                               as_ids(category_.subspan(begin, count)),
                               time_ms_.subspan(begin, count)};
}

}  // namespace meander::serve
