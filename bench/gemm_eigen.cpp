// Eigen at its best: this file alone is compiled for the machine it is built on. Under a name of
// its own, so that no other file shares a symbol with it.
#include <cstdint>

#define EIGEN_DONT_PARALLELIZE
#define EIGEN_MPL2_ONLY
#define Eigen Eigen_native
#include <Eigen/Core>

namespace bench {

void eigen_products(std::int64_t members, std::int64_t m, std::int64_t n, std::int64_t k,
                    const float* a, bool a_turned, const float* b, bool b_turned, float* out) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Map = Eigen::Map<const Matrix>;
  using Row = Eigen::Map<const Eigen::RowVectorXf>;
  using Column = Eigen::Map<const Eigen::VectorXf>;
  for (std::int64_t i = 0; i < members; ++i, a += m * k, b += k * n, out += m * n) {
    // Vectors are told to be ones, or Eigen would take its slower general product.
    if (m == 1 && b_turned) {
      Eigen::Map<Eigen::VectorXf>(out, n).noalias() = Map(b, n, k) * Column(a, k);
    } else if (m == 1) {
      Eigen::Map<Eigen::RowVectorXf>(out, n).noalias() = Row(a, k) * Map(b, k, n);
    } else if (n == 1 && a_turned) {
      Eigen::Map<Eigen::VectorXf>(out, m).noalias() = Map(a, k, m).transpose() * Column(b, k);
    } else if (n == 1) {
      Eigen::Map<Eigen::VectorXf>(out, m).noalias() = Map(a, m, k) * Column(b, k);
    } else if (k == 1) {
      Eigen::Map<Matrix>(out, m, n).noalias() = Column(a, m) * Row(b, n);
    } else if (a_turned) {
      Eigen::Map<Matrix>(out, m, n).noalias() = Map(a, k, m).transpose() * Map(b, k, n);
    } else if (b_turned) {
      Eigen::Map<Matrix>(out, m, n).noalias() = Map(a, m, k) * Map(b, n, k).transpose();
    } else {
      Eigen::Map<Matrix>(out, m, n).noalias() = Map(a, m, k) * Map(b, k, n);
    }
  }
}

}  // namespace bench
