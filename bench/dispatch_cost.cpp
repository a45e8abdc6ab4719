// What an op costs besides its kernel: adds one-element float32 tensors again and again, under a
// chain of transforms. scripts/dispatch_cost.sh counts the instructions.
// usage: dispatch_cost <kernel|eager|grad|vmap|jvp|grad,vmap|...> <adds>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <string>

#include <tutti/core/kernels/elementwise.h>
#include <tutti/tutti.h>

using namespace tutti;

namespace {

using Function = std::function<Tensor(const Tensor&)>;

/// Runs f under the transforms in `chain`, the first outermost, on a value of the chain's shape.
Tensor under(const std::string& chain, const Function& f, const Tensor& x) {
  const std::size_t comma = chain.find(',');
  const std::string first = chain.substr(0, comma);
  const std::string rest = comma == std::string::npos ? "" : chain.substr(comma + 1);
  const Function inner = [&](const Tensor& v) { return rest.empty() ? f(v) : under(rest, f, v); };
  if (first == "grad") return func::grad([&](const Tensor& v) { return inner(v).sum(); })(x);
  if (first == "vmap") return func::vmap(inner)(x.unsqueeze(0)).squeeze(0);
  if (first == "jvp") return func::jvp(inner, std::tuple(x), std::tuple(ones_like(x))).second;
  if (first != "eager") throw std::runtime_error("no such transform: " + first);
  return inner(x);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: dispatch_cost <kernel|eager|grad|vmap|jvp|grad,vmap|...> <adds>\n";
    return 2;
  }
  const long n = std::atol(argv[2]);
  const Tensor x = ones(1);
  if (std::string(argv[1]) == "kernel") {  // the kernel alone, on outputs that are there
    const Tensor in[] = {x, x}, out[] = {ones(1)};
    for (long i = 0; i < n; ++i) kernels::any_binary<scalar::Add>(in, out, Attrs::none());
    std::cout << out[0].item<float>() << "\n";
    return 0;
  }
  // Both operands are values of every level. Results are dropped at once, so that memory is reused.
  const Tensor y = under(
      argv[1],
      [&](const Tensor& v) {
        for (long i = 0; i < n; ++i) static_cast<void>(v + v);
        return v + v;
      },
      x);
  std::cout << y.item<float>() << "\n";
}
