#include <algorithm>

#include "for_each_token.hpp"
#include "latent_projections.hpp"
#include "project.hpp"
#include "session_impl.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kExpandedChunk = 1024;  // tokens whose keys and values are computed at a time

std::size_t size_of(std::int64_t count) { return static_cast<std::size_t>(count); }

}  // namespace

Session::Impl::Impl(const Model& model_of_session, const SessionOptions& session_options)
    : model(model_of_session),
      config(model_of_session.config),
      options(session_options),
      layout(cache_layout(config, session_options.cache.group_size)),
      rotary(config.rules, session_options.capacity) {
    if (config.latent) {
        expanded = expanded_layout(config);
        latent = config.latent_shape();
        latent_heads = latent.layout->rows(latent);
    }
    for (std::int64_t i = 0; i < options.sequences * config.num_hidden_layers; ++i) {
        const LayerRules& rules = model.rules(i % config.num_hidden_layers);
        caches.emplace_back(layout, options.cache, options.capacity, rules.attention.window);
    }
}

void Session::Impl::rotate(std::int64_t layer, std::span<const Run> runs, const HeadColumns& heads,
                           std::span<const std::vector<std::int64_t>> pairs) const {
    if (heads.step == 0) return;
    const RotaryTable& table = rotary[layer];
    const std::int64_t group = pairs.empty() ? heads.heads : heads.heads / std::ssize(pairs);
    for (const Run& run : runs) {
        for_each_token(run.count, [&](std::int64_t token) {
            for (std::int64_t head = 0; head < heads.heads; ++head) {
                const auto kept = pairs.empty() ? std::span<const std::int64_t>()
                                                : std::span<const std::int64_t>(pairs[size_of(head / group)]);
                table.rotate(heads.data + (run.first + token) * heads.stride + head * heads.step, run.position + token,
                             kept);
            }
        });
    }
}

NewRows Session::Impl::original_rows(const AttentionView& view, std::int64_t layer, std::span<const Run> runs) {
    NewRows added(work.normed.rows(), layout);
    project_original(view, work.normed, work.q, work.k, work.v);
    rotate(layer, runs, {work.q.data(), work.q.cols(), config.num_attention_heads, config.head_dim});
    rotate(layer, runs, {work.k.data(), work.k.cols(), config.num_key_value_heads, config.head_dim});
    added.rows << work.k, work.v;
    added.queries[0] = work.q * model.rules(layer).attention.scale;
    return added;
}

NewRows Session::Impl::latent_rows(const LatentAttentionView& view, std::int64_t layer, std::span<const Run> runs) {
    NewRows added(work.normed.rows(), layout);
    const std::int64_t heads = latent.num_heads;
    const auto pairs = config.latent->layer_pairs(layer);
    project_latent_input(view, work.normed, {work.q, work.low, work.k_rope, work.latent});
    const HeadRows query_rope = latent_heads.query_rope, query_nope = latent_heads.query_nope;
    const auto norms = head_norms(view.head_q_norm, view.head_k_norm, latent, pairs);
    const auto rotate_both = [&] {
        rotate(layer, runs, {work.q.data() + query_rope.first, work.q.cols(), heads, query_rope.stride}, pairs);
        if (latent.rope_dim == 0) return;
        rotate(layer, runs, {work.k_rope.data(), work.k_rope.cols(), latent.rope_keys(), latent.rope_dim}, pairs);
    };
    const AttentionRule& rule = model.rules(layer).attention;
    if (rule.rotates_before_norm) rotate_both();
    if (norms) {
        const HeadColumns rope = head_columns(work.q, heads, query_rope),
                          nope = head_columns(work.q, heads, query_nope);
        norms->query.apply(norms->query.scales(work.q.rows(), rope, nope), rope, nope);
    }
    const Matrix key_scales = norms ? norm_keys(view, *norms) : Matrix();
    if (!rule.rotates_before_norm) rotate_both();
    work.q *= rule.scale;
    std::int64_t column = 0;
    std::size_t segment = 0;
    if (latent.rope_dim > 0) {
        added.rows.leftCols(work.k_rope.cols()) = work.k_rope;
        column = work.k_rope.cols();
        added.queries[segment++] = gather_heads(work.q, query_rope, heads, latent.rope_dim);
    }
    const auto cache_columns = [&](const LinearView& down, const LinearView& up) {
        if (down.weight == nullptr) {
            project(up, work.normed, work.latent);
        } else if (&down != &view.down_k) {
            project_latent(view, down, work.normed, work.latent);
        }
        added.rows.middleCols(column, work.latent.cols()) = work.latent;
        column += work.latent.cols();
    };
    added.nope_queries = gather_heads(work.q, query_nope, heads, latent.nope_dim());
    if (norms) weigh_queries(norms->key, added.nope_queries);
    if (added.nope_queries.cols() > 0) {
        cache_columns(view.down_k, view.up_k);
        if (view.down_k.weight != nullptr) {
            added.queries[segment].resize(added.rows.rows(), heads * view.up_k.in_features());
            absorb_queries(view.up_k, up_keys(), added.rows.rows(),
                           {added.nope_queries.data(), added.nope_queries.cols()}, added.queries[segment].data());
        } else {
            added.queries[segment] = added.nope_queries;
            if (norms) scale_keys(key_scales, added.rows.middleCols(column - work.latent.cols(), work.latent.cols()));
        }
        if (latent.key_scales() > 0) {
            added.rows.middleCols(column, key_scales.cols()) = key_scales;
            column += key_scales.cols();
        }
    }
    const bool cached = shares_latent(latent.factorization) && added.nope_queries.cols() > 0;
    if (!cached) cache_columns(view.down_v, view.up_v);
    return added;
}

