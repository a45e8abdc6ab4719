// Rows of core/ops/class_loss.cpp.
#include "op_table.h"

namespace tutti_test {

using namespace tutti;

namespace {

struct Form {
  std::int64_t reduction = 1, ignore_index = -100;
  double smoothing = 0;
  bool logarithms = false;  // the scores are log-probabilities
};

// Cross entropy of scores a[0] with classes or probabilities a[1] and maybe weights a[2].
Array class_loss(const Arrays& a, const Form& form) {
  const Array &scores = a[0], &target = a[1];
  const std::size_t axis = scores.rank() == 1 ? 0 : 1;
  const std::int64_t classes = scores.size(static_cast<std::int64_t>(axis));
  const double smoothing = form.smoothing, share = smoothing / static_cast<double>(classes);
  const bool probabilities = target.rank() == scores.rank();
  Index rows = scores.shape;
  rows.erase(rows.begin() + static_cast<std::ptrdiff_t>(axis));
  double sum = 0, total = 0;
  const Array losses = make(rows, [&](const Index& row) {
    auto place = [&](std::int64_t c) {
      Index i = row;
      i.insert(i.begin() + static_cast<std::ptrdiff_t>(axis), c);
      return i;
    };
    auto weight = [&](std::int64_t c) { return a.size() > 2 ? a[2].at({c}) : 1; };
    const auto t = probabilities ? std::int64_t{-1} : static_cast<std::int64_t>(target.at(row));
    if (!probabilities && t == form.ignore_index) return 0.0;
    double top = -INFINITY, z = 0, loss = 0;
    for (std::int64_t c = 0; c < classes; ++c) top = std::max(top, scores.at(place(c)));
    for (std::int64_t c = 0; c < classes; ++c) z += std::exp(scores.at(place(c)) - top);
    for (std::int64_t c = 0; c < classes; ++c) {
      const double p = probabilities ? target.at(place(c)) : c == t;
      const double q = p * (1 - smoothing) + share;
      if (q == 0) continue;
      loss -= q * weight(c) * (scores.at(place(c)) - (form.logarithms ? 0 : top + std::log(z)));
    }
    sum += loss;
    total += probabilities ? 1 : weight(t);
    return loss;
  });
  if (form.reduction == 0) return losses;
  return Array{{}, {form.reduction == 2 ? sum : sum / total}};
}

}  // namespace

void class_loss_rows(Table& t) {
  const In scores = real({3, 4}), classes = indices({3}, 4), weight = positive({4});
  const In image = real({2, 3, 5}), pixels = indices({2, 5}, 3), of_three = positive({3});
  // The class is in range only where it is not ignored; the first never is, for a mean of
  // something.
  const auto far = [](const Tensor& y) {
    const Tensor later =
        arange(y.numel(), TensorOptions(kInt64).device(y.device())).reshape(y.sizes()).gt(0);
    return where(y.eq(2).logical_and(later), -100, y);
  };
  const auto far_array = [](Arrays a) {
    for (std::size_t i = 1; i < a[1].data.size(); ++i)
      if (a[1].data[i] == 2) a[1].data[i] = -100;
    return a;
  };

  t.row("cross_entropy_loss", {scores, classes}, FN(cross_entropy_loss(v[0], v[1])))
      .ref(REF(class_loss(a, {})))
      .large({{{3001, 4}, {3001}}, {{5, 1500}, {5}}})
      .flex({3});
  t.row("cross_entropy_loss none", {image, pixels}, FN(cross_entropy_loss(v[0], v[1], {}, 0)))
      .ref(REF(class_loss(a, {.reduction = 0})))
      .large({{{3, 3, 700}, {3, 700}}})
      .flex({2, 5});
  t.row("cross_entropy_loss sum", {image, pixels}, FN(cross_entropy_loss(v[0], v[1], {}, 2, 1)))
      .ref(REF(class_loss(a, {.reduction = 2, .ignore_index = 1})))
      .flex({2, 5});
  t.row("cross_entropy_loss one row", {real({4}), indices({}, 4)},
        FN(cross_entropy_loss(v[0], v[1])))
      .ref(REF(class_loss(a, {})))
      .flex({});
  t.row("cross_entropy_loss large logits", {real({3, 4}, -1000, 1000), classes},
        FN(cross_entropy_loss(v[0], v[1])))
      .ref(REF(class_loss(a, {})))
      .flex({3});
  t.row("cross_entropy_loss ignored", {scores, classes},
        FN(cross_entropy_loss(v[0], far(v[1]), {}, 0)))
      .ref(REF(class_loss(far_array(a), {.reduction = 0})))
      .flex({3});
  t.row("cross_entropy_loss weight", {scores, classes, weight},
        FN(cross_entropy_loss(v[0], v[1], v[2])))
      .ref(REF(class_loss(a, {})))
      .large({{{2001, 4}, {2001}, {4}}})
      .flex({3});
  t.row("cross_entropy_loss weight none", {image, pixels, of_three},
        FN(cross_entropy_loss(v[0], v[1], v[2], 0, 0)))
      .ref(REF(class_loss(a, {.reduction = 0, .ignore_index = 0})))
      .flex({2, 5});
  t.row("cross_entropy_loss smoothing", {scores, classes},
        FN(cross_entropy_loss(v[0], v[1], {}, 1, -100, 0.3)))
      .ref(REF(class_loss(a, {.smoothing = 0.3})))
      .flex({3});
  t.row("cross_entropy_loss weight smoothing", {image, pixels, of_three},
        FN(cross_entropy_loss(v[0], v[1], v[2], 1, -100, 0.3)))
      .ref(REF(class_loss(a, {.smoothing = 0.3})))
      .flex({2, 5});
  t.row("cross_entropy_loss weight smoothing sum", {scores, classes, weight},
        FN(cross_entropy_loss(v[0], far(v[1]), v[2], 2, -100, 0.3)))
      .ref(REF(class_loss(far_array(a), {.reduction = 2, .smoothing = 0.3})))
      .flex({3});
  t.row("cross_entropy_loss probabilities", {scores, positive({3, 4})},
        FN(cross_entropy_loss(v[0], v[1])))
      .ref(REF(class_loss(a, {})))
      .flex({3});
  t.row("cross_entropy_loss probabilities weight", {image, positive({2, 3, 5}), of_three},
        FN(cross_entropy_loss(v[0], v[1], v[2], 0, -100, 0.3)))
      .ref(REF(class_loss(a, {.reduction = 0, .smoothing = 0.3})))
      .flex({2, 5});

  t.row("nll_loss", {scores, classes}, FN(nll_loss(v[0], v[1])))
      .ref(REF(class_loss(a, {.logarithms = true})))
      .flex({3});
  t.row("nll_loss none", {image, pixels, of_three}, FN(nll_loss(v[0], v[1], v[2], 0, 0)))
      .ref(REF(class_loss(a, {.reduction = 0, .ignore_index = 0, .logarithms = true})))
      .flex({2, 5});
  t.row("nll_loss weight", {scores, classes, weight}, FN(nll_loss(v[0], far(v[1]), v[2])))
      .ref(REF(class_loss(far_array(a), {.logarithms = true})))
      .flex({3});
}

}  // namespace tutti_test
