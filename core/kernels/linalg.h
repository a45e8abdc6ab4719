// Decompositions and solvers for stacks of small and medium matrices. Eigen does the work; nothing
// of it shows here.
#pragma once
#include <cstdint>

#include <tutti/core/kernels/gemm.h>

namespace tutti::kernels {

/// What the functions below work on. Operands may have any strides, results are dense and
/// row-major. float32 is computed in double. Each matrix is computed by one thread, so results are
/// bitwise the same for any number of threads. Nothing throws: what went wrong with a matrix stands
/// in its `status`, and its results are then unspecified.
struct Factor {
  DType dtype = kFloat32;     // float32 or float64
  std::int64_t m = 0, n = 0;  // a is [m, n]; where it must be square, m = n
  std::int64_t k = 0;         // columns of b
  Shape batch;                // sizes of the batch axes
  Matrices a, b;
  void* out[3] = {};
  std::int64_t* status = nullptr;  // one per matrix, zeroed by the caller
};

/// out[0] = L, lower triangular with L L^T = a; reads a's lower triangle. Status: the order of the
/// first leading minor that is not positive.
void cholesky(const Factor& f);
/// out[0] = x [n, k] with a x = b. Status: the place, from 1, of a pivot that is zero.
void solve(const Factor& f);
/// The same for a triangular a, of which the other triangle (and, if `unit`, the diagonal, taken as
/// ones) is not read. Zeros on the diagonal give infinities and NaN. No status.
void triangular_solve(const Factor& f, bool upper, bool unit);
/// out[0] = the inverse of a. Status as of solve().
void inverse(const Factor& f);
/// out[0] = determinants, one number per matrix. No status.
void determinant(const Factor& f);
/// out[0] = sign of the determinant, out[1] = log of its absolute value. No status.
void log_determinant(const Factor& f);
/// out[0] = the cofactors of a, the derivative of its determinant; right for singular a as well. No
/// status.
void cofactors(const Factor& f);
/// out[0] = Q [m, n] with orthonormal columns, out[1] = R [n, n] upper triangular, Q R = a; m >= n.
/// No status.
void qr(const Factor& f);
/// out[0] = eigenvalues [n], ascending, out[1] = eigenvectors as columns; reads a's lower triangle.
/// Status: 1 if the iteration failed, as it does for values that are not finite.
void eigh(const Factor& f);
/// out[0] = U [m, r], out[1] = singular values [r], descending, out[2] = V [n, r], where
/// r = min(m, n) and U diag(S) V^T = a. Status as of eigh().
void svd(const Factor& f);

}  // namespace tutti::kernels
