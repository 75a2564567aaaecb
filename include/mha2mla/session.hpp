#pragma once
/// Decoding: the Transformer's forward pass over new tokens of several sequences, with a KV cache for the preceding
/// tokens.
///
/// For an original checkpoint the cache holds keys after RoPE and values; for a converted one, the rotated keys and the
/// latent (MHA2MLA, appendix B), and attends in the absorbed form
///     softmax((q_rope·k_rope + (W_ukᵀ q_nope)·c) / √head_dim) c, then W_uv, then W_o,
/// or, for many new tokens, in the expanded form, in which keys and values are computed from the latent.

#include <memory>
#include <span>

#include "mha2mla/kv_cache.hpp"
#include "mha2mla/matrix.hpp"
#include "mha2mla/token_id.hpp"

namespace mha2mla {

/// The form of a converted checkpoint's attention. The results differ only by rounding.
enum class AttentionForm : std::uint8_t { cheaper, absorbed, expanded };

struct SessionOptions {
    KvCacheOptions cache;
    std::int64_t sequences = 1;
    std::int64_t capacity = 0;  // largest number of tokens per sequence; the memory is allocated by the constructor
    AttentionForm form = AttentionForm::cheaper;
};

/// New tokens of one sequence.
struct Piece {
    std::int64_t sequence = 0;
    std::span<const TokenId> ids;
};

class Session {
public:
    /// @param model must outlive the session.
    /// @throws Error{usage} for options out of range or if the cache does not fit available_memory().
    Session(const Model& model, const SessionOptions& options);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    Session(Session&&) = delete;
    Session& operator=(Session&&) = delete;

    /// Appends new tokens to several sequences, any number to each, and processes them together. The result does not
    /// depend on the number of tokens per call: with a quantised cache each token attends to the newest `window` tokens
    /// in BF16 and to all earlier ones in quantised form.
    /// @return hidden states before the final norm, in the order of the pieces, [new tokens, hidden]; see logits().
    /// @throws Error{usage} if a sequence exceeds its capacity or occurs twice, Error{format} for an id outside the
    ///         vocabulary, Error{numeric} if a number does not fit the cache's format.
    Matrix advance(std::span<const Piece> pieces);

    [[nodiscard]] std::int64_t length(std::int64_t sequence) const;
    /// Makes `to` a copy of `from`.
    void fork(std::int64_t from, std::int64_t to);
    void clear(std::int64_t sequence);
    [[nodiscard]] KvCacheSize cache_size() const;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace mha2mla
