#pragma once
#include "absorbed.hpp"
#include "cached_attention.hpp"
#include "head_norms.hpp"
#include "layer.hpp"
#include "mha2mla/session.hpp"

namespace mha2mla {

/// New tokens of one sequence in the batch that goes through the layers.
struct Run {
    std::int64_t sequence = 0;
    std::int64_t first = 0, count = 0;  // rows of the batch
    std::int64_t position = 0;          // of the first
};

/// What a layer makes of new tokens before they attend.
struct NewRows {
    NewRows(std::int64_t tokens, const CacheLayout& layout)
        : rows(tokens, layout.width), queries(layout.segments.size()) {}

    Matrix rows;                  // to be cached, [tokens, layout.width]
    std::vector<Matrix> queries;  // by segment of the layout, [tokens, num_heads * dim]; empty: values alone
    Matrix nope_queries;          // [tokens, num_heads * nope_dim], for the expanded form
};

struct Session::Impl {
    Impl(const Model& model_of_session, const SessionOptions& session_options);

    LayerCache& cache(std::int64_t sequence, std::int64_t layer) {
        return caches[static_cast<std::size_t>(sequence * config.num_hidden_layers + layer)];
    }
    [[nodiscard]] const LayerCache& first_cache(std::int64_t sequence) const {
        return caches[static_cast<std::size_t>(sequence * config.num_hidden_layers)];
    }

    /// @param heads of the rows of the batch. @param pairs as for rotate_heads().
    void rotate(std::int64_t layer, std::span<const Run> runs, const HeadColumns& heads,
                std::span<const std::vector<std::int64_t>> pairs = {}) const;
    /// Of work.normed.
    [[nodiscard]] NewRows new_rows(std::int64_t layer, std::span<const Run> runs);
    [[nodiscard]] NewRows original_rows(const AttentionView& view, std::int64_t layer, std::span<const Run> runs);
    /// Norms work.k_rope, before it is rotated. @return the scales of the keys of the new tokens.
    [[nodiscard]] Matrix norm_keys(const LatentAttentionView& view, const HeadNorms& norms);
    /// Multiplies queries by the weights that keys would be multiplied by. @param nope_queries [tokens, heads *
    /// nope_dim]
    void weigh_queries(const HeadNorm& keys, Matrix& nope_queries) const;
    /// @param keys that do not rotate, [tokens, up_heads * nope_dim]
    void scale_keys(const Matrix& scales, Eigen::Ref<Matrix> keys) const;
    [[nodiscard]] NewRows latent_rows(const LatentAttentionView& view, std::int64_t layer, std::span<const Run> runs);
    /// Appends the rows to the caches. @param to [tokens, num_heads * head_dim]
    void attend(std::int64_t layer, std::span<const Run> runs, const NewRows& added, Matrix& to);
    /// @param to of the run's first token
    void attend_expanded(std::int64_t layer, const LayerCache& cache, const Run& run, const NewRows& added,
                         float* to) const;
    [[nodiscard]] bool expand(const Run& run) const;
    [[nodiscard]] UpRows up_keys() const;
    [[nodiscard]] UpRows up_values() const;
    void through_layers(std::span<const Run> runs, Matrix& hidden);

    const Model& model;
    const ModelConfig& config;
    SessionOptions options;
    CacheLayout layout, expanded;
    LatentShape latent;  // of a converted checkpoint
    LatentRows latent_heads;
    RotaryTables rotary;
    std::vector<LayerCache> caches;  // [sequences, layers]
    LayerWorkspace work;
};

}  // namespace mha2mla
