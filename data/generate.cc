// SPDX-License-Identifier: Apache-2.0
#include "data/generate.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <string_view>
#include <vector>

#include "common/rng.h"
#include "data/npy.h"
#include "data/target_order.h"

namespace meander::data {
namespace {

constexpr std::int64_t kFirstMs = 1'704'067'200'000;  // 2024-01-01T00:00:00Z
constexpr double kSpanMs = 14.0 * 24 * 3600 * 1000;   // of the whole log, in the mean
constexpr std::size_t kHistory = 50;         // what a user has seen: events before this one
constexpr std::size_t kRing = kHistory + 1;  // with this one
constexpr int kTriesMax = 20;                // to click, or draw, something not yet seen
constexpr double kActivitySpread = 0.7;      // of the log of a user's activity
constexpr std::uint64_t kUsersMax = std::uint64_t{1} << 31;
constexpr std::uint64_t kItemsMax = std::uint64_t{1} << 31;
constexpr std::uint32_t kCategoriesMax = 4096;
constexpr std::uint32_t kCheckpointsMax = 1000;

double normal(Rng& rng) {  // Box and Muller; 1 - u is never 0
  const double radius = std::sqrt(-2 * std::log(1 - rng.uniform()));
  return radius * std::cos(2 * std::numbers::pi * rng.uniform());
}

// Draws an index in proportion to its weight, by bisection of the running sums.
class Weighted {
 public:
  explicit Weighted(std::vector<double> weights) : sums_(std::move(weights)) {
    std::partial_sum(sums_.begin(), sums_.end(), sums_.begin());
  }
  std::size_t draw(Rng& rng, std::size_t count) const {  // among the first `count`
    const double at = rng.uniform() * sums_[count - 1];
    return std::min<std::size_t>(
        std::upper_bound(sums_.begin(), sums_.begin() + count, at) - sums_.begin(), count - 1);
  }
  std::size_t draw(Rng& rng) const { return draw(rng, sums_.size()); }

 private:
  std::vector<double> sums_;
};

std::vector<double> zipf_weights(std::size_t count, double exponent) {
  std::vector<double> weights(count);
  for (std::size_t r = 0; r < count; ++r) weights[r] = std::pow(r + 1, -exponent);
  return weights;
}
std::vector<double> activity_weights(std::size_t users, std::uint64_t seed) {
  Rng rng(hash64(seed, 1));
  std::vector<double> weights(users);
  for (double& weight : weights) weight = std::exp(kActivitySpread * normal(rng));
  return weights;
}

// AUC of positives against negatives, ties half.
double auc_of(const std::vector<float>& positive, const std::vector<float>& negative) {
  std::vector<float> sorted = negative;
  std::sort(sorted.begin(), sorted.end());
  double wins = 0;
  for (const float score : positive) {
    const auto [low, high] = std::equal_range(sorted.begin(), sorted.end(), score);
    wins += static_cast<double>(low - sorted.begin()) + 0.5 * static_cast<double>(high - low);
  }
  return wins / (static_cast<double>(positive.size()) * static_cast<double>(negative.size()));
}

class Generator {
 public:
  Generator(Storage& storage, const GenerateOptions& options)
      : storage_(storage),
        options_(options),
        rng_(hash64(options.seed, 0)),
        activity_(activity_weights(options.users, options.seed)),
        popularity_(zipf_weights((options.items + options.categories - 1) / options.categories,
                                 options.popularity)),
        logits_(options.users * options.categories),
        chance_(options.categories),
        users_(options.users),
        ring_(options.users * kRing),
        last_chance_(options.users * options.categories),
        item_clicks_(options.items) {}

  Result<GenerateReport> run() {
    const std::string directory = options_.out + ".tmp";
    RETURN_IF_ERROR(storage_.remove(directory));
    Status status = write(directory);
    if (status.ok()) status = storage_.rename(directory, options_.out);
    if (status.ok()) return report_;
    (void)storage_.remove(directory);  // the first error counts
    return status;
  }

 private:
  Status write(const std::string& directory) {
    const std::string truth = join_path(directory, "truth");
    RETURN_IF_ERROR(storage_.make_directories(truth));
    const std::string events = options_.jsonl ? "events.jsonl" : "events.csv";
    ASSIGN_OR_RETURN(events_, storage_.create(join_path(directory, events)));
    ASSIGN_OR_RETURN(interest_, storage_.create(join_path(truth, "interest.npy")));
    const std::string header =
        npy_header("<f4", {checkpoints(), options_.users, options_.categories});
    RETURN_IF_ERROR(interest_->append(header.data(), header.size()));
    RETURN_IF_ERROR(write_events());
    RETURN_IF_ERROR(events_->close());
    RETURN_IF_ERROR(interest_->close());
    fill_report();
    RETURN_IF_ERROR(write_schema(join_path(directory, "schema.yaml")));
    return write_truth(join_path(truth, "truth.json"));
  }

