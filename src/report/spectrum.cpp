#include "mha2mla/spectrum.hpp"

#include <algorithm>
#include <array>

#include "../model/head_order.hpp"
#include "../support/parallel.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

LayerSpectra spectra_of(const Model& model, std::int64_t layer, const LayerPairs& pairs) {
    const AttentionView& view = model.layer(layer).original_attention();
    const LayerRows rows = layer_rows(model, layer, pairs);
    const Matrix joint = gather_kv(*view.k.weight, rows.key_nope, *view.v.weight);
    const auto nope = static_cast<Eigen::Index>(rows.key_nope.size());
    const std::array<Eigen::Ref<const Matrix>, 3> matrices = {joint, joint.topRows(nope),
                                                              joint.bottomRows(joint.rows() - nope)};
    std::array<Spectrum, 3> spectra;
    parallel_for(std::int64_t{spectra.size()}, [&](std::int64_t i, std::vector<float>&) {
        const auto& matrix = matrices[static_cast<std::size_t>(i)];
        spectra[static_cast<std::size_t>(i)] = {matrix.rows(), matrix.cols(), singular_values(matrix)};
    });
    return {std::move(spectra[0]), std::move(spectra[1]), std::move(spectra[2])};
}

double share(double part, double whole) { return whole > 0 ? part / whole : 1.0; }

}  // namespace

double Spectrum::energy(std::int64_t rank) const {
    double sum = 0;
    const auto count = std::min(values.size(), static_cast<std::size_t>(std::max<std::int64_t>(0, rank)));
    for (std::size_t i = count; i-- > 0;) sum += values[i] * values[i];  // smallest first, to limit rounding errors
    return sum;
}

std::vector<LayerSpectra> layer_spectra(const Model& model, const RopeSelection& selection, Observer& observer) {
    if (model.config.latent) {
        throw Error(ErrorCode::usage,
                    model.checkpoint.directory().string() +
                        ": already converted to MLA, so its key and value matrices are gone; give the "
                        "original checkpoint");
    }
    const std::int64_t layers = model.config.num_hidden_layers;
    if (selection.pairs.size() != static_cast<std::size_t>(layers)) {
        throw Error(ErrorCode::usage, "the selection has " + std::to_string(selection.pairs.size()) +
                                          " layers, but the checkpoint has " + std::to_string(layers));
    }
    std::vector<LayerSpectra> result;
    for (std::int64_t layer = 0; layer < layers; ++layer) {
        observer.step("singular values", layer, layers);
        result.push_back(spectra_of(model, layer, selection.pairs[static_cast<std::size_t>(layer)]));
    }
    return result;
}

std::vector<RetainedEnergy> retained_energies(const ModelConfig& config, std::int64_t rope_dim,
                                              const LayerSpectra& spectra) {
    const std::int64_t step = std::max<std::int64_t>(1, config.head_dim / 16);
    const double split_energy = spectra.key_nope.energy() + spectra.value.energy();
    std::vector<RetainedEnergy> result;
    for (std::int64_t kv_rank = step; kv_rank <= config.head_dim; kv_rank += step) {
        const auto widths = [&](Factorization factorization) {
            return config.latent_shape(rope_dim, kv_rank, factorization).widths();
        };
        const LatentWidths joint = widths(Factorization::joint);
        const LatentWidths split = widths(Factorization::split);
        result.push_back({kv_rank, joint.cached, share(spectra.joint.energy(joint.key), spectra.joint.energy()),
                          share(spectra.key_nope.energy(split.key) + spectra.value.energy(split.value), split_energy)});
    }
    return result;
}

}  // namespace mha2mla
