// The transpose of a matrix whose rows are contiguous.
#pragma once
#include <cstdint>

#include <tutti/core/kernels/isa.h>

namespace tutti::kernels {

/// to[j * to_row + i] = from[i * from_row + j] for i < rows, j < columns; strides in elements.
template <class T>
using Transpose = void (*)(T* to, std::int64_t to_row, const T* from, std::int64_t from_row,
                           std::int64_t rows, std::int64_t columns);

/// With vectors; T is an unsigned integer of 4 or 8 bytes. Null where the instruction set has none.
template <class T>
Transpose<T> transpose_highway(Isa isa);

}  // namespace tutti::kernels
