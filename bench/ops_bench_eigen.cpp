// Eigen's loops for ops_bench; the only file built with -march=native, under a name of its own.
#define Eigen Eigen_native
#include "ops_bench_eigen.h"

#include <cmath>

#include <Eigen/Core>
#include <unsupported/Eigen/SpecialFunctions>

namespace eigen_loops {
namespace {

using Array = Eigen::Map<Eigen::ArrayXf>;
using ConstArray = Eigen::Map<const Eigen::ArrayXf>;
using Rows = Eigen::Map<Eigen::Array<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
using ConstRows =
    Eigen::Map<const Eigen::Array<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;

template <class F>
Loop made(F) {
  return [](const float* x, const float* z, float* y, std::int64_t n) {
    Array out(y, n);
    F()(ConstArray(x, n), ConstArray(z, n), out);
  };
}

}  // namespace

Loop loop(std::string_view name) {
  const auto is = [&](std::string_view s) { return name == s; };
#define LOOP(expression) made([](const auto& x, const auto&, auto& y) { y = expression; })
#define LOOP2(expression) made([](const auto& x, const auto& z, auto& y) { y = expression; })
  if (is("exp")) return LOOP(x.exp());
  if (is("expm1")) return LOOP(x.expm1());
  if (is("log")) return LOOP(x.log());
  if (is("log1p")) return LOOP(x.log1p());
  if (is("tanh")) return LOOP(x.tanh());
  if (is("sigmoid")) return LOOP(x.logistic());
  if (is("erf")) return LOOP(x.erf());
  if (is("sin")) return LOOP(x.sin());
  if (is("cos")) return LOOP(x.cos());
  if (is("gelu")) return LOOP(0.5f * x * (1 + (x * 0.70710678f).erf()));
  if (is("sqrt")) return LOOP(x.sqrt());
  if (is("rsqrt")) return LOOP(x.rsqrt());
  if (is("relu")) return LOOP(x.max(0.0f));
  if (is("add")) return LOOP2(x + z);
  if (is("mul")) return LOOP2(x * z);
  if (is("div")) return LOOP2(x / z);
  if (is("gt")) return LOOP((x > 0.5f).template cast<float>());
  if (is("where")) return LOOP2((x > z).select(x, z));
#undef LOOP
#undef LOOP2
  return nullptr;
}

float cross_entropy(const float* logits, const std::int64_t* target, float* dz, std::int64_t rows,
                    std::int64_t classes) {
  const ConstRows x(logits, rows, classes);
  Rows y(dz, rows, classes);
  float loss = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    const float m = x.row(r).maxCoeff();
    y.row(r) = (x.row(r) - m).exp();
    const float total = y.row(r).sum();
    loss += std::log(total) - (x(r, target[r]) - m);
    y.row(r) *= 1 / (total * static_cast<float>(rows));
    y(r, target[r]) -= 1 / static_cast<float>(rows);
  }
  return loss / static_cast<float>(rows);
}

void softmax(const float* x, float* y, std::int64_t rows, std::int64_t columns) {
  const ConstRows from(x, rows, columns);
  Rows to(y, rows, columns);
  for (std::int64_t r = 0; r < rows; ++r) {
    to.row(r) = (from.row(r) - from.row(r).maxCoeff()).exp();
    to.row(r) *= 1 / to.row(r).sum();
  }
}

void sum_columns(const float* x, float* y, std::int64_t rows, std::int64_t columns) {
  Array(y, columns) = ConstRows(x, rows, columns).colwise().sum();
}
void sum_rows(const float* x, float* y, std::int64_t rows, std::int64_t columns) {
  Array(y, rows) = ConstRows(x, rows, columns).rowwise().sum();
}

void adam(float* p, const float* g, float* m, float* v, std::int64_t n) {
  Array param(p, n), mean(m, n), square(v, n);
  const ConstArray grad(g, n);
  mean = 0.9f * mean + 0.1f * grad;
  square = 0.999f * square + 0.001f * grad.square();
  param -= 1e-3f * mean / (square.sqrt() * 1.1f + 1e-8f);
}

}  // namespace eigen_loops
