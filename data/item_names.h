// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>

#include "common/status.h"
#include "common/storage.h"

namespace meander::data {

// What a source says about its items beside the log: categories, titles. Memory is O(items).
struct ItemNames {
  struct Item {
    std::uint64_t category = 0;
    std::string title;
  };
  std::unordered_map<std::uint64_t, Item> items;
  std::map<std::uint64_t, std::string> categories;  // names, where they are words

  // Of an item that the source does not describe: unknown_category().
  std::uint64_t category_of(std::uint64_t item) const;
};

// The category of an item that has none: hash_id("").
std::uint64_t unknown_category();

// MovieLens' movies.dat: id::title::genre|genre, latin-1 or UTF-8. Category: the first genre,
// numbered from 0 in the order of the genres' names.
Result<ItemNames> read_movies_dat(Storage& storage, const std::string& path);
// RecBole's *.item with columns item_id, movie_title and class: the category is the first word of
// `class`, numbered in the same way.
Result<ItemNames> read_recbole_items(Storage& storage, const std::string& path);
// JSON {"item": [attribute, ...]}: the category is the first attribute (words are hashed).
Result<ItemNames> read_attributes(Storage& storage, const std::string& path);

}  // namespace meander::data
