#pragma once
#include <cstdint>
#include <vector>

#include "tiled.hpp"

namespace mha2mla {

template <typename Real>
struct LeadingEigen {
    std::vector<Real> values;  // [n], all of them, falling
    RowMajor<Real> vectors;    // [count, n], one in a row, of the largest values
};

/// Divide and conquer on a symmetric tridiagonal matrix (Cuppen 1981; Gu and Eisenstat 1995). LAPACK solves the pieces
/// and the secular equations; the merges are done here, because the last of them, which is most of the work, needs to
/// make the `count` wanted vectors only, and on all threads. The bits do not depend on their number.
///
/// Memory beside the result: about n² numbers.
///
/// @param d [n], the diagonal. @param e [n] beside it; the last is not used.
/// @throws Error{numeric} if LAPACK fails.
template <typename Real>
[[nodiscard]] LeadingEigen<Real> leading_tridiagonal_eigenvectors(std::vector<Real> d, std::vector<Real> e,
                                                                  std::int64_t count);

}  // namespace mha2mla
