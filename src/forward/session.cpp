#include "mha2mla/session.hpp"

#include <algorithm>
#include <string>

#include "../support/parallel.hpp"
#include "absorbed.hpp"
#include "cached_attention.hpp"
#include "forward.hpp"
#include "layer.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/memory.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kBlockTokens = 512;     // of one sequence that go through the layers together
constexpr std::int64_t kExpandedChunk = 1024;  // tokens whose keys and values are computed at a time

std::size_t size_of(std::int64_t count) { return static_cast<std::size_t>(count); }

/// New tokens of one sequence in the batch that goes through the layers.
struct Run {
    std::int64_t sequence = 0;
    std::int64_t first = 0, count = 0;  // rows of the batch
    std::int64_t position = 0;          // of the first
};

}  // namespace

struct Session::Impl {
    Impl(const Model& model_of_session, const SessionOptions& session_options)
        : model(model_of_session),
          config(model_of_session.config),
          options(session_options),
          layout(cache_layout(config, session_options.cache.group_size)),
          rotary(config.rules, session_options.capacity) {
        if (config.latent) expanded = expanded_layout(config);
        for (std::int64_t i = 0; i < options.sequences * config.num_hidden_layers; ++i) {
            caches.emplace_back(layout, options.cache, options.capacity);
        }
    }

    LayerCache& cache(std::int64_t sequence, std::int64_t layer) {
        return caches[size_of(sequence * config.num_hidden_layers + layer)];
    }
    [[nodiscard]] const LayerCache& first_cache(std::int64_t sequence) const {
        return caches[size_of(sequence * config.num_hidden_layers)];
    }

    void rotate(std::int64_t layer, std::span<const Run> runs, std::int64_t heads, std::int64_t dim, Matrix& x,
                const LayerPairs* pairs) const;
    /// Fill `rows` with what the layer caches of the new tokens, and `queries`.
    void original_rows(const AttentionView& view, std::int64_t layer, std::span<const Run> runs);
    void latent_rows(const LatentAttentionView& view, std::int64_t layer, std::span<const Run> runs);
    void attend(std::int64_t layer, std::span<const Run> runs);
    void attend_expanded(const LatentAttentionView& view, std::int64_t layer, const LayerCache& cache, const Run& run);
    [[nodiscard]] bool expand(const Run& run) const;
    void through_layers(std::span<const Run> runs, Matrix& hidden);

    const Model& model;
    const ModelConfig& config;
    SessionOptions options;
    CacheLayout layout, expanded;
    RotaryTables rotary;
    std::vector<LayerCache> caches;  // [sequences, layers]
    LayerWorkspace work;
    Matrix rows;                  // [tokens, layout.width]
    std::vector<Matrix> queries;  // by segment of the layout, [tokens, num_heads * dim]
    Matrix nope_queries;          // [tokens, num_heads * nope_dim], for the expanded form
    Matrix latent_out;            // [tokens, num_heads * value_dim]
};

void Session::Impl::rotate(std::int64_t layer, std::span<const Run> runs, std::int64_t heads, std::int64_t dim,
                           Matrix& x, const LayerPairs* pairs) const {
    if (dim == 0) return;
    const RotaryTable& table = rotary[layer];
    const std::int64_t heads_of_pairs = pairs == nullptr ? 1 : static_cast<std::int64_t>(pairs->size());
    for (const Run& run : runs) {
        parallel_for((run.count + 63) / 64, [&](std::int64_t block, std::vector<float>&) {
            for (std::int64_t i = block * 64; i < std::min(run.count, (block + 1) * 64); ++i) {
                for (std::int64_t head = 0; head < heads; ++head) {
                    std::span<const std::int64_t> kept;
                    if (pairs != nullptr) kept = (*pairs)[size_of(head * heads_of_pairs / heads)];
                    table.rotate(x.row(run.first + i).data() + head * dim, run.position + i, kept);
                }
            }
        });
    }
}

void Session::Impl::original_rows(const AttentionView& view, std::int64_t layer, std::span<const Run> runs) {
    const std::int64_t width = config.num_key_value_heads * config.head_dim;
    project_queries_and_keys(view, work.normed, work.q, work.k);
    project(view.v, work.normed, work.v);
    rotate(layer, runs, config.num_attention_heads, config.head_dim, work.q, nullptr);
    rotate(layer, runs, config.num_key_value_heads, config.head_dim, work.k, nullptr);
    rows.leftCols(width) = work.k;
    rows.rightCols(width) = work.v;
    queries[0] = work.q * model.rules(layer).attention.scale;
}

