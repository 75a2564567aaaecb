#include <algorithm>
#include <string>

#include "forward.hpp"
#include "head.hpp"
#include "layer.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kBlockTokens = 2048;

void will_need_layer(const Model& model, std::int64_t layer) {
    if (layer >= model.config.num_hidden_layers) return;
    for (const auto* tensor : tensors_of(model.layer(layer))) {
        model.checkpoint.will_need(*tensor);
    }
}

void done_with_layer(const Model& model, std::int64_t layer) {
    const LayerView& view = model.layer(layer);
    for (const auto& tensors : {tensors_of(view), expert_tensors_of(view)}) {
        for (const auto* tensor : tensors) model.checkpoint.done_with(*tensor);
    }
}

}  // namespace

void check_ids(const Model& model, std::span<const TokenId> ids) {
    for (std::size_t t = 0; t < ids.size(); ++t) {
        if (ids[t] < 0 || ids[t] >= model.config.vocab_size) {
            throw Error(ErrorCode::format, "token " + std::to_string(t) + " has id " + std::to_string(ids[t]) +
                                               ", but the model's vocab_size is " +
                                               std::to_string(model.config.vocab_size) +
                                               "; were the tokens made with another tokenizer?");
        }
    }
}

void embed(const Model& model, std::span<const TokenId> ids, Eigen::Map<Matrix> hidden) {
    const auto width = static_cast<std::uint64_t>(hidden.cols());
    for (std::size_t t = 0; t < ids.size(); ++t) {
        to_float(*model.embed_tokens, static_cast<std::uint64_t>(ids[t]) * width,
                 {hidden.row(static_cast<Eigen::Index>(t)).data(), width});
    }
    if (model.config.rules.embedding_scale != 1) hidden *= model.config.rules.embedding_scale;
}

std::int64_t block_tokens(std::int64_t seq_len) { return std::max<std::int64_t>(1, kBlockTokens / seq_len) * seq_len; }

void forward(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len, HiddenStates& hidden,
             Observer& observer, const ForwardOptions& options) {
    const auto tokens = static_cast<std::int64_t>(ids.size());
    if (seq_len < 1 || tokens % seq_len != 0) {
        throw Error(ErrorCode::usage,
                    std::to_string(tokens) + " tokens do not fill whole sequences of " + std::to_string(seq_len));
    }
    if (options.tap && model.config.latent) {
        throw Error(ErrorCode::usage, "queries and keys are only observed on an original checkpoint");
    }
    check_ids(model, ids);
    const RotaryTables rotary(model.config.rules, seq_len);
    const std::int64_t layers = model.config.num_hidden_layers;
    const std::int64_t block = block_tokens(seq_len);
    const std::int64_t blocks = (tokens + block - 1) / block;
    LayerWorkspace work;
    will_need_layer(model, 0);
    for (std::int64_t layer = 0; layer < layers; ++layer) {
        will_need_layer(model, layer + 1);
        for (std::int64_t first = 0; first < tokens; first += block) {
            observer.step(options.stage, layer * blocks + first / block, layers * blocks);
            const std::int64_t count = std::min(block, tokens - first);
            auto rows = layer == 0 ? hidden.fresh(first, count) : hidden.get(first, count);
            if (layer == 0) {
                embed(model, ids.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)), rows);
            }
            if (options.only_tap && layer + 1 == layers) {
                forward_to_tap(model, layer, rows, work, options.tap);
                continue;
            }
            forward_layer(model, layer, rotary[layer], seq_len, rows, work, options.tap);
            hidden.put(first, count);
        }
        done_with_layer(model, layer);
    }
    check_mapped_files();
    observer.step(options.stage, layers * blocks, layers * blocks);
}

Matrix prefill(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len, Observer& observer,
               const AttentionTap& tap) {
    HiddenStates hidden(static_cast<std::int64_t>(ids.size()), model.config.hidden_size);
    forward(model, ids, seq_len, hidden, observer, {.tap = tap});
    return hidden.take();
}

Matrix logits(const Model& model, Eigen::Ref<const Matrix> hidden) {
    Matrix normed, result;
    head(model.config.rules, head_of(model), hidden, normed, result);
    check_mapped_files();
    return result;
}

}  // namespace mha2mla
