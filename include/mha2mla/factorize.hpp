#pragma once
/// Stage 5: low-rank factors of the NoPE key rows and the values (MHA2MLA, section 3.2).

#include <cstdint>
#include <string_view>

#include "mha2mla/latent.hpp"
#include "mha2mla/matrix.hpp"

namespace mha2mla {

/// Where the singular values go. The product is the same.
enum class SigmaPlacement : std::uint8_t {
    balanced,  ///< Σ^½ into both factors
    up,        ///< all into the up projection, as the reference implementation does
    down,      ///< all into the down projection
};

/// What the decomposition is computed in. The approximation error exceeds the optimal one, relatively, by
enum class SvdPrecision : std::uint8_t {
    f64,  ///< less than 1e-9, before the factors are rounded to float32
    f32,  ///< up to about 3e-4 on large matrices with outliers, in half the time and memory
};

struct SvdOptions {
    SigmaPlacement sigma = SigmaPlacement::balanced;
    SvdPrecision precision = SvdPrecision::f64;
};

/// A ≈ up · down with the smallest Frobenius error of its rank (Eckart-Young).
struct LowRank {
    Matrix up;                   // [rows of A, rank]
    Matrix down;                 // [rank, columns of A]
    double total_energy = 0;     // ‖A‖²
    double retained_energy = 0;  // ‖up·down‖²
};

/// Truncated SVD of A, not randomised, on the calling thread: the eigenvectors of the Gram matrix of A's smaller side
/// by tridiagonalisation and divide and conquer, of which only `rank` are transformed back, and one product for the
/// other factor. Each component's sign is fixed, so that the factors do not depend on the BLAS in use beyond rounding.
///
/// @param a [rows, columns], finite.
/// @throws Error{usage} if rank is not in [1, min(rows, columns)], Error{numeric} if A is not finite or LAPACK fails.
[[nodiscard]] LowRank truncated_svd(const Matrix& a, std::int64_t rank, const SvdOptions& options);

/// Projections of one layer from the hidden state to NoPE keys and values. An empty down means that the up
/// projection reads the hidden state itself.
struct KvFactors {
    Matrix down_k, down_v;                         // [rank, hidden]; joint: down_k is shared and down_v empty
    Matrix up_k;                                   // [num_kv_heads * (head_dim - rope_dim), rank of keys or hidden]
    Matrix up_v;                                   // [num_kv_heads * head_dim, rank of values or hidden]
    double total_energy = 0, retained_energy = 0;  // of what was factorised
};

/// @param k_nope [num_kv_heads * (head_dim - rope_dim), hidden], v [num_kv_heads * head_dim, hidden]
/// @param widths latent widths of the layer, see latent_widths().
/// @throws Error{usage} naming the largest possible rank, Error{numeric}.
[[nodiscard]] KvFactors factorize(Factorization factorization, const Matrix& k_nope, const Matrix& v,
                                  const LatentWidths& widths, const SvdOptions& options);

}  // namespace mha2mla
