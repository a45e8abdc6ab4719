// einsum: the equation is parsed into labels per axis, then operands are contracted two at a time
// by sums, broadcast products and batched matrix products. Only public ops, so that every transform
// applies.
#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <tutti/core/ops.h>

namespace tutti {
namespace {

// An axis is labelled by its letter, or, where "..." stands for it, by 128 + its place from the
// right.
using Label = int;
using Labels = std::vector<Label>;
constexpr Label kEllipsis = -1, kFirstBroadcast = 128;

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool has(const Labels& labels, Label l) {
  return std::find(labels.begin(), labels.end(), l) != labels.end();
}
std::string name_of(Label l) {
  if (l >= kFirstBroadcast) return "\"...\"";
  return std::string("'") + static_cast<char>(l) + "'";
}

struct Operand {
  Tensor value;
  Labels labels;  // one per axis, all different once prepare() is done
};

class Equation {
 public:
  Equation(std::string_view text, TensorList tensors) : text_(text) {
    parse();
    check<ValueError>(inputs_.size() == tensors.size(), "einsum", "expected as many operands as \"",
                      text_, "\" has terms (", inputs_.size(), "), got ", tensors.size(),
                      "; separate terms by ','");
    for (std::size_t i = 0; i < tensors.size(); ++i) bind(i, tensors[i]);
    finish_output();
  }

  Tensor evaluate() {
    for (Operand& x : operands_) prepare(x);
    while (operands_.size() > 1) {
      const auto [i, j] = cheapest_pair();
      const Operand right = std::move(operands_[j]);
      operands_.erase(operands_.begin() + static_cast<std::ptrdiff_t>(j));
      const Operand left = std::move(operands_[i]);
      operands_.erase(operands_.begin() + static_cast<std::ptrdiff_t>(i));
      operands_.insert(operands_.begin() + static_cast<std::ptrdiff_t>(i), contract(left, right));
    }
    Operand x = reduced(operands_[0], {});
    return arranged(x, output_);
  }

 private:
  [[noreturn]] void malformed(std::size_t at, const std::string& what) const {
    fail<ValueError>("einsum", what, " at position ", at, " of \"", text_,
                     "\"; write letters, commas, \"...\" and at most one \"->\"");
  }

  void parse() {
    Labels term;
    bool in_output = false;
    auto end_term = [&] {
      (in_output ? output_ : inputs_.emplace_back()) = std::exchange(term, {});
    };
    for (std::size_t i = 0; i < text_.size(); ++i) {
      const char c = text_[i];
      if (c == ' ') continue;
      if (is_letter(c)) {
        if (in_output && has(term, c))
          malformed(i, detail::str("letter ", name_of(c), " appears twice in the output"));
        term.push_back(c);
      } else if (text_.substr(i, 3) == "...") {
        if (has(term, kEllipsis)) malformed(i, "second \"...\" in one term");
        term.push_back(kEllipsis);
        i += 2;
      } else if (text_.substr(i, 2) == "->") {
        if (in_output) malformed(i, "second \"->\"");
        end_term();
        in_output = explicit_output_ = true;
        ++i;
      } else if (c == ',') {
        if (in_output) malformed(i, "',' in the output");
        end_term();
      } else {
        malformed(i, detail::str("unexpected character '", std::string_view(&text_[i], 1), "'"));
      }
    }
    end_term();
  }

  /// Gives the axes of operand i their labels and notes their sizes.
  void bind(std::size_t i, const Tensor& x) {
    check<ValueError>(x.defined(), "einsum", "expected defined tensors, operand ", i, " is not");
    const Labels& term = inputs_[i];
    const bool broadcasts = has(term, kEllipsis);
    const auto letters = static_cast<std::int64_t>(term.size()) - broadcasts;
    check<ValueError>(broadcasts ? x.dim() >= letters : x.dim() == letters, "einsum", "expected ",
                      broadcasts ? "at least " : "", letters, " axes in operand ", i, " (term ", i,
                      " of \"", text_, "\"), got shape ", x.sizes(),
                      "; name every axis, or use \"...\" for those without a letter");
    Operand o{x, {}};
    for (Label l : term) {
      if (l != kEllipsis) {
        o.labels.push_back(l);
        continue;
      }
      const auto more = static_cast<int>(x.dim() - letters);
      broadcast_axes_ = std::max(broadcast_axes_, more);
      for (int k = more; k-- > 0;) o.labels.push_back(kFirstBroadcast + k);
    }
    for (std::size_t d = 0; d < o.labels.size(); ++d) note_size(i, x, o.labels, d);
    check<TypeError>(x.dtype() != kBool, "einsum", "expected numbers, operand ", i,
                     " is bool, convert with to()");
    if (!operands_.empty())
      check<TypeError>(x.dtype() == operands_[0].value.dtype(), "einsum",
                       "expected operands of one dtype, got ", operands_[0].value.dtype(), " and ",
                       x.dtype(), ", convert one with to()");
    operands_.push_back(std::move(o));
  }

