#pragma once
/// Singular values of the matrices that a factorisation approximates, for choosing a rank before the conversion.

#include <cstdint>
#include <vector>

#include "mha2mla/layout.hpp"
#include "mha2mla/model.hpp"
#include "mha2mla/observer.hpp"
#include "mha2mla/singular_values.hpp"

namespace mha2mla {

/// The singular values of a matrix, and their energy σ².
struct Spectrum {
    std::int64_t rows = 0, columns = 0;
    std::vector<double> values;  // [min(rows, columns)], falling

    /// The sum of the `rank` largest σ², or of all if there are fewer.
    [[nodiscard]] double energy(std::int64_t rank) const;
    /// ‖A‖² = Σ σ²
    [[nodiscard]] double energy() const { return energy(static_cast<std::int64_t>(values.size())); }
};

/// The spectra of one layer: of the matrix that joint SVD factorises, and of the two that split SVD factorises
/// (MHA2MLA, section 3.2).
struct LayerSpectra {
    Spectrum joint;     // [k_nope; v]: [num_kv_heads * (2 * head_dim - rope_dim), hidden]
    Spectrum key_nope;  // [num_kv_heads * (head_dim - rope_dim), hidden]
    Spectrum value;     // [num_kv_heads * head_dim, hidden]
};

/// Computes the spectra of every layer, with the weights of one layer in memory at a time, by one eigenvalue
/// decomposition per layer and matrix, of order at most hidden_size.
///
/// @param selection the pairs that keep RoPE; their rows are not part of the matrices.
/// @throws Error{usage} for a converted checkpoint or for a selection of another model, Error{numeric} naming a tensor
///         that is not finite, Error{interrupted}.
[[nodiscard]] std::vector<LayerSpectra> layer_spectra(const Model& model, const RopeSelection& selection,
                                                      Observer& observer);

/// The share of energy that a truncated SVD of one layer retains.
struct RetainedEnergy {
    std::int64_t kv_rank = 0;       // d_kv
    std::int64_t latent_width = 0;  // R = num_kv_heads * d_kv
    double joint = 1;               // by joint SVD of rank R
    double split = 1;               // by split SVD of rank R/2 each, over both matrices
};

/// The retained energies for d_kv from head_dim/16 (at least 1), in steps of the same size, to head_dim.
/// @param config the configuration of the model that the spectra belong to.
[[nodiscard]] std::vector<RetainedEnergy> retained_energies(const ModelConfig& config, std::int64_t rope_dim,
                                                            const LayerSpectra& spectra);

}  // namespace mha2mla