  bool shifts() const { return options_.shift_at >= 0; }
  std::uint64_t shift_event() const {
    return static_cast<std::uint64_t>(options_.shift_at * static_cast<double>(options_.events));
  }
  // Evenly from the first event to behind the last, and one on each side of a shift.
  std::uint64_t checkpoints() const { return options_.checkpoints + (shifts() ? 2 : 0); }
  std::uint64_t checkpoint_event(std::uint64_t i) const {
    return options_.events * i / (options_.checkpoints - 1);
  }

  Status write_events() {
    if (!options_.jsonl) text_ = "time_ms,user,item,category\n";
    for (std::uint64_t user = 0; user < options_.users; ++user) draw_interest(user);
    std::uint64_t next_checkpoint = 0;
    for (std::uint64_t event = 0; event <= options_.events; ++event) {
      if (shifts() && event == shift_event()) RETURN_IF_ERROR(shift(event));
      while (next_checkpoint < options_.checkpoints && checkpoint_event(next_checkpoint) == event) {
        RETURN_IF_ERROR(write_checkpoint(event, "even"));
        ++next_checkpoint;
      }
      if (event == options_.events) break;
      RETURN_IF_ERROR(write_event(event));
    }
    RETURN_IF_ERROR(events_->append(text_.data(), text_.size()));
    return {};
  }

  void draw_interest(std::uint64_t user) {
    for (float& logit : interest(user)) {
      logit = static_cast<float>(options_.focus * normal(rng_));
    }
  }

  Status shift(std::uint64_t event) {
    RETURN_IF_ERROR(write_checkpoint(event, "before the shift"));
    for (std::uint64_t user = 0; user < options_.users; ++user) draw_interest(user);
    return write_checkpoint(event, "after the shift");
  }

  std::span<float> interest(std::uint64_t user) {
    return {logits_.data() + user * options_.categories, options_.categories};
  }

  // A random walk that keeps the spread of the logits: x' = sqrt(1 - d^2) x + d focus N(0, 1).
  void drift(std::uint64_t user) {
    const double keep = std::sqrt(1 - options_.drift * options_.drift);
    const double step = options_.drift * options_.focus;
    for (float& logit : interest(user)) {
      logit = static_cast<float>(keep * logit + step * normal(rng_));
    }
  }

  void softmax(std::uint64_t user, std::span<float> out) {
    const auto logits = interest(user);
    const float top = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (std::size_t c = 0; c < out.size(); ++c) sum += out[c] = std::exp(logits[c] - top);
    for (float& p : out) p = static_cast<float>(p / sum);
  }

  // Every other event goes round all users, so that each has some; the rest go by activity.
  std::uint64_t draw_user(std::uint64_t event) {
    if (event % 2 == 1) return activity_.draw(rng_);
    const std::uint64_t round = event / 2 / options_.users;
    return Permutation(options_.users, hash64(options_.seed, 2, round))(event / 2 % options_.users);
  }

  Status write_event(std::uint64_t event) {
    const std::uint64_t user = draw_user(event);
    drift(user);
    softmax(user, chance_);
    double at = rng_.uniform();
    std::uint32_t category = 0;
    while (category + 1 < options_.categories && (at -= chance_[category]) >= 0) ++category;
    // Item i is of category i % C, and the more popular the smaller it is.
    const std::uint64_t in_category =
        (options_.items - category + options_.categories - 1) / options_.categories;
    const auto draw = [&] {
      return popularity_.draw(rng_, in_category) * options_.categories + category;
    };
    std::uint64_t item = draw();
    for (int tries = 0; has_seen(user, users_[user], item) && tries < kTriesMax; ++tries) {
      item = draw();
    }
    const double mean_gap = kSpanMs / static_cast<double>(options_.events);
    time_ms_ += -std::log(1 - rng_.uniform()) * mean_gap;
    ring_[user * kRing + users_[user] % kRing] = static_cast<std::uint32_t>(item);
    ++users_[user];
    std::copy(chance_.begin(), chance_.end(), last_chance_.begin() + user * options_.categories);
    ++item_clicks_[item];
    return write_line(kFirstMs + static_cast<std::int64_t>(time_ms_), user + 1, item + 1, category);
  }

