#include <algorithm>

#include "layer.hpp"
#include "linear.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/runtime.hpp"

namespace mha2mla {
namespace {

/// Tokens of one block: enough for full BLAS speed, few enough to keep the workspace small.
constexpr std::int64_t kBlockTokens = 2048;

Matrix embed(const Model& model, std::span<const TokenId> ids) {
    const std::int64_t width = model.config.hidden_size;
    Matrix hidden(static_cast<Eigen::Index>(ids.size()), width);
    for (std::size_t t = 0; t < ids.size(); ++t) {
        if (ids[t] < 0 || ids[t] >= model.config.vocab_size) {
            throw Error(ErrorCode::format, "token " + std::to_string(t) + " has id " + std::to_string(ids[t]) +
                                               ", but the model's vocab_size is " +
                                               std::to_string(model.config.vocab_size) +
                                               "; were the tokens made with another tokenizer?");
        }
        to_float(*model.embed_tokens, static_cast<std::uint64_t>(ids[t]) * static_cast<std::uint64_t>(width),
                 {hidden.data() + static_cast<std::int64_t>(t) * width, static_cast<std::size_t>(width)});
    }
    return hidden;
}

}  // namespace

Matrix prefill(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len, Observer& observer,
               const AttentionTap& tap) {
    const auto tokens = static_cast<std::int64_t>(ids.size());
    if (seq_len < 1 || tokens % seq_len != 0) {
        throw Error(ErrorCode::usage,
                    std::to_string(tokens) + " tokens do not fill whole sequences of " + std::to_string(seq_len));
    }
    if (tap && model.config.latent) {
        throw Error(ErrorCode::usage, "queries and keys are only observed on an original checkpoint");
    }
    Matrix hidden = embed(model, ids);
    const RotaryTable rotary(model.config, seq_len);
    const std::int64_t block = std::max<std::int64_t>(1, kBlockTokens / seq_len) * seq_len;
    LayerWorkspace work;
    const std::int64_t steps = (tokens + block - 1) / block;
    for (std::int64_t layer = 0; layer < model.config.num_hidden_layers; ++layer) {
        for (std::int64_t first = 0; first < tokens; first += block) {
            observer.step("prefill", layer * steps + first / block, model.config.num_hidden_layers * steps);
            auto rows = hidden.middleRows(first, std::min(block, tokens - first));
            forward_layer(model, layer, rotary, seq_len, rows, work, tap);
        }
    }
    observer.step("prefill", model.config.num_hidden_layers * steps, model.config.num_hidden_layers * steps);
    return hidden;
}

Matrix logits(const Model& model, Eigen::Ref<const Matrix> hidden) {
    Matrix normed;
    rms_norm(*model.norm, model.config.rms_norm_eps, hidden, normed);
    Matrix result(hidden.rows(), model.config.vocab_size);
    linear({model.lm_head, nullptr}, hidden.rows(), normed.data(), result.data());
    return result;
}

}  // namespace mha2mla
