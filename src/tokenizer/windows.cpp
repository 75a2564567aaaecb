#include "mha2mla/windows.hpp"

#include <algorithm>

#include "mha2mla/error.hpp"

namespace mha2mla {

std::vector<TokenId> make_windows(const ModelConfig& config, std::span<const TokenId> ids,
                                  const WindowOptions& options) {
    if (options.context < 2) throw Error(ErrorCode::usage, "context must be at least 2 tokens");
    const std::int64_t fresh = options.context - (config.bos_token_id ? 1 : 0);
    std::int64_t windows = static_cast<std::int64_t>(ids.size()) / fresh;
    if (options.max_windows) windows = std::min(windows, *options.max_windows);
    if (windows < 1) {
        throw Error(ErrorCode::usage, "the text has " + std::to_string(ids.size()) +
                                          " tokens, fewer than one window of " + std::to_string(options.context) +
                                          "; give more text or a smaller context");
    }
    std::vector<TokenId> result;
    result.reserve(static_cast<std::size_t>(windows * options.context));
    for (std::int64_t w = 0; w < windows; ++w) {
        if (config.bos_token_id) result.push_back(static_cast<TokenId>(*config.bos_token_id));
        const auto part = ids.subspan(static_cast<std::size_t>(w * fresh), static_cast<std::size_t>(fresh));
        result.insert(result.end(), part.begin(), part.end());
    }
    return result;
}

}  // namespace mha2mla
