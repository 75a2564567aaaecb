#pragma once
/// Decoding: the Transformer's forward pass over the newest tokens of some sequences, with a KV cache for the others.
///
/// An original checkpoint caches keys after RoPE and values. A converted one caches the rotated keys and the latent
/// (MHA2MLA, appendix B), and attends in the absorbed form
///     softmax((q_rope·k_rope + (W_ukᵀ q_nope)·c) / √head_dim) c, then W_uv, then W_o,
/// or, for many new tokens at once, in the expanded one, where keys and values are computed from the latent.

#include <memory>
#include <span>

#include "mha2mla/kv_cache.hpp"
#include "mha2mla/matrix.hpp"
#include "mha2mla/token_id.hpp"

namespace mha2mla {

/// Which form a converted checkpoint's attention takes. The results differ by rounding only.
enum class AttentionForm : std::uint8_t { cheaper, absorbed, expanded };

struct SessionOptions {
    KvCacheOptions cache;
    std::int64_t sequences = 1;
    std::int64_t capacity = 0;  // tokens of each sequence; memory for them is allocated at once
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

    /// Appends new tokens, any number to each of some sequences, which are worked on together. However many come at
    /// once, each token sees what it would see alone: with a quantised cache the newest `window` tokens in BF16 and
    /// all before them quantised.
    /// @return hidden states before the final norm, piece after piece, [new tokens, hidden]; see logits().
    /// @throws Error{usage} if a sequence outgrows its capacity or occurs twice, Error{format} for an id outside the
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
