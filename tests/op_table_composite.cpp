// Composite rows: in-place chains, views and their bases, and transforms inside the function under
// test. Their references are the same formulas on plain numbers.
#include "op_table.h"

namespace tutti_test {

using namespace tutti;

namespace {
// A copy of x with f(old) where `there` holds.
Array changed(const Array& x, const std::function<bool(const Index&)>& there,
              const std::function<double(const Index&)>& value) {
  return make(x.shape, [&](const Index& i) { return there(i) ? value(i) : x.at(i); });
}
double sum_all(const Array& a, const std::function<double(double)>& f) {
  double s = 0;
  for (double x : a.data) s += f(x);
  return s;
}
Values grad_of(const std::function<Tensor(const Tensor&)>& f, const Tensor& x) {
  return {func::grad([&](const Tensor& w) { return f(w); })(x)};
}
Tensor tangent_of(const std::function<Tensor(const Tensor&)>& f, const Tensor& x, const Tensor& t) {
  return func::jvp([&](const Tensor& w) { return f(w); }, std::tuple<Tensor>(x),
                   std::tuple<Tensor>(t))
      .second;
}
}  // namespace

void composite_rows(Table& t) {
  const std::vector<In> three{real({3})}, four{real({4})}, two{real({3}), real({3})};
  const std::vector<In> m{real({2, 3})};
  const char* saved = "base autograd refuses it: a value kept for the derivative is overwritten";

  // ---- writing in place
  t.row("composite chain in place", two, BLOCK({
          Tensor x = v[0].clone();
          x.mul_(v[1]).add_(1).sin_().mul_(x);
          return x;
        }))
      .ref(MAP(std::sin(x * y + 1) * std::sin(x * y + 1)));
  t.row("composite operators in place", two, BLOCK({
          Tensor x = v[0].clone();
          x += v[1];
          x *= v[0];
          x -= 2;
          x /= 4;
          return x;
        }))
      .ref(MAP(((x + y) * x - 2) / 4));
  t.row("composite local accumulates", three, BLOCK({
          Tensor a = v[0] * v[0], sum = full({3}, 0.5, v[0].options());
          for (int i = 0; i < 3; ++i) sum.add_(sum * a);
          return sum;
        }))
      .ref(MAP(0.5 * std::pow(1 + x * x, 3)))
      .flex({})
      .skip("backward", saved)
      .loose(8);
  t.row("composite fill a local buffer", three, BLOCK({
          Tensor buffer = zeros({3}, v[0].options());
          for (int i = 0; i < 3; ++i) buffer[i].copy_(v[0][i] * v[0][(i + 1) % 3]);
          return buffer;
        }))
      .ref(REF(make({3}, [&](const Index& i) { return a[0].at(i) * a[0].at({(i[0] + 1) % 3}); })))
      .fixed();
  t.row("composite fill rows of a buffer", m, BLOCK({
          Tensor buffer = zeros({3, 2}, v[0].options());
          for (int i = 0; i < 3; ++i) buffer.select(0, i).copy_(v[0].select(1, i).exp());
          return buffer * buffer;
        }))
      .ref(REF(make({3, 2},
                    [&](const Index& i) {
                      return std::exp(2 * a[0].at({i[1], i[0]}));
                    })))
      .fixed()
      .loose(4);
  t.row("composite result used after the write", three, BLOCK({
          Tensor x = v[0] * 2, y = x * x;
          x.mul_(3);
          return Values{x, y};
        }))
      .ref(REF(
          Arrays{make(a[0].shape, [&](const Index& i) { return 6 * a[0].at(i); }),
                 make(a[0].shape, [&](const Index& i) { return 4 * a[0].at(i) * a[0].at(i); })}))
      .skip("backward", saved);
  t.row("composite copy_ shares nothing", two, BLOCK({
          Tensor x = v[0] * 1, y = v[1] * 1;
          x.copy_(y);
          y.mul_(v[0]);
          x.add_(1);
          return Values{x, y};
        }))
      .ref(REF(Arrays{make(a[0].shape, [&](const Index& i) { return a[1].at(i) + 1; }),
                      make(a[0].shape, [&](const Index& i) { return a[1].at(i) * a[0].at(i); })}));

  // ---- views
  t.row("composite write through a view", four, BLOCK({
          Tensor x = v[0] * v[0], w = x.slice(0, 1, 3);
          w.mul_(w.exp());
          return x * v[0];
        }))
      .ref(REF(make({4},
                    [&](const Index& i) {
                      const double x = a[0].at(i), y = x * x;
                      return x * (i[0] == 1 || i[0] == 2 ? y * std::exp(y) : y);
                    })))
      .fixed()
      .loose(8);
  t.row("composite old view sees new base", four, BLOCK({
          Tensor x = v[0] * v[0], w = x.slice(0, 1, 3);
          x.copy_((x * v[0]).sin());
          return w;
        }))
      .ref(REF(
          make({2}, [&](const Index& i) { return std::sin(std::pow(a[0].at({i[0] + 1}), 3)); })))
      .fixed()
      .skip("backward", saved)
      .loose(4);
  t.row("composite view of view", four, BLOCK({
          Tensor x = v[0].exp(), w = x.slice(0, 1, 4), z = w.slice(0, 1, 2);
          z.mul_(v[0].slice(0, 0, 1));
          return x * x + w.sum();
        }))
      .ref(REF(make({4},
                    [&](const Index& i) {
                      auto x = [&](std::int64_t k) {
                        return std::exp(a[0].at({k})) * (k == 2 ? a[0].at({0}) : 1);
                      };
                      return x(i[0]) * x(i[0]) + x(1) + x(2) + x(3);
                    })))
      .fixed()
      .skip("backward", saved)
      .loose(8);
  t.row("composite sibling views", four, BLOCK({
          Tensor x = v[0] * 1, left = x.slice(0, 0, 3), right = x.slice(0, 1, 4);
          left.mul_(2);
          right.mul_(right);
          return Values{left, right, x};
        }))
      .ref([](const Arrays& a) {
        Array x = make({4}, [&](const Index& i) {
          const double y = a[0].at(i) * (i[0] < 3 ? 2 : 1);
          return i[0] > 0 ? y * y : y;
        });
        return Arrays{sliced(x, 0, 0, 3), sliced(x, 0, 1, 3), x};
      })
      .fixed();
  t.row("composite transposed view", m, BLOCK({
          Tensor x = v[0] * 1;
          x.mT().select(0, 1).mul_(v[0].select(1, 0));
          return x;
        }))
      .ref(REF(changed(
          a[0], [](const Index& i) { return i[1] == 1; },
          [&](const Index& i) {
            return a[0].at(i) * a[0].at({i[0], 0});
          })))
      .fixed();
  t.row("composite reshaped view", m, BLOCK({
          Tensor x = v[0] * 1, flat = x.view({6});
          flat.slice(0, 0, 6, 2).sin_();
          return x * flat.view({2, 3});
        }))
      .ref(REF(make({2, 3},
                    [&](const Index& i) {
                      const double x = a[0].at(i), y = (3 * i[0] + i[1]) % 2 == 0 ? std::sin(x) : x;
                      return y * y;
                    })))
      .fixed()
      .loose(2);
  t.row("composite diagonal written", {real({3, 3}), real({3})}, BLOCK({
          Tensor x = v[0] * 1;
          x.diagonal().add_(v[1]);
          return x;
        }))
      .ref(REF(changed(
          a[0], [](const Index& i) { return i[0] == i[1]; },
          [&](const Index& i) { return a[0].at(i) + a[1].at({i[0]}); })));
  t.row("composite index written", {real({3, 4}), real({2})}, BLOCK({
          Tensor x = v[0] * 1;
          x.index({Slice(0, None, 2), 1}) += v[1];
          return x;
        }))
      .ref(REF(changed(
          a[0], [](const Index& i) { return i[0] != 1 && i[1] == 1; },
          [&](const Index& i) { return a[0].at(i) + a[1].at({i[0] / 2}); })))
      .fixed();
  t.row("composite view outlives its writes", four, BLOCK({
          Tensor w;
          {
            Tensor x = v[0] * 3;
            w = x.slice(0, 0, 2);
            x.add_(v[0]);
          }
          return w;
        }))
      .ref(REF(make({2}, [&](const Index& i) { return 4 * a[0].at(i); })))
      .fixed();

  // ---- transforms inside
  t.row("composite inner grad", three, BLOCK({
          const Tensor& x = v[0];
          return x * grad_of([&](const Tensor& w) { return (w.sin() * x).sum(); }, x)[0];
        }))
      .ref(MAP(x * x * std::cos(x)))
      .loose(4);
  t.row("composite inner grad of captured", two, BLOCK({
          const Tensor& x = v[0];
          return grad_of([&](const Tensor& w) { return (w * w * v[1]).sum() + x.sum(); }, x)[0] *
                 v[1];
        }))
      .ref(MAP(2 * x * y * y))
      .loose(4);
  t.row("composite second derivative", three, BLOCK({
          auto first = [](const Tensor& w) {
            return grad_of([](const Tensor& u) { return (u * u * u).sum(); }, w)[0];
          };
          return grad_of([&](const Tensor& w) { return first(w).sum(); }, v[0])[0];
        }))
      .ref(MAP(6 * x))
      .loose(4);
  t.row("composite inner jvp", three, BLOCK({
          return tangent_of([&](const Tensor& w) { return w.exp() * v[0]; }, v[0], v[0].sin());
        }))
      .ref(MAP(std::exp(x) * x * std::sin(x)))
      .loose(4);
  t.row("composite jvp of grad", three, BLOCK({
          auto first = [](const Tensor& w) {
            return grad_of([](const Tensor& u) { return (u.square() * u).sum(); }, w)[0];
          };
          return tangent_of(first, v[0], v[0]);
        }))
      .ref(MAP(6 * x * x))
      .loose(8);
  t.row("composite inner vmap", {real({2, 3, 2}), real({2, 2})},
        BLOCK({ return func::vmap([&](const Tensor& w) { return matmul(w, v[1]); }, 1)(v[0]); }))
      .ref(REF(matrix_product(permuted(a[0], {1, 0, 2}), a[1])))
      .loose(8);
  t.row("composite per-example gradient", {real({3, 2}), real({2})}, BLOCK({
          auto loss = [](const Tensor& w, const Tensor& x) { return (w * x).sum().square(); };
          return func::vmap(func::grad(loss), {std::nullopt, 0})(v[1], v[0]);
        }))
      .ref(REF(make(a[0].shape,
                    [&](const Index& i) {
                      double s = 0;
                      for (std::int64_t k = 0; k < a[0].shape[1]; ++k)
                        s += a[0].at({i[0], k}) * a[1].at({k});
                      return 2 * s * a[0].at(i);
                    })))
      .loose(8);
  t.row("composite inner vmap writes its argument", {real({3, 2}), real({2})}, BLOCK({
          Tensor x = v[0] * 1;
          Tensor y = func::vmap(
              [&](Tensor& w) {
                w.mul_(v[1]);
                return w.sum();
              },
              0)(x);
          return Values{x, y};
        }))
      .ref([](const Arrays& a) {
        Array x = make(a[0].shape, [&](const Index& i) { return a[0].at(i) * a[1].at({i[1]}); });
        return Arrays{x, reduced(x, {1}, false, total)};
      })
      .loose(4);
  t.row("composite inner vmap fills a local", {real({3, 2})}, BLOCK({
          return func::vmap(
              [](const Tensor& w) {
                Tensor buffer = zeros({3}, w.options());
                buffer.slice(0, 1, 3).copy_(w * w);
                return buffer;
              },
              -1, 1)(v[0].mT());
        }))
      .ref(REF(make({3, a[0].shape[0]},
                    [&](const Index& i) {
                      return i[0] == 0 ? 0 : a[0].at({i[1], i[0] - 1}) * a[0].at({i[1], i[0] - 1});
                    })))
      .flex({});
  t.row("composite inner vjp twice", three, BLOCK({
          auto [y, pull] = func::vjp([](const Tensor& w) { return w.sin(); }, v[0]);
          return Values{y, std::get<0>(pull(v[0])) + std::get<0>(pull(y))};
        }))
      .ref(REF(Arrays{make(a[0].shape, [&](const Index& i) { return std::sin(a[0].at(i)); }),
                      make(a[0].shape,
                           [&](const Index& i) {
                             const double x = a[0].at(i);
                             return std::cos(x) * (x + std::sin(x));
                           })}))
      .loose(4);
  t.row("composite detach inside grad", three, BLOCK({
          return grad_of([](const Tensor& w) { return (w.detach() * w).sum(); }, v[0])[0] * v[0];
        }))
      .ref(MAP(x * x))
      .skip("difference", "detach cuts the outer derivative, too");
  t.row("composite softmax loss", {real({2, 3}), unique_indices({2}, 2, 0)},
        BLOCK({ return -log_softmax(v[0], -1).gather(1, v[1].unsqueeze(1)).mean(); }))
      .ref([](const Arrays& a) {
        double loss = 0;
        for (std::int64_t r = 0; r < 2; ++r) {
          const Array row = selected(a[0], 0, r);
          loss += std::log(sum_all(row, [](double x) { return std::exp(x); })) -
                  row.at({static_cast<std::int64_t>(a[1].at({r}))});
        }
        return Arrays{{{}, {loss / 2}}};
      })
      .fixed()
      .loose(4);
  t.row("composite two layers", {real({2, 3}), real({4, 3}), real({4}), real({1, 4})},
        BLOCK({ return linear(linear(v[0], v[1], v[2]).tanh(), v[3]).squeeze(1); }))
      .ref(REF(make({a[0].shape[0]},
                    [&](const Index& i) {
                      double out = 0;
                      for (std::int64_t h = 0; h < a[1].shape[0]; ++h) {
                        double z = a[2].at({h});
                        for (std::int64_t k = 0; k < a[1].shape[1]; ++k)
                          z += a[0].at({i[0], k}) * a[1].at({h, k});
                        out += std::tanh(z) * a[3].at({0, h});
                      }
                      return out;
                    })))
      .flex({2, 3})
      .loose(8);
}

}  // namespace tutti_test
