#pragma once
/// Windows of token ids, the unit in which calibration, alignment and evaluation process a text.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "mha2mla/model.hpp"
#include "mha2mla/token_id.hpp"

namespace mha2mla {

struct WindowOptions {
    std::int64_t context = 0;                 // tokens per window, including BOS
    std::optional<std::int64_t> max_windows;  // if absent: no limit
};

/// Cuts a text into consecutive windows of `context` tokens: BOS (`bos_token_id`) followed by the next context-1
/// tokens, without overlap. A partial window at the end is dropped. Without a BOS in the configuration a window is
/// `context` tokens of the text.
/// @throws Error{usage} if the text is shorter than one window, or context < 2.
[[nodiscard]] std::vector<TokenId> make_windows(const ModelConfig& config, std::span<const TokenId> ids,
                                                const WindowOptions& options);

}  // namespace mha2mla