  void note_size(std::size_t i, const Tensor& x, const Labels& labels, std::size_t d) {
    const Label l = labels[d];
    const std::int64_t size = x.sizes()[d];
    for (std::size_t e = 0; e < d; ++e)
      check<ValueError>(labels[e] != l || x.sizes()[e] == size, "einsum",
                        "expected equal sizes of ", name_of(l), ", which operand ", i,
                        " repeats in \"", text_, "\", got shape ", x.sizes());
    std::int64_t& known = size_of(l);
    check<ValueError>(known == 1 || size == 1 || known == size, "einsum", "expected size ", known,
                      " for ", name_of(l), " as in an earlier operand of \"", text_, "\", got ",
                      size, ": operand ", i, " has shape ", x.sizes());
    if (size != 1) known = size;
  }

  void finish_output() {
    Labels found;  // the broadcast axes, then letters
    for (const Labels& term : explicit_output_ ? std::vector<Labels>{output_} : inputs_)
      found.insert(found.end(), term.begin(), term.end());
    Labels out;
    if (!explicit_output_) {  // letters that appear once, in the order of the alphabet
      for (int k = broadcast_axes_; k-- > 0;) out.push_back(kFirstBroadcast + k);
      for (Label l = 'A'; l <= 'z'; ++l)
        if (std::count(found.begin(), found.end(), l) == 1) out.push_back(l);
    } else {
      for (Label l : found) {
        if (l == kEllipsis)
          for (int k = broadcast_axes_; k-- > 0;) out.push_back(kFirstBroadcast + k);
        else
          out.push_back(l);
        bool known = l == kEllipsis;
        for (const Labels& term : inputs_) known = known || has(term, l);
        check<ValueError>(known, "einsum", "letter ", name_of(l), " of the output of \"", text_,
                          "\" names no axis of an operand; remove it, or use it in a term");
      }
    }
    output_ = std::move(out);
  }

  std::int64_t& size_of(Label l) {
    const auto at = static_cast<std::size_t>(l);
    while (sizes_.size() <= at) sizes_.push_back(1);
    return sizes_[at];
  }

  /// Repeated letters become diagonals; axes of size 1 go, since they broadcast.
  static void prepare(Operand& x) {
    for (std::size_t d = 0; d < x.labels.size(); ++d)
      for (std::size_t e = x.labels.size() - 1; e > d; --e)
        if (x.labels[e] == x.labels[d]) {
          x.value = movedim(
              diagonal(x.value, 0, static_cast<std::int64_t>(d), static_cast<std::int64_t>(e)), -1,
              static_cast<std::int64_t>(d));
          x.labels.erase(x.labels.begin() + static_cast<std::ptrdiff_t>(e));
        }
    for (std::size_t d = x.labels.size(); d-- > 0;)
      if (x.value.sizes()[d] == 1) {
        x.value = squeeze(x.value, static_cast<std::int64_t>(d));
        x.labels.erase(x.labels.begin() + static_cast<std::ptrdiff_t>(d));
      }
  }

  bool needed_later(Label l, const std::vector<const Operand*>& now) const {
    if (has(output_, l)) return true;
    for (const Operand& x : operands_)
      if (std::find(now.begin(), now.end(), &x) == now.end() && has(x.labels, l)) return true;
    return false;
  }