void Session::Impl::latent_rows(const LatentAttentionView& view, std::int64_t layer, std::span<const Run> runs) {
    const LatentConfig& latent = *config.latent;
    const std::int64_t heads = config.num_attention_heads;
    const std::int64_t kv_heads = config.num_key_value_heads;
    const std::int64_t rope_dim = latent.rope.rope_dim;
    const auto& pairs = latent.rope.pairs[size_of(layer)];
    project(view.q, work.normed, work.q);
    work.q *= model.rules(layer).attention.scale;
    rotate(layer, runs, heads, rope_dim, work.q, &pairs);
    std::int64_t column = 0;
    std::size_t segment = 0;
    if (rope_dim > 0) {
        project(view.k_rope, work.normed, work.k_rope);
        rotate(layer, runs, kv_heads, rope_dim, work.k_rope, &pairs);
        rows.leftCols(work.k_rope.cols()) = work.k_rope;
        column = work.k_rope.cols();
        queries[segment++] = work.q.leftCols(heads * rope_dim);
    }
    const auto cache_columns = [&](const LinearView& map) {
        project(map, work.normed, work.latent);
        rows.middleCols(column, work.latent.cols()) = work.latent;
        column += work.latent.cols();
    };
    nope_queries = work.q.rightCols(work.q.cols() - heads * rope_dim);
    if (nope_queries.cols() > 0) {
        cache_columns(view.down_k.weight != nullptr ? view.down_k : view.up_k);
        if (view.down_k.weight != nullptr) {
            queries[segment].resize(rows.rows(), heads * view.up_k.in_features());
            absorb_queries(view.up_k, kv_heads, rows.rows(), {nope_queries.data(), nope_queries.cols()},
                           config.group_size(), queries[segment].data());
        } else {
            queries[segment] = nope_queries;
        }
    }
    const bool cached = shares_latent(latent.factorization) && nope_queries.cols() > 0;
    if (!cached) cache_columns(view.down_v.weight != nullptr ? view.down_v : view.up_v);
}

/// The expanded form costs one product of each cached token with W_uk and W_uv, and saves for each query and head the
/// difference in width between latents and heads. Both run at about the same rate.
bool Session::Impl::expand(const Run& run) const {
    if (!config.latent || options.form == AttentionForm::absorbed) return false;
    if (options.form == AttentionForm::expanded) return true;
    const LatentConfig& latent = *config.latent;
    const std::int64_t nope_dim = config.head_dim - latent.rope.rope_dim;
    const LatentWidths widths = config.latent_shape().widths();
    const std::int64_t once = config.num_key_value_heads * (widths.key * nope_dim + widths.value * config.head_dim);
    const std::int64_t saved = config.num_attention_heads * ((widths.key > 0 ? widths.key - nope_dim : 0) +
                                                             (widths.value > 0 ? widths.value - config.head_dim : 0));
    return run.count * saved > once;
}

void Session::Impl::attend_expanded(const LatentAttentionView& view, std::int64_t layer, const LayerCache& cache,
                                    const Run& run) {
    const std::int64_t heads = config.num_attention_heads;
    const std::int64_t rope_dim = config.latent->rope.rope_dim;
    const std::int64_t rotated = config.num_key_value_heads * rope_dim;
    const Matrix rope_queries = work.q.middleRows(run.first, run.count).leftCols(heads * rope_dim);
    const Matrix other_queries = nope_queries.middleRows(run.first, run.count);
    std::vector<const float*> q;
    for (const auto& segment : expanded.segments) {
        q.push_back(!segment.key ? nullptr : q.empty() && rope_dim > 0 ? rope_queries.data() : other_queries.data());
    }
    ChunkedAttention attention(expanded, heads, run.count, run.position, q, model.rules(layer).attention);
    Matrix packed, latent, part, whole;
    const auto add = [&](const KvRows& from, std::int64_t start, bool recent) {
        for (std::int64_t first = 0; first < from.size(); first += kExpandedChunk) {
            const std::int64_t count = std::min(kExpandedChunk, from.size() - first);
            packed.resize(count, layout.width);
            from.decode(first, count, packed.data());
            whole.resize(count, expanded.width);
            whole.leftCols(rotated) = packed.leftCols(rotated);
            std::int64_t from_column = rotated;
            std::int64_t to_column = rotated;
            const auto up = [&](const LinearView& down, const LinearView& map, bool keep) {
                const std::int64_t width = down.weight != nullptr ? down.out_features() : map.out_features();
                latent = packed.middleCols(from_column, width);
                if (!keep) from_column += width;
                if (down.weight != nullptr) {
                    project(map, latent, part);
                } else {
                    part = latent;
                }
                whole.middleCols(to_column, part.cols()) = part;
                to_column += part.cols();
            };
            if (other_queries.cols() > 0) {
                up(view.down_k, view.up_k, shares_latent(config.latent->factorization));
            }
            up(view.down_v, view.up_v, false);
            KvRows keys_and_values(expanded, KvCacheFormat::f32, 1, count);
            keys_and_values.append(whole.data(), count);
            attention.add(keys_and_values, start + first, cache.window(), recent);
        }
    };
    add(cache.old(), 0, false);
    if (cache.window() > 0) add(cache.recent(), cache.recent_start(), true);
    attention.finish(work.attention.data() + run.first * work.attention.cols());
}

