// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/generation.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <optional>
#include <set>

#include "common/crc32c.h"
#include "common/planted_bug.h"

namespace meander::checkpoint {
namespace {

constexpr char kManifestName[] = "MANIFEST";
constexpr std::uint32_t kManifestFormat = 2;
constexpr std::uint32_t kOldestManifestFormat = 1;  // knows of no deltas and no expiry
constexpr std::string_view kPrefix = "gen-";

// The last line: it must match to the byte, so no bit of the file can change unnoticed.
std::string crc_line(std::string_view json) {
  char line[32];
  std::snprintf(line, sizeof(line), "crc32c %08x\n", crc32c(json.data(), json.size()));
  return line;
}

// The number in "gen-000012"; nothing for other names.
std::optional<std::uint64_t> generation_of(const std::string& name) {
  if (name.size() <= kPrefix.size() || name.compare(0, kPrefix.size(), kPrefix) != 0) return {};
  std::uint64_t number = 0;
  for (const char c : name.substr(kPrefix.size())) {
    if (c < '0' || c > '9' || number > (std::uint64_t{1} << 58)) return {};
    number = number * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return number;
}

struct Found {
  std::uint64_t number;
  std::string dir;
  bool complete;
};

// What is named like a generation, oldest first.
Result<std::vector<Found>> find_generations(Storage& storage, const std::string& dir) {
  ASSIGN_OR_RETURN(const auto names, storage.list(dir));
  std::vector<Found> found;
  for (const std::string& name : names) {
    const auto number = generation_of(name);
    if (!number) continue;
    const std::string path = join_path(dir, name);
    // Whether it may be removed hangs on this: not knowing is not a no.
    ASSIGN_OR_RETURN(const bool is_complete, storage.has(join_path(path, kManifestName)));
    found.push_back({*number, path, is_complete});
  }
  std::sort(found.begin(), found.end(),
            [](const Found& a, const Found& b) { return a.number < b.number; });
  return found;
}

}  // namespace

std::uint32_t state_width(wire::Optimizer::Kind kind, std::uint32_t width) {
  switch (kind) {
    case wire::Optimizer::ADAGRAD:
    case wire::Optimizer::MOMENTUM:
    case wire::Optimizer::RMSPROP:
      return width;
    case wire::Optimizer::ROWWISE_ADAGRAD:
      return 1;
    case wire::Optimizer::ADAM:
    case wire::Optimizer::ADAMW:
    case wire::Optimizer::FTRL:
      return 2 * width;
    default:
      return 0;
  }
}

std::string optimizer_name(wire::Optimizer::Kind kind) {
  std::string name = wire::Optimizer::Kind_Name(kind);
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
  return name;
}

bool is_state_of(wire::Optimizer::Kind kind, const std::string& name) {
  const auto adam = [](const std::string& word) { return word == "adamw" ? "adam" : word; };
  return adam(name) == adam(optimizer_name(kind));
}

std::string generation_name(std::uint64_t generation) {
  char name[32];
  std::snprintf(name, sizeof(name), "gen-%06llu", static_cast<unsigned long long>(generation));
  return name;
}

Status write_manifest(Storage& storage, const std::string& dir,
                      const manifest::Manifest& manifest) {
  manifest::Manifest stamped = manifest;
  stamped.set_format(kManifestFormat);
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto printed = google::protobuf::util::MessageToJsonString(stamped, &text, options);
  CHECK(printed.ok()) << printed.ToString();
  if (text.empty() || text.back() != '\n') text += '\n';
  text += crc_line(text);
  // Of two runs that write the same generation, one commits it and the other one is told.
  return storage.write_exclusive(join_path(dir, kManifestName), text.data(), text.size());
}

Result<manifest::Manifest> read_manifest(Storage& storage, const std::string& dir) {
  const std::string path = join_path(dir, kManifestName);
  ASSIGN_OR_RETURN(const Buffer bytes, storage.read(path));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::size_t line_size = crc_line("").size();
  if (text.size() < line_size) return corrupt(path + ": torn: shorter than its last line");
  const std::string_view json = text.substr(0, text.size() - line_size);
  if (text.substr(json.size()) != crc_line(json)) {
    return corrupt(path + ": damaged: its last line is not the checksum of the others");
  }
  manifest::Manifest manifest;
  // Fields of a later format are passed over, so that it is the format that is complained of.
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  const auto parsed = google::protobuf::util::JsonStringToMessage(
      google::protobuf::StringPiece(json.data(), json.size()), &manifest, options);
  if (!parsed.ok()) return corrupt(path + ": " + parsed.ToString());
  if (manifest.format() < kOldestManifestFormat || manifest.format() > kManifestFormat) {
    return invalid(path + ": format " + std::to_string(manifest.format()) +
                   " is not known to this version");
  }
  return manifest;
}

Result<std::vector<std::string>> list_generations(Storage& storage, const std::string& dir) {
  ASSIGN_OR_RETURN(const auto found, find_generations(storage, dir));
  std::vector<std::string> complete;
  for (const Found& generation : found) {
    if (generation.complete) complete.push_back(generation.dir);
  }
  return complete;
}

Result<std::string> newest_generation(Storage& storage, const std::string& checkpoint_dir) {
  ASSIGN_OR_RETURN(const auto complete, list_generations(storage, checkpoint_dir));
  if (complete.empty()) return not_found(checkpoint_dir + ": holds no complete generation");
  return complete.back();
}

Result<std::uint64_t> highest_generation(Storage& storage, const std::string& checkpoint_dir) {
  const auto found = find_generations(storage, checkpoint_dir);
  if (found.ok()) return found.value().empty() ? 0 : found.value().back().number;
  if (found.status().code() == Code::kNotFound) return std::uint64_t{0};
  return found.status();
}

Result<std::string> resolve_generation(Storage& storage, const std::string& path) {
  ASSIGN_OR_RETURN(const bool is_generation, storage.has(join_path(path, kManifestName)));
  return is_generation ? path : newest_generation(storage, path);
}

Result<Retention> plan_prune(Storage& storage, const std::string& checkpoint_dir,
                             std::uint32_t keep, const std::string& pinned) {
  ASSIGN_OR_RETURN(const auto found, find_generations(storage, checkpoint_dir));
  std::set<std::uint64_t> needed;  // what those that stay stand on
  bool is_all_needed = false;      // by one whose manifest cannot tell
  Retention retention;
  std::uint32_t newer = 0;  // complete ones after this one
  for (auto it = found.rbegin(); it != found.rend(); ++it) {
    const bool is_needed =
        is_all_needed || needed.contains(it->number) || (it->complete && it->dir == pinned);
    const bool stays = is_needed || (it->complete ? newer < keep : newer == 0);
    newer += it->complete ? 1 : 0;
    if (!stays) {
      // From the newest on, so a delta goes before what it stands on.
      retention.removed.push_back(it->dir);
      continue;
    }
    if (!it->complete) continue;
    const auto manifest = read_manifest(storage, it->dir);
    if (manifest.ok()) {
      if (manifest->base() != 0 && !is_planted(PlantedBug::kPruneForgetsBase))
        needed.insert(manifest->base());
    } else if (manifest.status().code() == Code::kCorrupt ||
               manifest.status().code() == Code::kInvalid) {
      is_all_needed = true;
    } else {
      return manifest.status();
    }
    retention.kept.push_back(it->dir);
  }
  std::ranges::reverse(retention.kept);
  return retention;
}

// The manifest goes first, and for good, so that what is left of an interrupted removal is no
// generation.
Status remove_generation(Storage& storage, const std::string& dir) {
  RETURN_IF_ERROR(storage.remove(join_path(dir, kManifestName)));
  if (!is_planted(PlantedBug::kRemovalNotSynced)) {
    Status synced = storage.sync_directory(dir);
    if (!synced.ok() && synced.code() != Code::kNotFound) return synced;
  }
  return storage.remove(dir);
}

Status prune(Storage& storage, const std::string& checkpoint_dir, std::uint32_t keep,
             const std::string& pinned) {
  ASSIGN_OR_RETURN(const Retention retention, plan_prune(storage, checkpoint_dir, keep, pinned));
  for (const std::string& dir : retention.removed) {
    RETURN_IF_ERROR(remove_generation(storage, dir));
  }
  return {};
}

Status remove_unfinished(Storage& storage, const std::string& checkpoint_dir) {
  const Result<std::vector<Found>> found = find_generations(storage, checkpoint_dir);
  if (!found.ok() && found.status().code() != Code::kNotFound) return found.status();
  if (found.ok()) {
    for (const Found& generation : found.value()) {
      if (!generation.complete) RETURN_IF_ERROR(remove_generation(storage, generation.dir));
    }
  }
  return storage.drop_unfinished(checkpoint_dir);
}

}  // namespace meander::checkpoint
