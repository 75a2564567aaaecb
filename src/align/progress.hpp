#pragma once
#include <cstdint>
#include <deque>
#include <filesystem>
#include <vector>

#include "../latent/latent_layer.hpp"
#include "mha2mla/align.hpp"

namespace mha2mla {

/// How far an alignment got, and all that a later process needs to go on from there.
struct AlignProgress {
    struct OpenLayer {
        LatentLayer latent;
        Matrix behind_attention;  // the original's hidden states there, for the first tokens
    };
    Matrix converted;  // hidden states before `layer`, [tokens, hidden]
    Matrix original;   // those of the original, behind the open layers
    PairRanks ranks;
    std::vector<Split> tried;
    Split chosen;
    std::vector<std::vector<double>> frequencies;  // of a rotated key that all heads share: for all layers, or each
    std::int64_t layer = 0;                        // the next that is handed out
    std::deque<OpenLayer> open;                    // from `layer` on: aligned, but not handed out
    std::int64_t steps_done = 0;                   // of gradient descent

    [[nodiscard]] const std::vector<double>& frequencies_of(std::int64_t at) const {
        return frequencies[frequencies.size() == 1 ? 0 : static_cast<std::size_t>(at)];
    }
};

/// One safetensors file, flushed to disk before it gets its name. @throws Error{io}
void save_progress(const std::filesystem::path& path, const AlignProgress& progress);

/// @return false if there is no such file, or it is not whole, damaged or of another model.
[[nodiscard]] bool load_progress(const std::filesystem::path& path, const Model& model, std::int64_t seq_len,
                                 const LatentLayout& layout, AlignProgress& progress);

}  // namespace mha2mla
