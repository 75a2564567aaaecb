// Attention over a KV cache against the definition, in double.
#include "forward/cached_attention.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "mha2mla/threads.hpp"

namespace mha2mla::test {
namespace {

/// A model's attention, as its cache sees it. kv_rank 0: not converted.
struct Shape {
    const char* name;
    std::int64_t heads, kv_heads, head_dim, rope_dim, kv_rank;
    QueryKeyNorm norm = QueryKeyNorm::none;
};
constexpr Shape kShapes[] = {
    {"grouped", 32, 8, 128, 0, 0},
    {"many_heads", 16, 16, 64, 0, 0},
    {"one_kv_head", 6, 1, 20, 0, 0},
    {"threes", 9, 3, 64, 0, 0},
    {"latent_grouped", 32, 8, 128, 16, 32},
    {"latent_many", 20, 20, 64, 8, 8},
    {"latent_threes", 9, 3, 64, 8, 32},
    {"latent_odd", 6, 3, 20, 6, 5},
    {"latent_normed", 8, 4, 32, 8, 12, QueryKeyNorm::per_head},
    {"latent_normed_as_a_whole", 9, 3, 24, 6, 8, QueryKeyNorm::whole},
};

CacheLayout layout_of(const Shape& shape) {
    ModelConfig config;
    config.num_attention_heads = shape.heads;
    config.num_key_value_heads = shape.kv_heads;
    config.head_dim = shape.head_dim;
    if (shape.kv_rank > 0) {
        config.latent.emplace();
        config.latent->rope.rope_dim = shape.rope_dim;
        config.latent->kv_rank = shape.kv_rank;
    }
    config.rules.layers.emplace_back().attention.query_key_norm = shape.norm;
    return cache_layout(config, 64);
}

/// Random numbers with the mean and scale that real keys have: few of their directions matter.
class CachedAttention : public testing::TestWithParam<Shape> {
protected:
    CachedAttention() : layout_(layout_of(GetParam())) {
        std::normal_distribution<float> normal;
        rows_.resize(static_cast<std::size_t>(kTokens * layout_.width));
        for (std::size_t i = 0; i < rows_.size(); ++i) {
            rows_[i] = normal(random_) + static_cast<float>(std::sin(static_cast<double>(i % size(layout_.width))));
        }
        for (const CacheSlice& slice : layout_.slices) {  // scales are positive
            for (std::int64_t t = 0; layout_.segments[slice.segment].scale && t < kTokens; ++t) {
                float* scales = rows_.data() + t * layout_.width + slice.column;
                for (std::int64_t i = 0; i < slice.width; ++i) scales[i] = 0.3F + 0.1F * std::abs(scales[i]);
            }
        }
    }
    static std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

    LayerCache empty_cache(KvCacheFormat format, std::int64_t seen = 0) const {
        KvCacheOptions options;
        options.format = format;
        options.window = 40;
        return {layout_, options, kTokens, seen};
    }
    LayerCache cache(KvCacheFormat format) const {
        LayerCache result = empty_cache(format);
        result.append(rows_.data(), kTokens);
        return result;
    }

    /// The queries of the last `count` tokens, by segment.
    void make_queries(std::int64_t count) {
        std::normal_distribution<float> normal;
        q_.clear();
        for (const auto& segment : layout_.segments) {
            q_.emplace_back(segment.key ? size(count * GetParam().heads * segment.dim) : 0);
            for (auto& value : q_.back()) value = 2 * normal(random_) / std::sqrt(static_cast<float>(segment.dim));
        }
    }

    std::vector<float> attend(const LayerCache& cache, std::int64_t count) const {
        std::vector<float> out(size(count * GetParam().heads * layout_.value_dim()));
        AttentionQueries queries{&cache, count, {}, out.data()};
        for (const auto& part : q_) queries.q.push_back(part.empty() ? nullptr : part.data());
        cached_attention(layout_, GetParam().heads, {&queries, 1}, rule_);
        return out;
    }

    /// What query `i` of `count` sees of token t.
    std::vector<float> numbers(const LayerCache& cache, std::int64_t i, std::int64_t count, std::int64_t t) const {
        std::vector<float> result(size(layout_.width));
        const std::int64_t position = kTokens - count + i;
        if (cache.window() > 0 && t >= position + 1 - cache.window()) {
            cache.recent().decode(t - cache.recent_start(), 1, result.data());
        } else {
            cache.old().decode(t, 1, result.data());
        }
        return result;
    }

