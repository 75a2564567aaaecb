#pragma once
#include <cstdint>
#include <vector>

namespace mha2mla {

/// A symmetric tridiagonal matrix and the reflectors that led to it.
template <typename Real>
struct Tridiagonal {
    std::vector<Real> d;    // [n], the diagonal
    std::vector<Real> e;    // [n], beside it; the last is not used
    std::vector<Real> tau;  // [n], of the reflectors; 0 stands for the identity
};

/// Householder reduction by panels (Dongarra, Hammarling and Sorensen 1989). The threads of a team stay together for
/// the whole reduction; what each of them adds up does not depend on their number.
///
/// @param matrix [n, n] row-major, of which the upper triangle is read. On return row j holds reflector j: its entries
///               from column j + 1 on, of which the first is 1.
template <typename Real>
[[nodiscard]] Tridiagonal<Real> tridiagonalise(std::vector<Real>& matrix, std::int64_t n);

}  // namespace mha2mla
