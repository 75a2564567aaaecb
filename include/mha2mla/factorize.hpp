#pragma once
/// Stage 5: low-rank factors of the NoPE key rows and the values (MHA2MLA, section 3.2).

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "mha2mla/layout.hpp"
#include "mha2mla/matrix.hpp"
#include "mha2mla/table.hpp"

namespace mha2mla {

/// The factor that contains the singular values. The product does not depend on it.
enum class SigmaPlacement : std::uint8_t {
    balanced,  ///< Σ^½ in both factors
    up,        ///< Σ in the up projection, as in the reference implementation
    down,      ///< Σ in the down projection
};

struct SigmaPlacementRow {
    SigmaPlacement sigma;
    std::string_view name;
};
inline constexpr std::array<SigmaPlacementRow, 3> kSigmaPlacements = {
    {{SigmaPlacement::balanced, "balanced"}, {SigmaPlacement::up, "up"}, {SigmaPlacement::down, "down"}}};
static_assert(in_order(kSigmaPlacements, &SigmaPlacementRow::sigma));

/// The algorithm for the singular vectors. Each enumerator states the largest relative excess of the approximation
/// error over the optimal one.
enum class SvdMethod : std::uint8_t {
    standard,  ///< 1e-5: float32 if the spectrum allows it, otherwise double
    strict,    ///< 1e-9 before the factors are rounded to float32: double
    fast,      ///< a bound given by the caller: iterates until it is reached if the rank is small
};

struct SvdMethodRow {
    SvdMethod method;
    std::string_view name;
};
inline constexpr std::array<SvdMethodRow, 3> kSvdMethods = {
    {{SvdMethod::standard, "standard"}, {SvdMethod::strict, "strict"}, {SvdMethod::fast, "fast"}}};
static_assert(in_order(kSvdMethods, &SvdMethodRow::method));

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
/// in use beyond rounding, and the bits do not depend on the number of threads. docs/method.md describes the choice
/// of the algorithm and the prediction of the excess.
///
/// Memory besides A: at most svd_bytes(); half of it if float32 is sufficient.
///
/// @param a [rows, columns], finite.
/// @throws Error{usage} if rank is not in [1, min(rows, columns)], Error{numeric} if A is not finite or LAPACK fails.
[[nodiscard]] LowRank truncated_svd(const Eigen::Ref<const Matrix>& a, std::int64_t rank, const SvdOptions& options);

/// The memory of truncated_svd() besides the matrix and the result.
[[nodiscard]] std::uint64_t svd_bytes(std::uint64_t rows, std::uint64_t columns);

/// Projections of one layer from the hidden state to NoPE keys and values. An empty down means that the up
/// projection reads the hidden state itself.
struct KvFactors {
    Matrix down_k, down_v;                         // [rank, hidden]; joint: down_k is shared and down_v empty
    Matrix up_k;                                   // [num_kv_heads * (head_dim - rope_dim), rank of keys or hidden]
    Matrix up_v;                                   // [num_kv_heads * head_dim, rank of values or hidden]
    double total_energy = 0, retained_energy = 0;  // of the factorised matrices
};

/// E xᵀx over rows x, summed in double. [columns, columns]
[[nodiscard]] MatrixD second_moment(const Matrix& rows);
/// E x over rows x, summed in double. [columns]
[[nodiscard]] Eigen::VectorXd mean_of_rows(const Matrix& rows);

/// The error measure of `whitened`: the error on layer inputs x, whose second moment is C = E xᵀx, instead of the error
/// of the weights.
class Whitening {
public:
    /// The share of C's mean diagonal that is added to the diagonal, because C is singular if the text is short or does
    /// not use all dimensions.
    static constexpr double kRidge = 1e-4;

    /// Takes the Cholesky factor L of C + ridge, in place.
    /// @param moment C, [hidden, hidden], symmetric.
    /// @throws Error{numeric} if it is not finite or not a second moment (not positive definite with the ridge).
    explicit Whitening(MatrixD moment);

    [[nodiscard]] std::int64_t hidden() const { return root_.rows(); }
    /// A·L, so that its Frobenius norm is the root of E‖x·Aᵀ‖². [rows of A, hidden]
    [[nodiscard]] Matrix apply(const Matrix& a) const;
    /// B·L⁻¹. @param b [rows, hidden]
    [[nodiscard]] Matrix revert(const Matrix& b) const;

private:
    MatrixD root_;  // L, its upper triangle zero
    Matrix rounded_;
};

/// How `whitened` and `weighted` choose the weight of key errors relative to value errors.
struct KvBalance {
    enum class How : std::uint8_t {
        automatic,  ///< tries several values and keeps the one that changes the attention output least on the
                    ///< calibration text
        none,       ///< errors of keys and values have the same weight
        factor,     ///< a given value
    };
    How how = How::automatic;
    /// The root mean square of the weighted NoPE keys relative to that of the values on the text: 1 means equal energy;
    /// a larger value gives more weight to keys.
    double factor = 1;
};

/// Per-head error weights for `weighted`: the weight of an error e of a key or value is eᵀMe; each matrix is the lower
/// Cholesky factor of M of a KV head.
struct HeadWeights {
    std::vector<MatrixD> key;    // M: second moment of the group's NoPE queries, [head_dim - rope_dim, the same]
    std::vector<MatrixD> value;  // M: Σ W_oᵀW_o over the group's heads, [head_dim, head_dim]
};

struct ErrorWeighting {
    const Whitening* whitening = nullptr;
    double key_weight = 1;  // weight of errors of NoPE keys relative to errors of values
    const HeadWeights* heads = nullptr;
};

/// @param kv [num_kv_heads * (head_dim - rope_dim) + num_kv_heads * head_dim, hidden], the NoPE key rows above the
///           value rows.
/// @param nope_rows the number of key rows.
/// @param widths latent widths of the layer, see LatentShape::widths().
/// @param weighting of errors, required by `whitened` and `weighted`; its heads are used only by `weighted`.
/// @throws Error{usage} naming the largest possible rank if the rank is too large, or if a required weighting is
/// missing;
///         Error{numeric}.
[[nodiscard]] KvFactors factorize(Factorization factorization, const Matrix& kv, std::int64_t nope_rows,
                                  const LatentWidths& widths, const SvdOptions& options,
                                  const ErrorWeighting& weighting = {});

/// The key weight for which keys and values have the same mean square on the text: the ratio of their root mean
/// squares, or 1 if either is zero.
/// @param weighted_kv weigh_errors() or Whitening::apply() of the matrix of factorize().
[[nodiscard]] double equal_energy_weight(const Matrix& weighted_kv, std::int64_t nope_rows);

/// For an error A of the joint matrix, the matrix whose Frobenius norm is minimised: W·A·L, in which the diagonal of W
/// consists of key_weight and the transposed factors of `heads`. [rows of A, hidden]
[[nodiscard]] Matrix weigh_errors(const Matrix& kv, std::int64_t nope_rows, const ErrorWeighting& weighting);

}  // namespace mha2mla
