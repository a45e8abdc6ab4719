// Key tables of Dict: lookup and spelling suggestions.
#include <algorithm>

#include <tutti/core/dict.h>

namespace tutti {

std::int64_t KeyTable::find(std::string_view name) const {
  auto it = index_.find(name);
  return it == index_.end() ? -1 : it->second;
}

void KeyTable::push_back(std::string name) {
  index_.emplace(name, static_cast<std::int64_t>(names_.size()));
  names_.push_back(std::move(name));
}

namespace {
// Levenshtein distance, one row at a time.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      std::size_t up = row[j];
      row[j] = std::min({up + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = up;
    }
  }
  return row[b.size()];
}
}  // namespace

std::string KeyTable::nearest(std::string_view name) const {
  std::string best;
  std::size_t least = std::max<std::size_t>(3, name.size() / 2);
  for (const std::string& k : names_)
    if (std::size_t d = distance(name, k); d < least) {
      least = d;
      best = k;
    }
  return best;
}

}  // namespace tutti
