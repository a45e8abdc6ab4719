// The loops that ops_bench compares with: Eigen, built with every instruction this machine has, and
// the standard library. Pointers only, so that no type of Eigen's leaves its file.
#pragma once
#include <cstdint>
#include <string_view>

namespace eigen_loops {

/// y[i] = f(x[i]) or f(x[i], z[i]). Null if Eigen has no such function.
using Loop = void (*)(const float* x, const float* z, float* y, std::int64_t n);
Loop loop(std::string_view name);

/// Cross entropy of [rows, classes] logits, averaged: the loss, and its gradient in dz.
float cross_entropy(const float* logits, const std::int64_t* target, float* dz, std::int64_t rows,
                    std::int64_t classes);
/// Softmax of rows.
void softmax(const float* x, float* y, std::int64_t rows, std::int64_t columns);
/// y[c] = sum of column c, and y[r] = sum of row r.
void sum_columns(const float* x, float* y, std::int64_t rows, std::int64_t columns);
void sum_rows(const float* x, float* y, std::int64_t rows, std::int64_t columns);
/// One step of Adam.
void adam(float* p, const float* g, float* m, float* v, std::int64_t n);

}  // namespace eigen_loops
