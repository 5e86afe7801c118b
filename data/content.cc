// SPDX-License-Identifier: Apache-2.0
#include "data/content.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string_view>

#include "common/check.h"
#include "common/rng.h"
#include "data/fields.h"
#include "data/npy.h"

namespace meander::data {
namespace {

constexpr std::uint64_t kItemsMax = std::numeric_limits<std::int32_t>::max() - 1;
constexpr std::uint64_t kWidthMax = 4096;

std::string shape_of(const NpyArray& array) {
  std::string text = array.type + " (";
  for (std::size_t i = 0; i < array.shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(array.shape[i]);
  }
  return text + ")";
}

template <class T>
std::vector<float> to_floats(const Buffer& bytes) {
  std::vector<float> values(bytes.size() / sizeof(T));
  for (std::size_t i = 0; i < values.size(); ++i) {
    T value;  // NumPy promises no alignment
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    values[i] = static_cast<float>(value);
  }
  return values;
}

// One id a line; the last line may lack its end.
Status read_lines(const Buffer& bytes, const std::string& path, std::vector<std::int64_t>& ids) {
  std::string_view rest(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (std::uint64_t line = 1; !rest.empty(); ++line) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view text = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (text.ends_with('\r')) text.remove_suffix(1);
    std::uint64_t id = 0;
    if (!parse_key(text, id)) {
      return invalid(path + ":" + std::to_string(line) + ": '" + std::string(text.substr(0, 40)) +
                     "' is not the id of an item; one a line is expected, or int64 of numpy.save");
    }
    ids.push_back(static_cast<std::int64_t>(id));
  }
  return {};
}

Result<std::vector<std::int64_t>> read_ids(Storage& storage, const std::string& path) {
  std::vector<std::int64_t> ids;
  ASSIGN_OR_RETURN(const Buffer bytes, storage.read(path));
  if (!is_npy(bytes)) {
    RETURN_IF_ERROR(read_lines(bytes, path, ids));
    return ids;
  }
  ASSIGN_OR_RETURN(const NpyArray array, read_npy(storage, path));
  if (array.type != "<i8" || array.shape.size() != 1) {
    return invalid(path + ": has " + shape_of(array) +
                   ", ids of items are int64 (n): save ids.astype('int64')");
  }
  ids.resize(array.shape[0]);
  if (!ids.empty()) std::memcpy(ids.data(), array.values.data(), array.values.size());
  return ids;
}

}  // namespace

Result<std::shared_ptr<const Content>> Content::load(Storage& storage, const std::string& vectors,
                                                     const std::string& items) {
  ASSIGN_OR_RETURN(const NpyArray array, read_npy(storage, vectors));
  if ((array.type != "<f4" && array.type != "<f2") || array.shape.size() != 2) {
    return invalid(vectors + ": has " + shape_of(array) +
                   ", vectors of items are float32 or float16 (n, width): save "
                   "x.astype('float32')");
  }
  const std::uint64_t width = array.shape[1];
  if (width < 1 || width > kWidthMax || array.shape[0] > kItemsMax) {
    return invalid(vectors + ": has " + shape_of(array) + ", a vector has 1 to " +
                   std::to_string(kWidthMax) + " values");
  }
  ASSIGN_OR_RETURN(const std::vector<std::int64_t> ids, read_ids(storage, items));
  if (ids.size() != array.shape[0]) {
    return invalid(items + ": has " + std::to_string(ids.size()) + " ids, " + vectors + " has " +
                   std::to_string(array.shape[0]) + " vectors: they are by pairs");
  }
  const std::vector<float> rows =
      array.type == "<f4" ? to_floats<float>(array.values) : to_floats<_Float16>(array.values);
  const auto odd = std::ranges::find_if_not(rows, [](float x) { return std::isfinite(x); });
  if (odd != rows.end()) {
    const std::size_t at = odd - rows.begin();
    return invalid(vectors + ": value " + std::to_string(at % width) + " of row " +
                   std::to_string(at / width) + " is not finite");
  }
  auto content = create(ids, rows, static_cast<std::uint32_t>(width));
  if (!content.ok()) return std::move(content).status().context(items);
  return content;
}

Result<std::shared_ptr<const Content>> Content::create(std::span<const std::int64_t> ids,
                                                       std::span<const float> rows,
                                                       std::uint32_t width) {
  CHECK_EQ(rows.size(), ids.size() * width);
  std::vector<std::uint32_t> order(ids.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, {}, [&](std::uint32_t i) { return ids[i]; });
  std::shared_ptr<Content> content(new Content);
  content->width_ = width;
  content->rows_.assign((ids.size() + 1) * width, 0.0f);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::int64_t id = ids[order[i]];
    if (i > 0 && content->ids_.back() == id) {
      return invalid("item " + std::to_string(id) + " is there twice");
    }
    content->ids_.push_back(id);
    std::copy_n(&rows[std::size_t{order[i]} * width], width, &content->rows_[i * width]);
  }
  content->index_ids();
  return std::shared_ptr<const Content>(std::move(content));
}

void Content::index_ids() {
  index_.assign(std::bit_ceil(2 * ids_.size() + 2), 0);
  for (std::size_t row = 0; row < ids_.size(); ++row) {
    std::size_t at = mix64(static_cast<std::uint64_t>(ids_[row])) & (index_.size() - 1);
    while (index_[at] != 0) at = (at + 1) & (index_.size() - 1);
    index_[at] = static_cast<std::uint32_t>(row + 1);
  }
  while (has(static_cast<std::uint64_t>(unknown_))) ++unknown_;
}

std::uint32_t Content::row_of(std::uint64_t item) const {
  for (std::size_t at = mix64(item) & (index_.size() - 1);; at = (at + 1) & (index_.size() - 1)) {
    if (index_[at] == 0) return static_cast<std::uint32_t>(ids_.size());
    if (ids_[index_[at] - 1] == static_cast<std::int64_t>(item)) return index_[at] - 1;
  }
}

std::int64_t Content::id_of(std::uint32_t row) const {
  return row < ids_.size() ? ids_[row] : unknown_;
}

}  // namespace meander::data