  // Whether `item` is among the kHistory events of the user before number `event`.
  bool has_seen(std::uint64_t user, std::uint64_t event, std::uint64_t item) const {
    for (std::uint64_t e = event - std::min<std::uint64_t>(event, kHistory); e < event; ++e) {
      if (ring_[user * kRing + e % kRing] == item) return true;
    }
    return false;
  }

  void append_number(std::string_view before, std::uint64_t number) {
    char digits[20];
    text_ += before;
    text_.append(digits, std::to_chars(digits, digits + sizeof(digits), number).ptr);
  }

  Status write_line(std::int64_t time_ms, std::uint64_t user, std::uint64_t item,
                    std::uint64_t category) {
    const bool json = options_.jsonl;
    append_number(json ? "{\"time_ms\": " : "", static_cast<std::uint64_t>(time_ms));
    append_number(json ? ", \"user\": " : ",", user);
    append_number(json ? ", \"item\": " : ",", item);
    append_number(json ? ", \"category\": " : ",", category);
    text_ += json ? "}\n" : "\n";
    if (text_.size() < (std::size_t{64} << 10)) return {};
    RETURN_IF_ERROR(events_->append(text_.data(), text_.size()));
    text_.clear();
    return {};
  }

  Status write_checkpoint(std::uint64_t event, const char* what) {
    checkpoints_.push_back({{"event", event},
                            {"time_ms", kFirstMs + static_cast<std::int64_t>(time_ms_)},
                            {"what", what}});
    std::vector<float> row(options_.categories);
    for (std::uint64_t user = 0; user < options_.users; ++user) {
      softmax(user, row);
      RETURN_IF_ERROR(interest_->append(row.data(), row.size() * sizeof(float)));
    }
    return {};
  }

  void fill_report() {
    report_.events = options_.events;
    for (const std::uint32_t events : users_) report_.users += events > 0;
    for (const std::uint64_t clicks : item_clicks_) report_.items += clicks > 0;
    report_.oracle_auc = oracle_auc();
  }

  // What the oracle knows of all users and of one: see docs/generator.md.
  struct Oracle {
    std::vector<double> share;  // (categories) of all clicks
    std::vector<double> seen;   // (categories) of the category's clicks, those on items seen
    double clicks = 0;
    double unseen = 0;  // share of all clicks on items not seen
  };

  std::uint64_t last_item(std::uint64_t user) const {
    return ring_[user * kRing + (users_[user] - 1) % kRing];
  }

  Oracle ask_oracle() const {
    Oracle oracle{std::vector<double>(options_.categories),
                  std::vector<double>(options_.categories)};
    for (std::uint64_t i = 0; i < options_.items; ++i) {
      oracle.clicks += static_cast<double>(item_clicks_[i]);
      oracle.share[i % options_.categories] += static_cast<double>(item_clicks_[i]);
    }
    for (double& share : oracle.share) share /= oracle.clicks;
    return oracle;
  }

  void look_at_history(std::uint64_t user, Oracle& oracle) const {
    const std::uint64_t last = users_[user] - 1;
    std::vector<std::uint64_t> items;
    for (std::uint64_t e = last - std::min<std::uint64_t>(last, kHistory); e < last; ++e) {
      items.push_back(ring_[user * kRing + e % kRing]);
    }
    std::sort(items.begin(), items.end());
    items.erase(std::unique(items.begin(), items.end()), items.end());
    std::fill(oracle.seen.begin(), oracle.seen.end(), 0);
    oracle.unseen = 1;
    for (const std::uint64_t item : items) {
      const double share = static_cast<double>(item_clicks_[item]) / oracle.clicks;
      oracle.seen[item % options_.categories] += share;
      oracle.unseen -= share;
    }
    for (std::size_t c = 0; c < oracle.seen.size(); ++c) {
      oracle.seen[c] /= std::max(oracle.share[c], 1e-9);
    }
  }

  float score(std::uint64_t user, std::uint64_t item, const Oracle& oracle) const {
    if (has_seen(user, users_[user] - 1, item)) return std::numeric_limits<float>::max();
    const std::size_t category = item % options_.categories;
    const double chance = last_chance_[user * options_.categories + category];
    return static_cast<float>(chance / std::max(1 - oracle.seen[category], 1e-6) /
                              std::max(oracle.share[category], 1e-9) * oracle.unseen);
  }

