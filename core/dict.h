// Dict<T>: an insertion-ordered map from string. The keys are one shared immutable table, so
// copying a TensorDict copies handles only and two dicts from one module compare their keys by
// address. Not thread-safe for writing.
#pragma once
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <tutti/core/error.h>
#include <tutti/core/tensor.h>

namespace tutti {

/// The names of a Dict in order, with their positions.
class KeyTable {
 public:
  const std::vector<std::string>& names() const { return names_; }
  /// Position of a name, or -1.
  std::int64_t find(std::string_view name) const;
  /// Appends a name that is not there yet.
  void push_back(std::string name);
  /// The known name closest in spelling, or "" if none is near; for error texts.
  std::string nearest(std::string_view name) const;

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  std::vector<std::string> names_;
  std::unordered_map<std::string, std::int64_t, Hash, std::equal_to<>> index_;
};

template <class T>
class Dict {
 public:
  using value_type = std::pair<const std::string&, T&>;

  Dict() = default;
  Dict(std::initializer_list<std::pair<std::string, T>> items) {
    for (const auto& [k, v] : items) insert(k, v);
  }
  /// Same keys in the same order, other values. ValueError unless there are as many.
  template <class U>
  static Dict with_keys_of(const Dict<U>& other, std::vector<T> values) {
    check<ValueError>(values.size() == other.size(), "Dict", "expected ", other.size(),
                      " values, one for each key, got ", values.size(), "; give them in order");
    Dict d;
    d.keys_ = other.key_table();
    d.values_ = std::move(values);
    return d;
  }

  std::size_t size() const { return values_.size(); }
  bool empty() const { return values_.empty(); }
  std::vector<std::string> keys() const {
    return keys_ ? keys_->names() : std::vector<std::string>();
  }
  const std::vector<T>& values() const { return values_; }
  /// To change values. There must stay one for each key: else ValueError when the dict is used.
  std::vector<T>& values() { return values_; }
  /// (name, value) pairs, copied.
  std::vector<std::pair<std::string, T>> items() const {
    check_sizes();
    std::vector<std::pair<std::string, T>> r;
    for (std::size_t i = 0; i < size(); ++i) r.emplace_back(keys_->names()[i], values_[i]);
    return r;
  }
  bool contains(std::string_view key) const { return find(key) >= 0; }
  /// KeyError, naming the nearest key, if there is none.
  const T& at(std::string_view key) const { return values_[index(key)]; }
  T& at(std::string_view key) { return values_[index(key)]; }
  /// Inserts an empty value if the key is new.
  T& operator[](std::string_view key) {
    std::int64_t i = find(key);
    if (i >= 0) return values_[static_cast<std::size_t>(i)];
    append_key(std::string(key));
    return values_.emplace_back();
  }
  const T& operator[](std::string_view key) const { return at(key); }
  /// Adds or replaces.
  void insert(std::string_view key, T value) { (*this)[key] = std::move(value); }
  /// Removes a key if it is there; true if it was.
  bool erase(std::string_view key) {
    if (!contains(key)) return false;
    Dict d;
    for (std::size_t i = 0; i < size(); ++i)
      if (keys_->names()[i] != key) d.insert(keys_->names()[i], values_[i]);
    *this = std::move(d);
    return true;
  }
  void clear() { *this = Dict(); }

  const std::shared_ptr<const KeyTable>& key_table() const {
    check_sizes();
    return keys_;
  }

  /// Gives (name, value) pairs of references; the pair lives in the iterator, so that
  /// `for (auto& [name, value] : dict)` works.
  template <class D, class V>
  class Iterator {
   public:
    Iterator(D* d, std::size_t i) : d_(d), i_(i) { d->check_sizes(); }
    std::pair<const std::string&, V&>& operator*() const {
      return item_.emplace(d_->keys_->names()[i_], d_->values_[i_]);
    }
    Iterator& operator++() {
      ++i_;
      return *this;
    }
    friend bool operator==(const Iterator& a, const Iterator& b) { return a.i_ == b.i_; }

   private:
    D* d_;
    std::size_t i_;
    mutable std::optional<std::pair<const std::string&, V&>> item_;
  };
  auto begin() { return Iterator<Dict, T>(this, 0); }
  auto end() { return Iterator<Dict, T>(this, size()); }
  auto begin() const { return Iterator<const Dict, const T>(this, 0); }
  auto end() const { return Iterator<const Dict, const T>(this, size()); }

 private:
  void check_sizes() const {
    const std::size_t keys = keys_ ? keys_->names().size() : 0;
    if (keys != values_.size()) [[unlikely]]
      fail<ValueError>("Dict", "expected ", keys, " values, one for each key, got ", values_.size(),
                       "; values() must not be resized, insert() and erase() change keys, too");
  }
  std::int64_t find(std::string_view key) const {
    check_sizes();
    return keys_ ? keys_->find(key) : -1;
  }
  std::size_t index(std::string_view key) const {
    std::int64_t i = find(key);
    if (i < 0) [[unlikely]] {
      std::string near = keys_ ? keys_->nearest(key) : "";
      fail<KeyError>("Dict", "no key \"", key, "\"",
                     near.empty() ? "; contains() asks and keys() lists them" : "; did you mean \"",
                     near, near.empty() ? "" : "\"?");
    }
    return static_cast<std::size_t>(i);
  }
  void append_key(std::string key) {
    // The table may be shared with other dicts: copy it before it grows.
    auto table = keys_ && keys_.use_count() == 1 ? std::const_pointer_cast<KeyTable>(keys_)
                 : keys_                         ? std::make_shared<KeyTable>(*keys_)
                                                 : std::make_shared<KeyTable>();
    table->push_back(std::move(key));
    keys_ = std::move(table);
  }

  std::shared_ptr<const KeyTable> keys_;
  std::vector<T> values_;
};

/// Named tensors in order: what state_dict(), stack_module_state() and save() work with.
using TensorDict = Dict<Tensor>;

}  // namespace tutti