  /// The two operands whose product is the smallest, the leftmost of equals.
  std::pair<std::size_t, std::size_t> cheapest_pair() {
    std::pair<std::size_t, std::size_t> best{0, 1};
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t j = 1; operands_.size() > 2 && j < operands_.size(); ++j)
      for (std::size_t i = 0; i < j; ++i) {
        const std::vector<const Operand*> pair{&operands_[i], &operands_[j]};
        double size = 1;
        for (const Operand* x : pair)
          for (Label l : x->labels)
            if ((x == pair[0] || !has(pair[0]->labels, l)) && needed_later(l, pair))
              size *= static_cast<double>(size_of(l));
        if (size < least) {
          least = size;
          best = {i, j};
        }
      }
    return best;
  }

  /// x summed over axes that neither `other` nor anything later has.
  Operand reduced(const Operand& x, const Labels& other) const {
    Operand out{x.value, {}};
    Shape axes;
    for (std::size_t d = 0; d < x.labels.size(); ++d) {
      if (has(other, x.labels[d]) || needed_later(x.labels[d], {&x}))
        out.labels.push_back(x.labels[d]);
      else
        axes.push_back(static_cast<std::int64_t>(d));
    }
    if (!axes.empty()) out.value = sum(x.value, axes, false, x.value.dtype());
    return out;
  }

  /// x's axes in this order, those it lacks with size 1.
  static Tensor arranged(const Operand& x, const Labels& order) {
    Shape axes, absent;
    for (std::size_t k = 0; k < order.size(); ++k) {
      const auto at = std::find(x.labels.begin(), x.labels.end(), order[k]);
      if (at == x.labels.end())
        absent.push_back(static_cast<std::int64_t>(k));
      else
        axes.push_back(at - x.labels.begin());
    }
    Tensor y = permute(x.value, axes);
    for (std::int64_t k : absent) y = unsqueeze(y, k);
    return y;
  }

  /// The product of two operands, which are not in operands_ now.
  Operand contract(const Operand& a, const Operand& b) const {
    const Operand x = reduced(a, b.labels), y = reduced(b, a.labels);
    Labels batch, inner, left, right;
    for (Label l : x.labels)
      (!has(y.labels, l) ? left : needed_later(l, {&a, &b}) ? batch : inner).push_back(l);
    for (Label l : y.labels)
      if (!has(x.labels, l)) right.push_back(l);

    Labels result = batch;
    result.insert(result.end(), left.begin(), left.end());
    result.insert(result.end(), right.begin(), right.end());
    if (inner.empty()) return {mul(arranged(x, result), arranged(y, result)), result};

    // [batch..., left, inner] x [batch..., inner, right], each group of axes merged into one.
    const Tensor product = matmul(merged(x, batch, left, inner), merged(y, batch, inner, right));
    Shape sizes(product.sizes().begin(), product.sizes().begin() + batch.size());
    for (Label l : left) sizes.push_back(size_in(x, l));
    for (Label l : right) sizes.push_back(size_in(y, l));
    return {reshape(product, sizes), result};
  }

  static std::int64_t size_in(const Operand& x, Label l) {
    return x.value.sizes()[static_cast<std::size_t>(std::find(x.labels.begin(), x.labels.end(), l) -
                                                    x.labels.begin())];
  }
  static Tensor merged(const Operand& x, const Labels& batch, const Labels& rows,
                       const Labels& columns) {
    Labels order = batch;
    order.insert(order.end(), rows.begin(), rows.end());
    order.insert(order.end(), columns.begin(), columns.end());
    const Tensor y = arranged(x, order);
    Shape sizes(y.sizes().begin(), y.sizes().begin() + batch.size());
    for (const Labels* group : {&rows, &columns}) {
      std::int64_t n = 1;
      for (Label l : *group) n *= size_in(x, l);
      sizes.push_back(n);
    }
    return reshape(y, sizes);
  }

  std::string_view text_;
  std::vector<Labels> inputs_;
  Labels output_;
  bool explicit_output_ = false;
  int broadcast_axes_ = 0;           // the most that "..." stands for
  std::vector<std::int64_t> sizes_;  // by label
  std::vector<Operand> operands_;
};

}  // namespace

Tensor einsum(std::string_view equation, TensorList tensors) {
  check<ValueError>(!tensors.empty(), "einsum", "expected at least one operand, got none");
  return Equation(equation, tensors).evaluate();
}

}  // namespace tutti
