// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/status.h"
#include "common/storage.h"

namespace meander::data {

// A vector for each of many items: of its title, its picture, anything. Nothing trains them, so an
// item that nobody has seen has one as good as any. Immutable: any number of threads may read it.
class Content {
 public:
  // `vectors`: a NumPy file of float32 or float16, (n, width). `items`: the items' ids in the same
  // order, a NumPy file of int64 (n) or a text of one id a line. kNotFound, kCorrupt; kInvalid: of
  // other shapes or types, an id that is there twice, a value that is not finite.
  static Result<std::shared_ptr<const Content>> load(Storage& storage, const std::string& vectors,
                                                     const std::string& items);
  // rows: (ids, width).
  static Result<std::shared_ptr<const Content>> create(std::span<const std::int64_t> ids,
                                                       std::span<const float> rows,
                                                       std::uint32_t width);

  std::uint32_t width() const { return width_; }
  // Items with a vector, rising; their 64 bits taken as signed, as exports have them.
  std::span<const std::int64_t> ids() const { return ids_; }
  // (ids + 1, width): row i is of ids()[i], and the last, of all other items, is zeros.
  std::span<const float> rows() const { return rows_; }
  std::uint32_t rows_count() const { return static_cast<std::uint32_t>(ids_.size()) + 1; }

  // The row of an item.
  std::uint32_t row_of(std::uint64_t item) const;
  bool has(std::uint64_t item) const { return row_of(item) < ids_.size(); }
  // The item of a row; of the last row one without a vector.
  std::int64_t id_of(std::uint32_t row) const;

 private:
  Content() = default;
  void index_ids();

  std::uint32_t width_ = 0;
  std::vector<std::int64_t> ids_;
  std::vector<float> rows_;
  std::vector<std::uint32_t> index_;  // open addressing by id: row + 1, 0 where free
  std::int64_t unknown_ = 0;          // an id that has no vector
};

}  // namespace meander::data
