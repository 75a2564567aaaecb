#include "shared_key_cases.hpp"

#include <cmath>
#include <random>

namespace mha2mla::test {
namespace {

constexpr std::int64_t kTokens = 88;

class Random {
public:
    explicit Random(unsigned seed) : generator_(seed) {}
    Matrix matrix(std::int64_t rows, std::int64_t cols, double scale) {
        return Matrix::NullaryExpr(rows, cols, [&] { return static_cast<float>(scale * normal_(generator_)); });
    }
    Vector vector(std::int64_t size, double scale) { return matrix(size, 1, scale); }

private:
    std::mt19937 generator_;
    std::normal_distribution<double> normal_;
};

/// Softmax over the keys that a query sees.
MatrixD causal_softmax(MatrixD logits) {
    for (Eigen::Index t = 0; t < logits.rows(); ++t) {
        auto row = logits.row(t);
        const double most = row.head(t + 1).maxCoeff();
        row.head(t + 1) = (row.head(t + 1).array() - most).exp();
        row.tail(row.size() - t - 1).setZero();
        row /= row.sum();
    }
    return logits;
}

/// θ^(−2j/rope_dim), which engines compute from config.json.
std::vector<double> engine_frequencies(double rope_theta, std::int64_t rope_dim) {
    std::vector<double> result;
    for (std::int64_t j = 0; 2 * j < rope_dim; ++j) {
        result.push_back(std::pow(rope_theta, -2.0 * static_cast<double>(j) / static_cast<double>(rope_dim)));
    }
    return result;
}

}  // namespace

const std::vector<SharedKeyShape>& shared_key_shapes() {
    static const std::vector<SharedKeyShape> shapes = {
        {"GQA"},
        {"MHA", 3, 3, 8, 40},
        {"MQA", 4, 1, 16, 40, false, false, 16},
        {"biases", 4, 2, 8, 48, true},
        {"interleaved, partly rotated, with gain", 4, 2, 12, 48, true, true, 8, 1.25F},
    };
    return shapes;
}

MatrixD projected(const MatrixD& rows, const Matrix& weight, const Vector& bias) {
    MatrixD result = rows * weight.cast<double>().transpose();
    if (bias.size() > 0) result.rowwise() += bias.cast<double>().transpose();
    return result;
}

MatrixD original_logits(const SharedKeyCase& c, std::int64_t head) {
    const OriginalAttention& layer = c.plain;
    const std::int64_t dim = layer.head_dim, kv_head = head / layer.group_size();
    const auto rotated = [&](const Matrix& weight, const Vector& bias, std::int64_t of) {
        MatrixD x = c.inputs * weight.middleRows(of * dim, dim).cast<double>().transpose();
        if (bias.size() > 0) x.rowwise() += bias.segment(of * dim, dim).cast<double>().transpose();
        const auto count = static_cast<std::int64_t>(c.rule.frequencies.size());
        for (std::int64_t t = 0; t < x.rows(); ++t) {
            for (std::int64_t k = 0; k < count; ++k) {
                const std::int64_t a = c.rule.interleaved ? 2 * k : k, b = c.rule.interleaved ? 2 * k + 1 : k + count;
                const double angle = static_cast<double>(t) * c.rule.frequencies[static_cast<std::size_t>(k)];
                const double one = x(t, a), two = x(t, b), gain = c.rule.gain;
                x(t, a) = gain * (one * std::cos(angle) - two * std::sin(angle));
                x(t, b) = gain * (one * std::sin(angle) + two * std::cos(angle));
            }
        }
        return x;
    };
    const MatrixD q = rotated(layer.q, layer.q_bias, head), k = rotated(layer.k, layer.k_bias, kv_head);
    return q * k.transpose() / std::sqrt(static_cast<double>(dim));
}

MatrixD original_output(const SharedKeyCase& c, const std::vector<MatrixD>& logits) {
    const OriginalAttention& layer = c.plain;
    const std::int64_t dim = layer.head_dim;
    MatrixD output = MatrixD::Zero(c.inputs.rows(), layer.o.rows());
    for (std::int64_t head = 0; head < layer.heads; ++head) {
        const std::int64_t row = head / layer.group_size() * dim;
        MatrixD v = c.inputs * layer.v.middleRows(row, dim).cast<double>().transpose();
        if (layer.v_bias.size() > 0) v.rowwise() += layer.v_bias.segment(row, dim).cast<double>().transpose();
        output += causal_softmax(logits[static_cast<std::size_t>(head)]) * v *
                  layer.o.middleCols(head * dim, dim).cast<double>().transpose();
    }
    if (layer.o_bias.size() > 0) output.rowwise() += layer.o_bias.cast<double>().transpose();
    return output;
}

MatrixD shared_logits(const SharedKeyLayer& layer, const MatrixD& inputs, std::int64_t head) {
    const std::int64_t rope = layer.rope_dim(), slots = rope / 2, dim = layer.head_dim;
    const auto rows_of = [&](const Matrix& weight, const Vector& bias, std::int64_t first, std::int64_t count) {
        MatrixD x = inputs * weight.middleRows(first, count).cast<double>().transpose();
        if (bias.size() > 0) x.rowwise() += bias.segment(first, count).cast<double>().transpose();
        return x;
    };
    const auto rotated = [&](MatrixD x) {
        for (std::int64_t t = 0; t < x.rows(); ++t) {
            for (std::int64_t j = 0; j < slots; ++j) {
                const double angle = static_cast<double>(t) * layer.frequencies[static_cast<std::size_t>(j)];
                const Complex z = Complex(x(t, j), x(t, j + slots)) * std::polar(1.0, angle);
                x(t, j) = z.real();
                x(t, j + slots) = z.imag();
            }
        }
        return x;
    };
    const MatrixD q = rows_of(layer.q, layer.q_bias, head * dim, dim);
    const MatrixD latent = inputs * layer.down.cast<double>().transpose();
    const MatrixD absorbed = q * layer.up_k.middleRows(head * dim, dim).cast<double>();
    const MatrixD q_rope = rotated(rows_of(layer.q_rope, layer.q_rope_bias, head * rope, rope));
    const MatrixD k_rope = rotated(rows_of(layer.k_rope, layer.k_rope_bias, 0, rope));
    return (q_rope * k_rope.transpose() + absorbed * latent.transpose()) / std::sqrt(static_cast<double>(dim));
}

MatrixD shared_output(const SharedKeyLayer& layer, const MatrixD& inputs) {
    const std::int64_t dim = layer.head_dim;
    const MatrixD latent = inputs * layer.down.cast<double>().transpose();
    MatrixD output = MatrixD::Zero(inputs.rows(), layer.o.rows());
    for (std::int64_t head = 0; head < layer.heads; ++head) {
        const MatrixD up =
            layer.o.middleCols(head * dim, dim).cast<double>() * layer.up_v.middleRows(head * dim, dim).cast<double>();
        output += causal_softmax(shared_logits(layer, inputs, head)) * latent * up.transpose();
    }
    if (layer.o_bias.size() > 0) output.rowwise() += layer.o_bias.cast<double>().transpose();
    return output;
}

AttentionInputStats stats_of(const SharedKeyCase& c) {
    AttentionInputStats stats;
    stats.moment = c.inputs.transpose() * c.inputs / static_cast<double>(c.inputs.rows());
    stats.mean = c.inputs.colwise().mean().transpose();
    stats.attention = MatrixD::Zero(c.plain.heads, c.inputs.rows());
    for (std::int64_t head = 0; head < c.plain.heads; ++head) {
        const MatrixD attention = causal_softmax(original_logits(c, head));
        for (Eigen::Index t = 0; t < attention.rows(); ++t) {
            for (Eigen::Index s = 1; s <= t; ++s) stats.attention(head, t - s) += attention(t, s);
        }
    }
    return stats;
}

SharedKeyCase random_case(const SharedKeyShape& shape) {
    Random random(1);
    SharedKeyCase c;
    for (std::int64_t k = 0; k < shape.rotated / 2; ++k) {
        c.rule.frequencies.push_back(
            std::pow(100.0, -2.0 * static_cast<double>(k) / static_cast<double>(shape.rotated)));
    }
    c.rule.interleaved = shape.interleaved;
    c.rule.gain = shape.gain;
    OriginalAttention& layer = c.plain;
    layer.heads = shape.heads, layer.kv_heads = shape.kv_heads, layer.head_dim = shape.head_dim;
    layer.pairs = head_pairs(c.rule, shape.head_dim);
    const double scale = 1 / std::sqrt(static_cast<double>(shape.hidden));
    layer.q = random.matrix(shape.heads * shape.head_dim, shape.hidden, scale);
    layer.k = random.matrix(shape.kv_heads * shape.head_dim, shape.hidden, scale);
    layer.v = random.matrix(shape.kv_heads * shape.head_dim, shape.hidden, scale);
    layer.o = random.matrix(shape.hidden, shape.heads * shape.head_dim, scale);
    if (shape.biases) {
        layer.q_bias = random.vector(layer.q.rows(), 1);
        layer.k_bias = random.vector(layer.k.rows(), 1);
        layer.v_bias = random.vector(layer.v.rows(), 1);
        layer.o_bias = random.vector(shape.hidden, 1);
    }
    const Matrix mix = random.matrix(shape.hidden, shape.hidden, scale);
    const Matrix raw = random.matrix(kTokens, shape.hidden, 1);
    c.inputs = (raw * mix + raw).cast<double>();
    c.inputs.rowwise() += random.vector(shape.hidden, 1).cast<double>().transpose();
    c.original = layer;
    c.original.take_gain(c.rule);
    c.stats = stats_of(c);
    c.moments = query_key_moments(c.original, c.stats);
    return c;
}

ChosenSharedKey choose(const SharedKeyCase& c, const SharedKeyChoice& choice) {
    const auto blocks = balanced_blocks(c.original, c.moments, choice.fold);
    const auto frequencies =
        choice.engine ? engine_frequencies(100, choice.rope_dim) : frequencies_of(c.original.pairs);
    const MatrixD values = rotation_values(c.original, blocks, c.moments, c.stats.attention, choice.turn, frequencies);
    const auto slots = choice.engine ? fixed_slots(blocks, values, frequencies)
                                     : free_slots(c.original.pairs, blocks, values, frequencies, choice.rope_dim / 2);
    return {blocks, slots, SharedKeyMap(c.original, blocks, slots, c.stats.attention, choice.turn)};
}

FactorizedSharedKey factorized(const SharedKeyCase& c, const SharedKeyMap& map, std::int64_t kv_rank, double balance,
                               KeyWeighting weighting) {
    const Whitening whitening(centred_moment(c.stats));
    const auto [w, total, retained] =
        SharedKeyFactorizer(c.original, map, c.moments, whitening, weighting).factorize(kv_rank, balance);
    const std::int64_t nope = c.original.q.rows(), rope = w.q.rows() - nope;
    FactorizedSharedKey result{{}, total, retained};
    SharedKeyLayer& layer = result.layer;
    layer.heads = c.original.heads, layer.head_dim = c.original.head_dim;
    layer.frequencies = map.frequencies();
    layer.q = w.q.bottomRows(nope), layer.q_rope = w.q.topRows(rope);
    layer.k_rope = w.k_rope, layer.down = w.down, layer.up_k = w.up_k, layer.up_v = w.up_v, layer.o = w.o;
    if (w.q_bias.size() > 0) layer.q_bias = w.q_bias.tail(nope), layer.q_rope_bias = w.q_bias.head(rope);
    layer.k_rope_bias = w.k_rope_bias;
    layer.o_bias = c.original.o_bias;
    if (w.up_v_bias.size() > 0) layer.o_bias += w.o * w.up_v_bias;  // the softmax sums up to 1
    return result;
}

std::int64_t full_rank(const SharedKeyCase& c, const SharedKeyMap& map) {
    return std::min(map.nope_rows() + c.plain.v.rows(), c.plain.v.cols());
}

}  // namespace mha2mla::test