  double oracle_auc() {
    for (std::uint64_t user = 0; user < options_.users; ++user) {
      if (users_[user] > 1) --item_clicks_[last_item(user)];
    }
    Oracle oracle = ask_oracle();
    const Weighted by_clicks({item_clicks_.begin(), item_clicks_.end()});
    Rng rng(hash64(options_.seed, 3));
    std::vector<float> positive, negative;
    for (std::uint64_t user = 0; user < options_.users; ++user) {
      if (users_[user] < 2) continue;
      const std::uint64_t item = last_item(user);
      std::uint64_t other = by_clicks.draw(rng);
      for (int tries = 0; tries < 10 * kTriesMax; ++tries) {
        if (other != item && !has_seen(user, users_[user] - 1, other)) break;
        other = by_clicks.draw(rng);
      }
      look_at_history(user, oracle);
      positive.push_back(score(user, item, oracle));
      negative.push_back(score(user, other, oracle));
    }
    return positive.empty() ? 0.5 : auc_of(positive, negative);
  }

  Status write_text(const std::string& path, const std::string& text) {
    ASSIGN_OR_RETURN(auto file, storage_.create(path));
    RETURN_IF_ERROR(file->append(text.data(), text.size()));
    return file->close();
  }

  Status write_schema(const std::string& path) {
    return write_text(path,
                      std::string("# How to read the events beside this file: meander prepare "
                                  "--format ") +
                          (options_.jsonl ? "jsonl" : "csv") +
                          " --schema schema.yaml\n"
                          "time_unit: ms\n"
                          "columns:\n"
                          "  - {name: time_ms, role: time, type: int}\n"
                          "  - {name: user, role: user, type: int}\n"
                          "  - {name: item, role: item, type: int}\n"
                          "  - {name: category, role: category, type: int}\n");
  }

  Status write_truth(const std::string& path) {
    boost::json::object truth = {
        {"users", options_.users},     {"items", options_.items},
        {"events", options_.events},   {"categories", options_.categories},
        {"seed", options_.seed},       {"drift", options_.drift},
        {"focus", options_.focus},     {"popularity", options_.popularity},
        {"checkpoints", checkpoints_}, {"oracle_auc", report_.oracle_auc},
    };
    if (shifts()) truth["shift_event"] = shift_event();
    return write_text(path, boost::json::serialize(truth) + "\n");
  }

  Storage& storage_;
  const GenerateOptions& options_;
  Rng rng_;
  Weighted activity_, popularity_;
  std::vector<float> logits_;  // (users, categories)
  std::vector<float> chance_;  // (categories) of the event in hand
  double time_ms_ = 0;
  std::vector<std::uint32_t> users_;  // events of each user so far
  std::vector<std::uint32_t> ring_;   // (users, kRing) items of a user's newest events
  std::vector<float> last_chance_;    // (users, categories) at each user's newest event
  std::vector<std::uint64_t> item_clicks_;
  std::unique_ptr<WritableFile> events_, interest_;
  std::string text_;
  boost::json::array checkpoints_;
  GenerateReport report_;
};

Status check(const GenerateOptions& options) {
  if (options.out.empty()) return invalid("no output directory");
  if (options.users == 0 || options.users > kUsersMax)
    return invalid("users must be from 1 to 2^31");
  if (options.items == 0 || options.items > kItemsMax)
    return invalid("items must be from 1 to 2^31");
  if (options.events == 0) return invalid("events must be at least 1");
  if (options.categories == 0 || options.categories > kCategoriesMax ||
      options.categories > options.items) {
    return invalid("categories must be from 1 to 4096, and no more than items");
  }
  if (options.shift_at >= 1) return invalid("shift-at is a fraction of the log, below 1");
  if (!(options.drift >= 0 && options.drift <= 1)) return invalid("drift must be from 0 to 1");
  if (!(options.focus >= 0 && options.focus <= 20)) return invalid("focus must be from 0 to 20");
  if (!(options.popularity >= 0 && options.popularity <= 10)) {
    return invalid("popularity must be from 0 to 10");
  }
  if (options.checkpoints < 2 || options.checkpoints > kCheckpointsMax) {
    return invalid("checkpoints must be from 2 to 1000");
  }
  return {};
}

}  // namespace

Result<GenerateReport> generate(Storage& storage, const GenerateOptions& options) {
  RETURN_IF_ERROR(check(options));
  const Result<std::vector<std::string>> there = storage.list(options.out);
  const bool is_empty = there.ok() && there->empty();
  if (storage.exists(options.out) && !is_empty &&
      !storage.exists(join_path(options.out, "truth/truth.json"))) {
    return invalid(options.out + ": is there and was not generated; choose another directory");
  }
  return Generator(storage, options).run();
}

}  // namespace meander::data
