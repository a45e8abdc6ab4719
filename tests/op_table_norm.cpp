// Rows of core/ops/norm.cpp.
#include "op_table.h"

namespace tutti_test {

using namespace tutti;

namespace {

struct Moments {
  double mean, var;  // biased
};
Moments moments(const Lines& v) {
  const double n = static_cast<double>(v.size()), mean = total(v) / n;
  Lines squares;
  for (double x : v) squares.push_back((x - mean) * (x - mean));
  return {mean, total(squares) / n};
}

// Layer norm of a[0] over its last `axes` axes, by a weight and a bias if `weight`, `bias` say
// where.
Array layer_normed(const Arrays& a, std::size_t axes, std::size_t weight, std::size_t bias,
                   double eps = 1e-5) {
  const Array& x = a[0];
  std::int64_t n = 1;
  for (std::size_t d = x.shape.size() - axes; d < x.shape.size(); ++d) n *= x.shape[d];
  Array y = x;
  for (std::size_t start = 0; start < x.data.size(); start += static_cast<std::size_t>(n)) {
    const auto first = x.data.begin() + static_cast<std::ptrdiff_t>(start);
    const Moments m = moments(Lines(first, first + n));
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      double z = (x.data[start + i] - m.mean) / std::sqrt(m.var + eps);
      if (weight) z *= a[weight].data[i];
      if (bias) z += a[bias].data[i];
      y.data[start + i] = z;
    }
  }
  return y;
}

Lines channel(const Array& x, std::int64_t c) {
  Lines v;
  each(x.shape, [&](const Index& i) {
    if (i[1] == c) v.push_back(x.at(i));
  });
  return v;
}

// Each channel by its mean and variance, then maybe weight and bias.
Array channels_normed(const Array& x, const Array& mean, const Array& var, const Array* weight,
                      const Array* bias, double eps = 1e-5) {
  return make(x.shape, [&](const Index& i) {
    const Index c{i[1]};
    const double z = (x.at(i) - mean.at(c)) / std::sqrt(var.at(c) + eps);
    return z * (weight ? weight->at(c) : 1) + (bias ? bias->at(c) : 0);
  });
}

Arrays trained(const Array& x, const Array* weight, const Array* bias, double eps = 1e-5) {
  Array mean{{x.shape[1]}, {}}, var = mean;
  for (std::int64_t c = 0; c < x.shape[1]; ++c) {
    const Moments m = moments(channel(x, c));
    mean.data.push_back(m.mean);
    var.data.push_back(m.var);
  }
  return {channels_normed(x, mean, var, weight, bias, eps), mean, var};
}

// The statistics of halves are float32.
Values in_own_dtype(const std::tuple<Tensor, Tensor, Tensor>& r) {
  const auto& [y, mean, var] = r;
  return {y, mean.to(y.dtype()), var.to(y.dtype())};
}

}  // namespace

void norm_rows(Table& t) {
  const In rows = real({3, 5}), five = real({5});
  t.row("layer_norm", {rows, five, five}, FN(layer_norm(v[0], v[0].size(-1), v[1], v[2])))
      .ref(REF(layer_normed(a, 1, 1, 2)))
      .large({{{70, 9}, {9}, {9}}, {{3, 1100}, {1100}, {1100}}})
      .loose(4);
  t.row("layer_norm plain", {real({2, 3, 4})}, FN(layer_norm(v[0], {3, 4}, {}, {}, 0.1)))
      .ref(REF(layer_normed(a, 2, 0, 0, 0.1)))
      .flex({2})
      .loose(4);
  t.row("layer_norm weight", {real({2, 3, 4}), real({3, 4})}, FN(layer_norm(v[0], {3, 4}, v[1])))
      .ref(REF(layer_normed(a, 2, 1, 0)))
      .flex({2})
      .loose(4);
  t.row("layer_norm bias", {real({2, 3, 4}), real({4})},
        FN(layer_norm(v[0], v[0].size(-1), {}, v[1])))
      .ref(REF(layer_normed(a, 1, 0, 1)))
      .loose(4);
  t.row("layer_norm of a vector", {five, five, five},
        FN(layer_norm(v[0], v[0].size(-1), v[1], v[2])))
      .ref(REF(layer_normed(a, 1, 1, 2)))
      .loose(4);

  const In three = real({3});
  t.row("batch_norm_train", {real({6, 3}), three, three},
        FN(in_own_dtype(batch_norm_train(v[0], v[1], v[2]))))
      .ref(REF(trained(a[0], &a[1], &a[2])))
      .large({{{70, 67}, {67}, {67}}, {{1100, 3}, {3}, {3}}})
      .loose(4);
  t.row("batch_norm_train plain", {real({4, 3, 5})},
        FN(in_own_dtype(batch_norm_train(v[0], {}, {}, 0.1))))
      .ref(REF(trained(a[0], nullptr, nullptr, 0.1)))
      .loose(4);
  t.row("batch_norm_train two more axes", {real({2, 3, 2, 2}), three, three},
        FN(in_own_dtype(batch_norm_train(v[0], v[1], v[2]))))
      .ref(REF(trained(a[0], &a[1], &a[2])))
      .large({{{3, 9, 5, 7}, {9}, {9}}})
      .loose(4);
  t.row("batch_norm_eval", {real({4, 3}), three, positive({3}), three, three},
        FN(batch_norm_eval(v[0], v[1], v[2], v[3], v[4])))
      .ref(REF(channels_normed(a[0], a[1], a[2], &a[3], &a[4])))
      .large({{{70, 67}, {67}, {67}, {67}, {67}}})
      .loose(4);
  t.row("batch_norm_eval plain", {real({4, 3, 5}), three, positive({3})},
        FN(batch_norm_eval(v[0], v[1], v[2], {}, {}, 0.1)))
      .ref(REF(channels_normed(a[0], a[1], a[2], nullptr, nullptr, 0.1)))
      .loose(4);
}

}  // namespace tutti_test
