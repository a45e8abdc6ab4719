// Libraries that gates_gemm compares our batched products with: Eigen, compiled for this machine,
// and those of OpenBLAS, oneDNN and LIBXSMM that were found when the build was configured.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include <tutti/core/kernels/gemm.h>

namespace bench {

/// Computes a float32 product with one batch axis and one operand or none turned, on one thread.
struct Rival {
  std::string name;
  /// A function that computes the product into `out`; empty if the library cannot. What depends on
  /// the form only is done beforehand.
  std::function<std::function<void()>(const tutti::kernels::Gemm&, float* out)> prepare;
};

std::vector<Rival> rivals();

/// Eigen's row-major products: a is [m, k] or, if turned, stored as [k, m]; b likewise.
void eigen_products(std::int64_t members, std::int64_t m, std::int64_t n, std::int64_t k,
                    const float* a, bool a_turned, const float* b, bool b_turned, float* out);

}  // namespace bench
