// Decompositions by Eigen, one matrix after the other, the matrices of a stack in parallel.
//
// Every matrix is copied into memory of Eigen's own first, since its results depend on alignment.
// float32 is computed in double: one instantiation of each decomposition, which are large, and
// results that are rounded once. Eigen is compiled under a name of our own, see gemm.cpp.
#include <algorithm>
#include <cmath>
#include <limits>

#include <tutti/core/kernels/linalg.h>
#include <tutti/core/parallel.h>

#define EIGEN_DONT_PARALLELIZE
#define EIGEN_MPL2_ONLY
#define Eigen Eigen_tutti
#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <Eigen/LU>
#include <Eigen/QR>
#include <Eigen/SVD>

namespace tutti::kernels {
namespace {

using Matrix = Eigen::MatrixXd;  // column-major
using Cholesky = Eigen::LLT<Matrix>;
using Lu = Eigen::PartialPivLU<Matrix>;
using Svd = Eigen::BDCSVD<Matrix>;

/// Multiplications that are worth a thread.
constexpr std::int64_t kTaskWork = 1 << 15;

template <class T>
void load(const Matrices& from, std::int64_t at, Matrix& to) {
  const T* p = static_cast<const T*>(from.data) + at;
  for (std::int64_t j = 0; j < to.cols(); ++j)
    for (std::int64_t i = 0; i < to.rows(); ++i)
      to(i, j) = static_cast<double>(p[i * from.row + j * from.column]);
}

/// The operands and results of one matrix of the stack.
struct Item {
  const Factor& f;
  std::int64_t index, at_a, at_b;

  Matrix a() const { return read(f.a, at_a, f.m, f.n); }
  Matrix b() const { return read(f.b, at_b, f.n, f.k); }
  void write(int which, const Matrix& x) const {
    const std::int64_t at = index * x.size();
    if (f.dtype == kFloat64)
      store(static_cast<double*>(f.out[which]) + at, x);
    else
      store(static_cast<float*>(f.out[which]) + at, x);
  }
  void write(int which, double x) const { write(which, Matrix::Constant(1, 1, x)); }
  void fail(std::int64_t status) const { f.status[index] = status; }

 private:
  Matrix read(const Matrices& from, std::int64_t at, std::int64_t rows,
              std::int64_t columns) const {
    Matrix x(rows, columns);
    if (f.dtype == kFloat64)
      load<double>(from, at, x);
    else
      load<float>(from, at, x);
    return x;
  }
  template <class T>
  static void store(T* to, const Matrix& x) {
    for (std::int64_t i = 0; i < x.rows(); ++i)
      for (std::int64_t j = 0; j < x.cols(); ++j) *to++ = static_cast<T>(x(i, j));
  }
};

/// Calls body(item) for every matrix.
template <class Body>
void each_matrix(const Factor& f, const Body& body) {
  const std::int64_t work = 4 * f.m * f.n * (std::min(f.m, f.n) + f.k) + 100;
  parallel_for(numel_of(f.batch), kTaskWork / work + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t index = begin; index < end; ++index) {
      std::int64_t rest = index, at_a = 0, at_b = 0;
      for (std::size_t d = f.batch.size(); d-- > 0;) {
        const std::int64_t i = rest % f.batch[d];
        rest /= f.batch[d];
        at_a += i * f.a.batch[d];
        if (f.b.data) at_b += i * f.b.batch[d];
      }
      body(Item{f, index, at_a, at_b});
    }
  });
}

/// The place, from 1, of the first pivot that is zero; 0 if there is none.
std::int64_t zero_pivot(const Lu& lu) {
  const Matrix& m = lu.matrixLU();
  for (std::int64_t i = 0; i < m.rows(); ++i)
    if (m(i, i) == 0) return i + 1;
  return 0;
}

/// The order of the first leading minor that is not positive; Eigen does not say it.
std::int64_t bad_minor(const Matrix& a) {
  std::int64_t order = 1;
  while (order < a.rows() &&
         Cholesky(Matrix(a.topLeftCorner(order, order))).info() == Eigen::Success)
    ++order;
  return order;
}

}  // namespace

void cholesky(const Factor& f) {
  each_matrix(f, [](const Item& item) {
    const Matrix a = item.a();
    const Cholesky llt(a);
    if (llt.info() != Eigen::Success) return item.fail(bad_minor(a));
    item.write(0, llt.matrixL());
  });
}

