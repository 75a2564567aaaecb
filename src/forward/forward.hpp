#pragma once
#include <span>
#include <string_view>

#include "hidden_states.hpp"
#include "mha2mla/runtime.hpp"

namespace mha2mla {

/// @throws Error{format} for an id outside the vocabulary.
void check_ids(const Model& model, std::span<const TokenId> ids);
/// @param hidden [ids.size(), hidden]
void embed(const Model& model, std::span<const TokenId> ids, Eigen::Map<Matrix> hidden);

/// Tokens of one block of whole sequences: enough for full BLAS speed, few enough to keep the workspace small.
[[nodiscard]] std::int64_t block_tokens(std::int64_t seq_len);

/// What forward() is for besides hidden states.
struct ForwardOptions {
    std::string_view stage = "prefill";  // for the observer
    AttentionTap tap;
    bool only_tap = false;  // the last layer ends at the tap, and `hidden` is of no use after it
};

/// Runs all sequences through one layer after the other. Weights are read ahead by one layer and let go of behind it.
/// @param ids as many as hidden.tokens(), in sequences of seq_len.
/// @throws as prefill() does, Error{io} from `hidden`.
void forward(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len, HiddenStates& hidden,
             Observer& observer, const ForwardOptions& options);

}  // namespace mha2mla
