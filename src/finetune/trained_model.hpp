#pragma once
#include <array>
#include <optional>

#include "../forward/rotary.hpp"
#include "../latent/stored_layer.hpp"
#include "../train/block.hpp"
#include "../train/losses.hpp"
#include "../train/original_block.hpp"
#include "float_model.hpp"
#include "mha2mla/finetune.hpp"

namespace mha2mla {

/// Token ids of whole sequences, and what follows each of them; negative: not scored.
struct TrainingBatch {
    std::span<const TokenId> ids, next;
    std::int64_t scored = 0;                    // what losses are divided by
    std::span<const std::int64_t> begins = {};  // see KeptShape::begins
};

/// A whole model that gradients are computed of, original or converted. Attention in MLA form is trained as the linear
/// maps that it consists of, without what its layout puts around them (read_stored_layer()).
class TrainedModel {
public:
    /// @throws Error{unsupported} naming the layer if its queries go through a latent of their own.
    TrainedModel(const Model& source, TrainedPart part, std::int64_t seq_len, bool keep_activations);

    /// Adds to the gradients. @param teacher hidden states behind its last layer, and its head; null: none.
    /// @return losses before their shares: of next tokens, by the teacher's distributions, by its hidden states.
    std::array<double, 3> accumulate(const TrainingBatch& batch, const Teacher* teacher, const LossShares& shares);
    void clear_gradients();
    [[nodiscard]] std::vector<Parameter> parameters();
    /// The model with the weights as they are now, in the form of its checkpoint.
    [[nodiscard]] const Model& stored();

private:
    /// Attention in MLA form.
    struct Latent {
        StoredLayer stored;
        LatentGradient gradient;
    };
    struct Activations {
        OriginalActivations original;
        BlockActivations latent;
    };
    [[nodiscard]] BlockStates& states(std::int64_t layer);
    [[nodiscard]] SurroundingGradient around(const LayerView& view);
    [[nodiscard]] OriginalGradient gradient_of(const LayerView& view);
    void choose(TrainedPart part);
    void choose_latent(TrainedPart part, std::int64_t layer);
    void run(std::int64_t layer, std::span<const std::int64_t> begins);
    void go_back(std::int64_t layer, Matrix& d_hidden);
    void add_head_norms(const LayerView& view, const LatentLayer& layer);
    [[nodiscard]] LinearGradient gradient(const LinearView& view) {
        return {floats_.gradient(view.weight), floats_.gradient(view.bias)};
    }
    [[nodiscard]] NormGradient gradient(const NormView& view) {
        return {floats_.gradient(view.weight), floats_.gradient(view.bias)};
    }

    FloatModel floats_;
    std::int64_t seq_len_;
    RotaryTables rotary_;
    std::vector<std::optional<Latent>> latents_;  // by layer; nothing where the attention is the original's
    std::vector<Parameter> latent_parameters_;
    LatentGradient added_{{}, true};  // of one micro-batch
    bool keep_activations_;
    std::vector<Activations> activations_;  // of each layer, or one that is used again
    std::vector<Matrix> inputs_;            // of each layer, where activations are not kept
};

}  // namespace mha2mla
