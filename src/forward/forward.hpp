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

/// The number of tokens of a block of whole sequences: enough for the full speed of BLAS, with a small workspace.
[[nodiscard]] std::int64_t block_tokens(std::int64_t seq_len);

/// Options of forward().
struct ForwardOptions {
    std::string_view stage = "prefill";  // for the observer
    AttentionTap tap;
    bool only_tap = false;  // stop at the tap of the last layer; `hidden` is then undefined
};

/// Runs all sequences through one layer after the other. The weights of the next layer are read ahead, and those of
/// finished layers are released.
/// @param ids as many as hidden.tokens(), in sequences of seq_len.
/// @throws as prefill() does, Error{io} from `hidden`.
void forward(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len, HiddenStates& hidden,
             Observer& observer, const ForwardOptions& options);

}  // namespace mha2mla