    std::vector<double> expected(const LayerCache& cache, std::int64_t count) const {
        const std::int64_t heads = GetParam().heads;
        const std::int64_t value_dim = layout_.value_dim();
        std::vector<double> out(size(count * heads * value_dim));
        for (std::int64_t i = 0; i < count; ++i) {
            std::vector<double> sums(size(heads));
            const std::int64_t position = kTokens - count + i;
            const std::int64_t first = rule_.window > 0 ? std::max<std::int64_t>(0, position + 1 - rule_.window) : 0;
            for (std::int64_t t = first; t <= position; ++t) {
                const auto row = numbers(cache, i, count, t);
                for (std::int64_t head = 0; head < heads; ++head) {
                    double logit = 0;
                    std::int64_t column = 0;
                    std::int64_t value_column = 0;
                    for (std::size_t s = 0; s < q_.size(); ++s) {
                        const CacheSegment& segment = layout_.segments[s];
                        const std::int64_t own = column + head / (heads / segment.heads) * segment.dim;
                        double part = 0;
                        for (std::int64_t d = 0; segment.key && d < segment.dim; ++d) {
                            part += static_cast<double>(q_[s][size((i * heads + head) * segment.dim + d)]) *
                                    row[size(own + d)];
                        }
                        if (s + 1 < q_.size() && layout_.segments[s + 1].scale) {
                            const std::int64_t next = column + segment.heads * segment.dim;
                            part *= row[size(next + head / (heads / layout_.segments[s + 1].heads))];
                        }
                        logit += part;
                        if (segment.value) value_column = own;
                        column += segment.heads * segment.dim;
                    }
                    if (rule_.softcap > 0) {
                        const double cap = static_cast<double>(rule_.softcap);
                        logit = cap * std::tanh(logit / cap);
                    }
                    const double weight = std::exp(logit);
                    sums[size(head)] += weight;
                    for (std::int64_t d = 0; d < value_dim; ++d) {
                        out[size((i * heads + head) * value_dim + d)] += weight * row[size(value_column + d)];
                    }
                }
            }
            for (std::int64_t j = 0; j < heads * value_dim; ++j) {
                out[size(i * heads * value_dim + j)] /= sums[size(j / value_dim)];
            }
        }
        return out;
    }

    static constexpr std::int64_t kTokens = 700;  // two items of work
    CacheLayout layout_;
    std::mt19937 random_{7};
    AttentionRule rule_;  // its soft-cap and window
    std::vector<float> rows_;
    std::vector<std::vector<float>> q_;
};

template <typename A>
double rms_difference(const std::vector<A>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return std::sqrt(sum / static_cast<double>(a.size()));
}

TEST_P(CachedAttention, EqualsTheDefinition) {
    for (const std::int64_t count : {1, 3, 20}) {
        make_queries(count);
        for (const auto format : {KvCacheFormat::f32, KvCacheFormat::f16, KvCacheFormat::int8_affine}) {
            if (format != KvCacheFormat::f32 && count == 20) continue;
            const LayerCache numbers = cache(format);
            const auto out = attend(numbers, count);
            const auto exact = expected(numbers, count);
            // The newest tokens of a quantised cache are BF16, and those may be multiplied as such.
            const double most = format == KvCacheFormat::int8_affine ? 5e-2 : 2e-5;
            for (std::size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], exact[i], most) << count << " " << i;
        }
    }
}

TEST_P(CachedAttention, SoftCapsAndWindowsEqualTheDefinition) {
    for (const std::int64_t window : {1, 30, 150, 600, 5000}) {  // the newest 40 tokens of a quantised cache are BF16
        rule_.window = window;
        rule_.softcap = window == 600 ? 0.0F : 2.0F;
        for (const std::int64_t count : {1, 20}) {
            make_queries(count);
            for (const auto format : {KvCacheFormat::f32, KvCacheFormat::bf16, KvCacheFormat::int8_affine}) {
                const LayerCache numbers = cache(format);
                const auto out = attend(numbers, count);
                const auto exact = expected(numbers, count);
                const double most = format == KvCacheFormat::f32 ? 2e-5 : 5e-2;
                for (std::size_t i = 0; i < out.size(); ++i) {
                    ASSERT_NEAR(out[i], exact[i], most) << window << " " << count << " " << i;
                }
            }
        }
    }
}

TEST_P(CachedAttention, WhatNoLaterQuerySeesIsNotKept) {
    for (const std::int64_t window : {1, 30, 150}) {
        rule_.window = window;
        for (const auto format : {KvCacheFormat::f32, KvCacheFormat::bf16, KvCacheFormat::int4_affine}) {
            LayerCache whole = empty_cache(format), seen = empty_cache(format, window);
            std::int64_t first = 0;
            for (const std::int64_t count : {300, 20, 1, 1, 1, 77, 1, 1, 1}) {
                for (LayerCache* to : {&whole, &seen}) to->append(rows_.data() + first * layout_.width, count);
                first += count;
                if (count <= 20) {
                    make_queries(count);
                    const auto out = attend(seen, count), same = attend(whole, count);  // by other tiles
                    for (std::size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], same[i], 1e-2) << window;
                }
                for (LayerCache* to : {&whole, &seen}) to->settle();
                EXPECT_LE(seen.old().size(), window);
                EXPECT_EQ(seen.length(), first);
            }
            EXPECT_LT(seen.old().allocated_bytes(), whole.old().allocated_bytes());
        }
    }
}

TEST_P(CachedAttention, MultiplyingBf16AddsNoMoreThanRoundingTheCache) {
    make_queries(6);
    const LayerCache rounded = cache(KvCacheFormat::bf16);
    const auto exact = expected(rounded, 6);
    const double by_cache = rms_difference(expected(cache(KvCacheFormat::f32), 6), exact);
    const double by_arithmetic = rms_difference(attend(rounded, 6), exact);
    RecordProperty("by_cache", std::to_string(by_cache));
    RecordProperty("by_arithmetic", std::to_string(by_arithmetic));
    EXPECT_LE(by_arithmetic, by_cache);
}

TEST_P(CachedAttention, BitsDoNotDependOnTheThreads) {
    make_queries(2);
    for (const auto format : {KvCacheFormat::f32, KvCacheFormat::bf16, KvCacheFormat::int4_affine}) {
        const LayerCache numbers = cache(format);
        const auto in_one = [&](int threads) {
            const ThreadScope scope(threads);
            return attend(numbers, 2);
        };
        EXPECT_EQ(in_one(1), in_one(3));
    }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CachedAttention, testing::ValuesIn(kShapes),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace mha2mla::test
