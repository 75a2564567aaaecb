#pragma once
/// Singular values of what a factorisation approximates, so that a rank can be chosen before converting.

#include <cstdint>
#include <vector>

#include "mha2mla/latent.hpp"
#include "mha2mla/model.hpp"
#include "mha2mla/observer.hpp"
#include "mha2mla/singular_values.hpp"

namespace mha2mla {

/// The singular values of a matrix, and their energy σ².
struct Spectrum {
    std::int64_t rows = 0, columns = 0;
    std::vector<double> values;  // [min(rows, columns)], falling

    /// Σ of the `rank` largest σ²; of all if `rank` is larger.
    [[nodiscard]] double energy(std::int64_t rank) const;
    /// ‖A‖² = Σ σ²
    [[nodiscard]] double energy() const { return energy(static_cast<std::int64_t>(values.size())); }
};

/// Of one layer: what joint SVD factorises together, and what split SVD factorises apart (MHA2MLA, section 3.2).
struct LayerSpectra {
    Spectrum joint;     // [k_nope; v]: [num_kv_heads * (2 * head_dim - rope_dim), hidden]
    Spectrum key_nope;  // [num_kv_heads * (head_dim - rope_dim), hidden]
    Spectrum value;     // [num_kv_heads * head_dim, hidden]
};

/// The spectra of every layer, with the weights of one layer in memory at a time. One eigenvalue decomposition for
/// each layer and matrix, whose side is at most hidden_size.
///
/// @param selection whose pairs keep RoPE and so stay out of the matrices.
/// @throws Error{usage} for a converted checkpoint or a selection of another model, Error{numeric} naming a tensor
///         that is not finite, Error{interrupted}.
[[nodiscard]] std::vector<LayerSpectra> layer_spectra(const Model& model, const RopeSelection& selection,
                                                      Observer& observer);

/// The share of energy that a truncated SVD keeps of one layer.
struct RetainedEnergy {
    std::int64_t kv_rank = 0;       // d_kv
    std::int64_t latent_width = 0;  // R = num_kv_heads * d_kv
    double joint = 1;               // of rank R
    double split = 1;               // of rank R/2 each, of both matrices together
};

/// For d_kv = head_dim/16 (at least 1), in steps of that, to head_dim.
/// @param config of the model that the spectra are from.
[[nodiscard]] std::vector<RetainedEnergy> retained_energies(const ModelConfig& config, std::int64_t rope_dim,
                                                            const LayerSpectra& spectra);

}  // namespace mha2mla
