#pragma once
/// Stage 5: low-rank factors of the NoPE key rows and the values (MHA2MLA, section 3.2).

#include <array>
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

struct SigmaPlacementRow {
    SigmaPlacement sigma;
    std::string_view name;  // of --sigma
};
inline constexpr std::array<SigmaPlacementRow, 3> kSigmaPlacements = {
    {{SigmaPlacement::balanced, "balanced"}, {SigmaPlacement::up, "up"}, {SigmaPlacement::down, "down"}}};

/// How the singular vectors are found. The approximation error exceeds the optimal one, relatively, by
enum class SvdMethod : std::uint8_t {
    standard,  ///< at most 1e-5: float32 where the spectrum allows it, otherwise double
    strict,    ///< at most 1e-9, before the factors are rounded to float32: double throughout
    fast,      ///< at most a bound that the caller gives: iterates until it is met if the rank is small
};

struct SvdMethodRow {
    SvdMethod method;
    std::string_view name;  // of --svd-method
};
inline constexpr std::array<SvdMethodRow, 3> kSvdMethods = {
    {{SvdMethod::standard, "standard"}, {SvdMethod::strict, "strict"}, {SvdMethod::fast, "fast"}}};

struct SvdOptions {
    SigmaPlacement sigma = SigmaPlacement::balanced;
    SvdMethod method = SvdMethod::standard;
    double max_excess = 1e-3;  // of SvdMethod::fast
};

/// A ≈ up · down with the smallest Frobenius error of its rank (Eckart-Young).
struct LowRank {
    Matrix up;                   // [rows of A, rank]
    Matrix down;                 // [rank, columns of A]
    double total_energy = 0;     // ‖A‖²
    double retained_energy = 0;  // ‖up·down‖²
    double excess = 0;           // estimate of ‖A − up·down‖² / (the least possible) − 1
};

/// Truncated SVD of A by the eigenvectors of the Gram matrix of its smaller side, of which only `rank` are computed,
/// and one product for the other factor. Each component's sign is fixed, so that the factors do not depend on the BLAS
/// in use beyond rounding, and the bits do not depend on the number of threads. docs/method.md says which method runs
/// when, and how the excess is known.
///
/// Memory beside A: svd_bytes() at most; half of it where float32 will do.
///
/// @param a [rows, columns], finite.
/// @throws Error{usage} if rank is not in [1, min(rows, columns)], Error{numeric} if A is not finite or LAPACK fails.
[[nodiscard]] LowRank truncated_svd(const Eigen::Ref<const Matrix>& a, std::int64_t rank, const SvdOptions& options);

/// Memory that truncated_svd() may take beside the matrix and the result.
[[nodiscard]] std::uint64_t svd_bytes(std::uint64_t rows, std::uint64_t columns);

/// Projections of one layer from the hidden state to NoPE keys and values. An empty down means that the up
/// projection reads the hidden state itself.
struct KvFactors {
    Matrix down_k, down_v;                         // [rank, hidden]; joint: down_k is shared and down_v empty
    Matrix up_k;                                   // [num_kv_heads * (head_dim - rope_dim), rank of keys or hidden]
    Matrix up_v;                                   // [num_kv_heads * head_dim, rank of values or hidden]
    double total_energy = 0, retained_energy = 0;  // of what was factorised
};

/// How `whitened` measures errors: by what they do to layer inputs x, whose second moment is C = E xᵀx, instead of by
/// the weights alone.
class Whitening {
public:
    /// A share of C's mean diagonal that is added to the diagonal, so that C may be singular: a text that is too short,
    /// or dimensions that it never uses.
    static constexpr double kRidge = 1e-4;

    /// Takes the Cholesky factor L of C + ridge, in place.
    /// @param moment C, [hidden, hidden], symmetric.
    /// @throws Error{numeric} if it is not finite or no second moment.
    explicit Whitening(MatrixD moment);

    [[nodiscard]] std::int64_t hidden() const { return root_.rows(); }
    /// A·L, so that its Frobenius norm is the root of E‖x·Aᵀ‖². [rows of A, hidden]
    [[nodiscard]] Matrix apply(const Matrix& a) const;
    /// B·L⁻¹. @param b [rows, hidden]
    [[nodiscard]] Matrix revert(const Matrix& b) const;

private:
    MatrixD root_;  // L, its upper triangle zero
};

/// How the weight of keys against values is found for `whitened`.
struct KvBalance {
    enum class How : std::uint8_t {
        automatic,  ///< of several, the one with which the attention's output changes least on the calibration text
        none,       ///< errors of keys and values count alike
        factor,     ///< given
    };
    How how = How::automatic;
    /// Errors count as if NoPE keys had this many times the root mean square of the values on the text: 1 is equal
    /// energy, 2 counts keys more.
    double factor = 1;
};

struct ErrorWeighting {
    const Whitening* whitening = nullptr;
    double key_weight = 1;  // errors of NoPE keys count this many times as much as errors of values
};

/// @param kv [num_kv_heads * (head_dim - rope_dim) + num_kv_heads * head_dim, hidden], the NoPE key rows above the
///           value rows.
/// @param nope_rows how many of them are key rows.
/// @param widths latent widths of the layer, see latent_widths().
/// @param weighting of errors, which `whitened` needs and the others do not look at.
/// @throws Error{usage} naming the largest possible rank, or if there is no weighting where one is needed,
/// Error{numeric}.
[[nodiscard]] KvFactors factorize(Factorization factorization, const Matrix& kv, std::int64_t nope_rows,
                                  const LatentWidths& widths, const SvdOptions& options,
                                  const ErrorWeighting& weighting = {});

/// How much more errors of NoPE keys have to count than those of values for both to count as if keys and values had the
/// same mean square on the text: the ratio of the roots of these. 1 where either is zero.
/// @param whitened_kv Whitening::apply() of what factorize() is given.
[[nodiscard]] double equal_energy_weight(const Matrix& whitened_kv, std::int64_t nope_rows);

}  // namespace mha2mla
