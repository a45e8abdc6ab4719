// gradcheck: backward against central differences in random directions.
#include <cmath>

#include <tutti/autograd/autograd.h>

namespace tutti::autograd {

bool gradcheck(const std::function<Tensor(const std::vector<Tensor>&)>& f,
               std::vector<Tensor> inputs, double eps, double atol, double rtol) {
  std::vector<Tensor> leaves, directions;
  Generator gen(2024);
  for (const Tensor& x : inputs) {
    check<TypeError>(x.dtype() == kFloat64, "gradcheck", "expected float64 inputs, got ", x.dtype(),
                     "; convert with to(kFloat64)");
    leaves.push_back(x.detach().clone().requires_grad_());
    directions.push_back(randn(x.sizes(), kFloat64, gen));
  }
  Tensor y = f(leaves);
  Tensor seed = randn(y.sizes(), kFloat64, gen);
  std::vector<Tensor> grads = grad({y}, leaves, {seed}, std::nullopt, false, true);
  double analytic = 0;
  for (std::size_t i = 0; i < leaves.size(); ++i)
    if (grads[i].defined()) analytic += (grads[i] * directions[i]).sum().item<double>();
  auto at = [&](double h) {
    std::vector<Tensor> moved;
    for (std::size_t i = 0; i < inputs.size(); ++i)
      moved.push_back((inputs[i].detach() + directions[i] * h).requires_grad_());
    return (f(moved).detach() * seed).sum().item<double>();
  };
  double numeric = (at(eps) - at(-eps)) / (2 * eps);
  check<AutogradError>(std::abs(analytic - numeric) <= atol + rtol * std::abs(numeric), "gradcheck",
                       "backward gives ", analytic, " along a random direction, differences give ",
                       numeric);
  return true;
}

bool gradgradcheck(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                   std::vector<Tensor> inputs, double eps, double atol, double rtol) {
  auto first = [&](const std::vector<Tensor>& xs) {
    Tensor y = f(xs);
    std::vector<Tensor> g = grad({(y * y).sum()}, xs, {}, std::nullopt, true, true);
    Tensor total = zeros({}, kFloat64);
    for (std::size_t i = 0; i < g.size(); ++i)
      if (g[i].defined()) total = total + (g[i] * g[i]).sum();
    return total;
  };
  return gradcheck(first, std::move(inputs), eps, atol, rtol);
}

}  // namespace tutti::autograd