void solve(const Factor& f) {
  each_matrix(f, [](const Item& item) {
    const Lu lu(item.a());
    if (const std::int64_t pivot = zero_pivot(lu)) return item.fail(pivot);
    item.write(0, lu.solve(item.b()));
  });
}

void triangular_solve(const Factor& f, bool upper, bool unit) {
  each_matrix(f, [=](const Item& item) {
    Matrix a = item.a(), b = item.b();
    if (unit) a.diagonal().setOnes();
    if (upper)
      a.triangularView<Eigen::Upper>().solveInPlace(b);
    else
      a.triangularView<Eigen::Lower>().solveInPlace(b);
    item.write(0, b);
  });
}

void inverse(const Factor& f) {
  each_matrix(f, [](const Item& item) {
    const Lu lu(item.a());
    if (const std::int64_t pivot = zero_pivot(lu)) return item.fail(pivot);
    item.write(0, lu.inverse());
  });
}

void determinant(const Factor& f) {
  each_matrix(f,
              [&](const Item& item) { item.write(0, f.n == 0 ? 1 : Lu(item.a()).determinant()); });
}

void log_determinant(const Factor& f) {
  each_matrix(f, [&](const Item& item) {
    double sign = 1, log = 0;
    if (f.n > 0) {
      const Lu lu(item.a());
      sign = static_cast<double>(lu.permutationP().determinant());
      for (std::int64_t i = 0; i < f.n; ++i) {
        const double d = lu.matrixLU()(i, i);
        sign *= d > 0 ? 1 : d < 0 ? -1 : d;  // 0 and NaN stay
        log += std::log(std::abs(d));
      }
    }
    item.write(0, sign);
    item.write(1, log);
  });
}

void cofactors(const Factor& f) {
  each_matrix(f, [&](const Item& item) {
    const Matrix a = item.a();
    const Lu lu(a);
    const double d = lu.determinant();
    if (std::isnormal(d) && lu.rcond() > 1e-4) return item.write(0, d * lu.inverse().transpose());
    if (!a.allFinite())
      return item.write(0, Matrix::Constant(f.n, f.n, std::numeric_limits<double>::quiet_NaN()));
    // N. Higham, "What is the adjugate of a matrix?" (2020): with a = U S V^T the cofactors are
    // det(U) det(V) U S' V^T, where s'_i is the product of all s_j but s_i.
    const Svd svd(a, Eigen::ComputeThinU | Eigen::ComputeThinV);
    Matrix u = svd.matrixU();
    for (std::int64_t i = 0; i < f.n; ++i)
      for (std::int64_t j = 0; j < f.n; ++j)
        if (j != i) u.col(i) *= svd.singularValues()(j);
    const double orientation = Lu(svd.matrixU()).determinant() * Lu(svd.matrixV()).determinant();
    item.write(0, (orientation < 0 ? -1.0 : 1.0) * u * svd.matrixV().transpose());
  });
}

void qr(const Factor& f) {
  each_matrix(f, [&](const Item& item) {
    const Eigen::HouseholderQR<Matrix> qr(item.a());
    Matrix q = Matrix::Identity(f.m, f.n);
    q.applyOnTheLeft(qr.householderQ());
    Matrix r = Matrix::Zero(f.n, f.n);
    r.triangularView<Eigen::Upper>() = qr.matrixQR().topRows(f.n);
    item.write(0, q);
    item.write(1, r);
  });
}

void eigh(const Factor& f) {
  each_matrix(f, [](const Item& item) {
    const Eigen::SelfAdjointEigenSolver<Matrix> eigen(item.a());
    if (eigen.info() != Eigen::Success || !eigen.eigenvalues().allFinite()) return item.fail(1);
    item.write(0, eigen.eigenvalues());
    item.write(1, eigen.eigenvectors());
  });
}

void svd(const Factor& f) {
  each_matrix(f, [](const Item& item) {
    const Matrix a = item.a();
    if (!a.allFinite()) return item.fail(1);
    const Svd svd(a, Eigen::ComputeThinU | Eigen::ComputeThinV);
    if (svd.info() != Eigen::Success) return item.fail(1);
    item.write(0, svd.matrixU());
    item.write(1, svd.singularValues());
    item.write(2, svd.matrixV());
  });
}

}  // namespace tutti::kernels