Matrix Session::Impl::norm_keys(const LatentAttentionView& view, const HeadNorms& norms) {
    Matrix nope(work.normed.rows(), 0);
    if (latent.nope_dim() > 0 && view.down_k.weight != nullptr) {
        project(view.up_k, work.latent, nope);
    } else if (latent.nope_dim() > 0) {
        project(view.up_k, work.normed, nope);
    }
    const HeadColumns rope = head_columns(work.k_rope, latent.rope_keys(), {0, latent.rope_dim});
    Matrix scales = norms.key.scales(nope.rows(), rope, head_columns(nope, latent.up_heads(), latent_heads.up_key));
    if (latent.rope_dim > 0) HeadNorm::apply_part(scales, norms.key.rope, rope);
    return scales;
}

void Session::Impl::weigh_queries(const HeadNorm& keys, Matrix& nope_queries) const {
    const std::int64_t dim = latent.nope_dim(), group = latent.num_heads / keys.heads();
    for (std::int64_t head = 0; head < latent.num_heads; ++head) {
        nope_queries.middleCols(head * dim, dim).array().rowwise() *= keys.nope.row(head / group).array();
    }
}

void Session::Impl::scale_keys(const Matrix& scales, Eigen::Ref<Matrix> keys) const {
    const std::int64_t heads = latent.up_heads(), dim = latent.nope_dim();
    for (std::int64_t head = 0; head < heads; ++head) {
        keys.middleCols(head * dim, dim).array().colwise() *= scales.col(scales.cols() == 1 ? 0 : head).array();
    }
}

UpRows Session::Impl::up_keys() const {
    return {latent_heads.up_key, latent.up_heads(), latent.nope_dim(), latent.num_heads / latent.up_heads()};
}

UpRows Session::Impl::up_values() const {
    return {latent_heads.up_value, latent.up_heads(), latent.head_dim, latent.num_heads / latent.up_heads()};
}

/// The expanded form costs one product of each cached token with W_uk and W_uv, and saves for each query and head the
/// difference in width between latents and heads. Both run at about the same rate.
bool Session::Impl::expand(const Run& run) const {
    if (!config.latent || options.form == AttentionForm::absorbed) return false;
    if (options.form == AttentionForm::expanded) return true;
    const std::int64_t nope_dim = latent.nope_dim();
    const LatentWidths widths = latent.widths();
    const std::int64_t once = latent.up_heads() * (widths.key * nope_dim + widths.value * config.head_dim);
    const std::int64_t saved = config.num_attention_heads * ((widths.key > 0 ? widths.key - nope_dim : 0) +
                                                             (widths.value > 0 ? widths.value - config.head_dim : 0));
    return run.count * saved > once;
}

NewRows Session::Impl::new_rows(std::int64_t layer, std::span<const Run> runs) {
    const LayerView& view = model.layer(layer);
    return view.latent() ? latent_rows(view.latent_attention(), layer, runs)
                         : original_rows(view.original_attention(), layer, runs);
}

