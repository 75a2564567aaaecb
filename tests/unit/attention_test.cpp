// Blocked attention against the definition, in double.
#include "forward/attention.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "mha2mla/threads.hpp"

namespace mha2mla::test {
namespace {

struct Shape {
    std::int64_t sequences, seq_len, heads, kv_heads, head_dim, rope_dim;
};

struct Inputs {
    explicit Inputs(const Shape& shape) : shape(shape) {
        std::mt19937 random(5);
        const auto fill = [&](std::vector<float>& values, std::int64_t width, float radius) {
            values.resize(static_cast<std::size_t>(shape.sequences * shape.seq_len * width));
            for (auto& value : values) value = radius * (static_cast<float>(random() >> 8U) / 8388608.0F - 1.0F);
        };
        const std::int64_t nope = shape.head_dim - shape.rope_dim;
        fill(q_rope, shape.heads * shape.rope_dim, 4);
        fill(k_rope, shape.kv_heads * shape.rope_dim, 4);
        fill(q_nope, shape.heads * nope, 4);
        fill(k_nope, shape.kv_heads * nope, 4);
        fill(v, shape.kv_heads * shape.head_dim, 1);
    }

    [[nodiscard]] std::vector<float> attend() const {
        AttentionInput in;
        in.sequences = shape.sequences;
        in.seq_len = shape.seq_len;
        in.num_heads = shape.heads;
        in.num_kv_heads = shape.kv_heads;
        in.head_dim = shape.head_dim;
        in.rule = rule;
        in.rule.scale = 1.0F / std::sqrt(static_cast<float>(shape.head_dim));
        const std::int64_t nope = shape.head_dim - shape.rope_dim;
        in.parts[0] = {{q_rope.data(), shape.heads * shape.rope_dim},
                       {k_rope.data(), shape.kv_heads * shape.rope_dim},
                       shape.rope_dim,
                       shape.rope_dim,
                       shape.rope_dim};
        in.parts[1] = {{q_nope.data(), shape.heads * nope}, {k_nope.data(), shape.kv_heads * nope}, nope, nope, nope};
        in.v = {v.data(), shape.kv_heads * shape.head_dim};
        in.v_step = shape.head_dim;
        std::vector<float> out(
            static_cast<std::size_t>(shape.sequences * shape.seq_len * shape.heads * shape.head_dim));
        causal_attention(in, out.data());
        return out;
    }

    /// One query head of one token, by the definition.
    [[nodiscard]] std::vector<double> expected(std::int64_t sequence, std::int64_t position, std::int64_t head) const {
        const std::int64_t kv_head = head / (shape.heads / shape.kv_heads);
        const std::int64_t start = sequence * shape.seq_len;
        const auto dot = [](const std::vector<float>& a, std::int64_t row_a, const std::vector<float>& b,
                            std::int64_t row_b, std::int64_t dim) {
            double sum = 0;
            for (std::int64_t i = 0; i < dim; ++i) {
                sum += static_cast<double>(a[static_cast<std::size_t>(row_a * dim + i)]) *
                       b[static_cast<std::size_t>(row_b * dim + i)];
            }
            return sum;
        };
        std::vector<double> result(static_cast<std::size_t>(shape.head_dim));
        double total = 0;
        const std::int64_t first = rule.window > 0 ? std::max<std::int64_t>(0, position + 1 - rule.window) : 0;
        for (std::int64_t key = first; key <= position; ++key) {
            const std::int64_t query_row = (start + position) * shape.heads + head;
            const std::int64_t key_row = (start + key) * shape.kv_heads + kv_head;
            double logit = dot(q_rope, query_row, k_rope, key_row, shape.rope_dim) +
                           dot(q_nope, query_row, k_nope, key_row, shape.head_dim - shape.rope_dim);
            logit /= std::sqrt(static_cast<double>(shape.head_dim));
            const auto cap = static_cast<double>(rule.softcap);
            const double weight = std::exp(cap > 0 ? cap * std::tanh(logit / cap) : logit);
            total += weight;
            for (std::size_t i = 0; i < result.size(); ++i) {
                result[i] += weight * v[static_cast<std::size_t>(key_row * shape.head_dim) + i];
            }
        }
        for (double& value : result) value /= total;
        return result;
    }

    Shape shape;
    AttentionRule rule;  // its soft-cap and window
    std::vector<float> q_rope, k_rope, q_nope, k_nope, v;
};

class Attention : public testing::TestWithParam<Shape> {};

void expect_definition(const Inputs& inputs) {
    const ThreadScope threads(2);
    const Shape& shape = inputs.shape;
    const auto out = inputs.attend();
    std::size_t next = 0;
    for (std::int64_t sequence = 0; sequence < shape.sequences; ++sequence) {
        for (std::int64_t position = 0; position < shape.seq_len; ++position) {
            for (std::int64_t head = 0; head < shape.heads; ++head) {
                for (const double value : inputs.expected(sequence, position, head)) {
                    ASSERT_NEAR(out[next++], value, 1e-5)
                        << "sequence " << sequence << ", position " << position << ", head " << head;
                }
            }
        }
    }
}

TEST_P(Attention, EqualsItsDefinition) { expect_definition(Inputs(GetParam())); }

TEST_P(Attention, SoftCapsAndWindowsEqualTheDefinition) {
    Inputs inputs(GetParam());
    for (const std::int64_t window : {1, 20, 256, 300}) {
        inputs.rule.window = window;
        inputs.rule.softcap = window == 20 ? 0.0F : 1.5F;
        expect_definition(inputs);
    }
}

TEST_P(Attention, DoesNotDependOnThreads) {
    const Inputs inputs(GetParam());
    const auto run = [&](int threads) {
        const ThreadScope scope(threads);
        return inputs.attend();
    };
    EXPECT_EQ(run(1), run(2));
}

// Lengths around the blocks of 256 keys; heads that share a KV head, one KV head each, one for all.
INSTANTIATE_TEST_SUITE_P(Shapes, Attention,
                         testing::Values(Shape{1, 1, 1, 1, 2, 2}, Shape{3, 37, 6, 2, 16, 4}, Shape{2, 257, 4, 4, 8, 8},
                                         Shape{1, 601, 9, 3, 16, 0}, Shape{2, 300, 40, 1, 4, 2}));

}  // namespace
}  // namespace mha2mla::test
