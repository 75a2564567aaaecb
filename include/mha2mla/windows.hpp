#pragma once
/// Windows of token ids: what calibration, alignment and evaluation read of a text.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "mha2mla/model.hpp"
#include "mha2mla/token_id.hpp"

namespace mha2mla {

struct WindowOptions {
    std::int64_t context = 0;                 // tokens of a window, BOS included
    std::optional<std::int64_t> max_windows;  // all where absent
};

/// Windows of `context` tokens, one after another: BOS (`bos_token_id`) followed by the next context-1 tokens, without
/// overlap, a last partial window dropped. Without a BOS in the configuration a window is `context` tokens.
/// @throws Error{usage} if there is not one whole window, or context < 2.
[[nodiscard]] std::vector<TokenId> make_windows(const ModelConfig& config, std::span<const TokenId> ids,
                                                const WindowOptions& options);

}  // namespace mha2mla