void Session::Impl::attend_expanded(std::int64_t layer, const LayerCache& cache, const Run& run, const NewRows& added,
                                    float* to) const {
    const LatentAttentionView& view = model.layer(layer).latent_attention();
    const std::int64_t heads = latent.num_heads, rotated = latent.rope_rows();
    const auto from_first = [&](const Matrix& x) { return x.data() + run.first * x.cols(); };
    std::vector<const float*> q;
    for (const auto& segment : expanded.segments) {
        const bool rotated_part = q.empty() && latent.rope_dim > 0;
        q.push_back(segment.key ? from_first(rotated_part ? added.queries[0] : added.nope_queries) : nullptr);
    }
    ChunkedAttention attention(expanded, heads, run.count, run.position, q, model.rules(layer).attention);
    Matrix packed, cached, part, whole;
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
                cached = packed.middleCols(from_column, width);
                if (!keep) from_column += width;
                if (down.weight != nullptr) {
                    project(map, cached, part);
                } else {
                    part = cached;
                }
            };
            const auto place = [&](const UpRows& rows) {
                const std::int64_t width = rows.heads * rows.dim;
                whole.middleCols(to_column, width) = gather_heads(part, rows.at, rows.heads, rows.dim);
                to_column += width;
            };
            if (added.nope_queries.cols() > 0) {
                up(view.down_k, view.up_k, shares_latent(latent.factorization));
                place(up_keys());
                if (const std::int64_t scales = latent.key_scales(); scales > 0) {
                    scale_keys(packed.middleCols(rotated + view.down_k.out_features(), scales),
                               whole.middleCols(rotated, to_column - rotated));
                    if (!shares_latent(latent.factorization)) from_column += scales;
                }
            }
            if (!view.one_up()) up(view.down_v, view.up_v, false);
            place(up_values());
            KvRows keys_and_values(expanded, KvCacheFormat::f32, 1, count);
            keys_and_values.append(whole.data(), count);
            attention.add(keys_and_values, start + first, cache.window(), recent);
        }
    };
    add(cache.old(), cache.old_start(), false);
    if (cache.window() > 0) add(cache.recent(), cache.recent_start(), true);
    attention.finish(to);
}

void Session::Impl::attend(std::int64_t layer, std::span<const Run> runs, const NewRows& added, Matrix& to) {
    const LayerView& view = model.layer(layer);
    const std::int64_t heads = config.num_attention_heads;
    const bool projected = view.latent() && view.latent_attention().down_v.weight != nullptr;
    Matrix mixed(added.rows.rows(), heads * layout.value_dim());
    std::vector<AttentionQueries> sequences;
    for (const Run& run : runs) {
        LayerCache& numbers = cache(run.sequence, layer);
        numbers.append(added.rows.data() + run.first * layout.width, run.count);
        if (expand(run)) {
            attend_expanded(layer, numbers, run, added, to.data() + run.first * to.cols());
            continue;
        }
        const auto from_first = [&](const Matrix& x) { return x.data() + run.first * x.cols(); };
        AttentionQueries sequence{&numbers, run.count, {}, mixed.data() + run.first * mixed.cols()};
        for (std::size_t s = 0; s < layout.segments.size(); ++s) {
            sequence.q.push_back(layout.segments[s].key ? from_first(added.queries[s]) : nullptr);
        }
        sequences.push_back(std::move(sequence));
    }
    cached_attention(layout, heads, sequences, model.rules(layer).attention);
    for (const Run& run : runs) {
        cache(run.sequence, layer).settle();
        if (expand(run)) continue;
        const float* from = mixed.data() + run.first * mixed.cols();
        float* out = to.data() + run.first * to.cols();
        if (projected) {
            project_values(view.latent_attention().up_v, up_values(), run.count, from, out);
        } else {
            std::copy_n(from, run.count * mixed.cols(), out);
        }
    }
}

void Session::Impl::through_layers(std::span<const Run> runs, Matrix& hidden) {
    for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
        around_attention(model, layer, hidden, work,
                         [&] { attend(layer, runs, new_rows(layer, runs), work.attention); });
        forward_mlp(model, layer, hidden, work);
    }
}

}  // namespace mha2mla
