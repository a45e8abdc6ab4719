// The view of a functional_call: which slot stands for which tensor.
#include <algorithm>

#include <tutti/func/functional_call.h>

namespace tutti::func {

State::State(const std::pair<std::string, Tensor>* first,
             const std::pair<std::string, Tensor>* last) {
  TensorDict d;
  for (; first != last; ++first) {
    check<ValueError>(!d.contains(first->first), "functional_call", "the name \"", first->first,
                      "\" occurs twice; give it once");
    d.insert(first->first, first->second);
  }
  dicts_.push_back(std::move(d));
}

namespace detail_ {

namespace {

// Where the names of one key table sit in one module's slot table. Both are immutable and shared,
// so the pairing is worked out once per thread. The entry must not keep a module's tensors alive,
// hence the weak pointer, which still tells its table from a later one at the same address.
struct Matching {
  std::weak_ptr<const nn::SlotTable> slots;
  std::shared_ptr<const KeyTable> keys;
  std::vector<std::int64_t> at;  // per key: index into slots->entries, -1 if unknown
};

const Matching& match(const std::shared_ptr<const nn::SlotTable>& slots,
                      const std::shared_ptr<const KeyTable>& keys) {
  constexpr std::size_t kEntries = 16;
  static thread_local std::vector<Matching> cache;
  static thread_local std::size_t next = 0;
  for (const Matching& m : cache)
    if (m.keys == keys && !m.slots.owner_before(slots) && !slots.owner_before(m.slots)) return m;
  Matching m{slots, keys, {}};
  for (const std::string& k : keys->names()) m.at.push_back(slots->names.find(k));
  if (cache.size() < kEntries) return cache.emplace_back(std::move(m));
  next = (next + 1) % kEntries;
  return cache[next] = std::move(m);
}

std::string quoted_list(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  std::string s;
  for (const std::string& n : names) s += (s.empty() ? "\"" : ", \"") + n + "\"";
  return s;
}

}  // namespace

StateView::StateView(const nn::Module& module, const State& state,
                     const FunctionalCallOptions& options)
    : table_(module.slots()) {
  const auto& entries = table_->entries;
  std::vector<const std::string*> given_by;  // per substitute: the name that gave it
  std::vector<std::string> unknown;
  for (const TensorDict& d : state.dicts()) {
    if (d.empty()) continue;
    const Matching& m = match(table_, d.key_table());
    for (std::size_t i = 0; i < d.size(); ++i) {
      const std::string& name = d.key_table()->names()[i];
      if (m.at[i] < 0) {
        unknown.push_back(name);
        continue;
      }
      const TensorImpl* slot = entries[static_cast<std::size_t>(m.at[i])].slot.get();
      Tensor value = resolved(d.values()[i]);
      if (const Tensor* other = find(slot)) {
        // The same slot again: the name stands in two dicts, or a shared submodule is named by two
        // paths.
        for (std::size_t k = 0; k < substitutes_.size(); ++k) {
          if (substitutes_[k].first != slot) continue;
          check<ValueError>(*given_by[k] != name, "functional_call", "the name \"", name,
                            "\" is in two of the dicts; give it once");
          check<ValueError>(
              other->is_same(value), "functional_call", "\"", *given_by[k], "\" and \"", name,
              "\" are one tensor of the module, but got different values; give it once");
        }
        continue;
      }
      substitutes_.emplace_back(slot, std::move(value));
      given_by.push_back(&name);
    }
  }
  if (options.tie_weights()) {
    // A value given for one name of a tied tensor stands for the others too.
    const std::size_t given = substitutes_.size();
    for (const nn::SlotEntry& e : entries) {
      const TensorImpl* target = e.slot->target.impl();
      if (!target) continue;
      for (std::size_t k = 0; k < given; ++k) {
        const Slot* s = static_cast<const Slot*>(substitutes_[k].first);
        if (s == e.slot.get() || s->target.impl() != target) continue;
        if (const Tensor* other = find(e.slot.get())) {
          check<ValueError>(other->is_same(substitutes_[k].second), "functional_call",
                            "got different values for \"", *given_by[k], "\" and \"", e.name,
                            "\", which are tied; give one, or use tie_weights(false)");
        } else {
          Tensor value = substitutes_[k].second;
          substitutes_.emplace_back(e.slot.get(), std::move(value));
        }
      }
    }
  }
  std::vector<std::string> missing;
  if (options.strict() == true)
    for (const nn::SlotEntry& e : entries)
      if (!find(e.slot.get()) && e.slot->target.defined()) missing.push_back(e.name);
  if (options.strict() == false || (unknown.empty() && missing.empty())) return;
  std::string text;
  if (!unknown.empty()) {
    std::string near = table_->names.nearest(unknown[0]);
    text += "unknown names " + quoted_list(unknown) + " for module " + module.name();
    if (!near.empty()) text += "; did you mean \"" + near + "\"?";
  }
  if (!missing.empty())
    text.append(text.empty() ? "" : " ")
        .append("missing names ")
        .append(quoted_list(missing))
        .append("; give them, or leave strict out to use the module's own");
  fail<KeyError>("functional_call", text);
}

}  // namespace detail_
}  // namespace tutti::func