void Session::Impl::attend(std::int64_t layer, std::span<const Run> runs) {
    const LayerView& view = model.layer(layer);
    const std::int64_t heads = config.num_attention_heads;
    const bool projected = view.latent() && view.latent_attention().down_v.weight != nullptr;
    const std::int64_t value_dim = layout.value_dim();
    latent_out.resize(rows.rows(), heads * value_dim);
    std::vector<AttentionQueries> sequences;
    for (const Run& run : runs) {
        LayerCache& numbers = cache(run.sequence, layer);
        numbers.append(rows.data() + run.first * layout.width, run.count);
        if (expand(run)) {
            attend_expanded(view.latent_attention(), layer, numbers, run);
            continue;
        }
        AttentionQueries sequence{&numbers, run.count, {}, latent_out.data() + run.first * latent_out.cols()};
        for (std::size_t s = 0; s < layout.segments.size(); ++s) {
            sequence.q.push_back(layout.segments[s].key ? queries[s].data() + run.first * queries[s].cols() : nullptr);
        }
        sequences.push_back(std::move(sequence));
    }
    cached_attention(layout, heads, sequences, model.rules(layer).attention);
    for (const Run& run : runs) {
        cache(run.sequence, layer).settle();
        if (expand(run)) continue;
        const float* from = latent_out.data() + run.first * latent_out.cols();
        float* to = work.attention.data() + run.first * work.attention.cols();
        if (projected) {
            project_values(view.latent_attention().up_v, config.num_key_value_heads, run.count, from,
                           config.group_size(), to);
        } else {
            std::copy_n(from, run.count * latent_out.cols(), to);
        }
    }
}

void Session::Impl::through_layers(std::span<const Run> runs, Matrix& hidden) {
    rows.resize(hidden.rows(), layout.width);
    queries.resize(layout.segments.size());
    for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
        const LayerView& view = model.layer(layer);
        around_attention(model, layer, hidden, work, [&] {
            if (view.latent()) {
                latent_rows(view.latent_attention(), layer, runs);
            } else {
                original_rows(view.original_attention(), layer, runs);
            }
            attend(layer, runs);
        });
        forward_mlp(model, layer, hidden, work);
    }
}

namespace {

/// Allocates one token's room only.
void check_memory(const ModelConfig& config, const SessionOptions& options) {
    const CacheLayout layout = cache_layout(config, options.cache.group_size);
    const KvRows one(layout, options.cache.format, options.cache.group_size, 1);
    const auto count = static_cast<double>(options.sequences * config.num_hidden_layers);
    const double bytes = count * static_cast<double>(one.allocated_bytes()) * static_cast<double>(options.capacity);
    const auto available = available_memory();
    if (bytes < static_cast<double>(available)) return;
    throw Error(ErrorCode::usage,
                "a KV cache of " + std::to_string(options.capacity) + " tokens for " +
                    std::to_string(options.sequences) + " sequences takes " +
                    memory_text(static_cast<std::uint64_t>(std::min(bytes, 1e18))) + ", but only " +
                    memory_text(available) + " are available",
                Remedy::smaller_cache);
}

void check(const ModelConfig& config, const SessionOptions& options) {
    if (options.sequences < 1 || options.capacity < 1) {
        throw Error(ErrorCode::usage, "a session needs at least one sequence and room for one token");
    }
    if (options.cache.group_size < 1 || options.cache.window < 0) {
        throw Error(ErrorCode::usage,
                    "a quantised KV cache needs groups of at least one number and a window of at "
                    "least 0 tokens");
    }
    check_memory(config, options);
}

}  // namespace

Session::Session(const Model& model, const SessionOptions& options) {
    check(model.config, options);
    impl_ = std::make_unique<Impl>(model, options);
}

Session::~Session() = default;

Matrix Session::advance(std::span<const Piece> pieces) {
    std::int64_t total = 0;
    std::vector<bool> seen(size_of(impl_->options.sequences));
    for (const Piece& piece : pieces) {
        if (piece.sequence < 0 || piece.sequence >= impl_->options.sequences || seen[size_of(piece.sequence)]) {
            throw Error(ErrorCode::usage, "sequence " + std::to_string(piece.sequence) + " of " +
                                              std::to_string(impl_->options.sequences) +
                                              " does not exist or occurs twice");
        }
        seen[size_of(piece.sequence)] = true;
        check_ids(impl_->model, piece.ids);
        const auto count = static_cast<std::int64_t>(piece.ids.size());
        if (length(piece.sequence) + count > impl_->options.capacity) {
            throw Error(ErrorCode::usage, std::to_string(length(piece.sequence) + count) +
                                              " tokens do not fit the session's capacity of " +
                                              std::to_string(impl_->options.capacity));
        }
        total += count;
    }
    Matrix result(total, impl_->config.hidden_size);
    Matrix batch;
    for (std::int64_t done = 0;; done += kBlockTokens) {
        std::vector<Run> runs;
        std::vector<std::int64_t> targets;
        std::vector<TokenId> ids;
        std::int64_t start = 0;  // of the piece in the result
        for (const Piece& piece : pieces) {
            const auto size = static_cast<std::int64_t>(piece.ids.size());
            const std::int64_t count = std::clamp<std::int64_t>(size - done, 0, kBlockTokens);
            if (count > 0) {
                runs.push_back({piece.sequence, static_cast<std::int64_t>(ids.size()), count, length(piece.sequence)});
                targets.push_back(start + done);
                const auto part = piece.ids.subspan(size_of(done), size_of(count));
                ids.insert(ids.end(), part.begin(), part.end());
            }
            start += size;
        }
        if (runs.empty()) return result;
        batch.resize(static_cast<Eigen::Index>(ids.size()), impl_->config.hidden_size);
        embed(impl_->model, ids, {batch.data(), batch.rows(), batch.cols()});
        impl_->through_layers(runs, batch);
        for (std::size_t i = 0; i < runs.size(); ++i) {
            result.middleRows(targets[i], runs[i].count) = batch.middleRows(runs[i].first, runs[i].count);
        }
    }
}

std::int64_t Session::length(std::int64_t sequence) const { return impl_->first_cache(sequence).length(); }

void Session::fork(std::int64_t from, std::int64_t to) {
    for (std::int64_t layer = 0; layer < impl_->config.num_hidden_layers; ++layer) {
        if (from != to) impl_->cache(to, layer) = impl_->cache(from, layer);
    }
}

void Session::clear(std::int64_t sequence) {
    for (std::int64_t layer = 0; layer < impl_->config.num_hidden_layers; ++layer) {
        impl_->cache(sequence, layer).clear();
    }
}

KvCacheSize Session::cache_size() const {
    KvCacheSize size;
    for (const auto& cache : impl_->caches) {
        size.allocated += cache.old().allocated_bytes() + cache.recent().allocated_bytes();
        size.window += cache.recent().allocated_bytes();
    }
    const KvRows one(impl_->layout, impl_->options.cache.format, impl_->options.cache.group_size, 1);
    const auto layers = static_cast<double>(impl_->config.num_hidden_layers);
    size.tokens = impl_->options.sequences * impl_->options.capacity;
    size.bytes_per_token = layers * static_cast<double>(one.allocated_bytes());
    size.nominal_bytes_per_token =
        layers * static_cast<double>(impl_->layout.width) * row_of(impl_->options.cache.format).bits / 8;
    return size;
}

KvCacheFormat default_kv_cache_format(const Model& model) {
    switch (model.embed_tokens->dtype) {
        case Dtype::bf16:
            return KvCacheFormat::bf16;
        case Dtype::f16:
            return KvCacheFormat::f16;
        default:
            return KvCacheFormat::f32;
    }
}

}  // namespace mha2mla
