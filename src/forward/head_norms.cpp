#include "head_norms.hpp"

#include <algorithm>
#include <cmath>

#include "for_each_token.hpp"

namespace mha2mla {
namespace {

using Row = Eigen::Map<Eigen::RowVectorXf>;

Row part_of(const HeadColumns& part, std::int64_t token, std::int64_t head, std::int64_t dim) {
    return {part.data + token * part.stride + head * part.step, dim};
}

/// Where a head's numbers stand, in the order of its rows (pairs that rotate, then the others, each in halves), and
/// where their weights do: body(head, whether it rotates, place in its part, index of the weight).
template <typename Body>
void for_each_weight(const NormView& view, const AttentionShape& shape, std::int64_t heads,
                     std::span<const std::vector<std::int64_t>> pairs, const Body& body) {
    const std::int64_t dim = shape.head_dim, half = dim / 2, group = heads / shape.num_kv_heads;
    const auto rope_dim = static_cast<std::int64_t>(2 * pairs.front().size());
    const bool whole = view.weight->shape[0] != dim;
    for (std::int64_t head = 0; head < heads; ++head) {
        const auto& kept = pairs[static_cast<std::size_t>(head / group)];
        std::int64_t rope = 0, nope = 0;
        for (std::int64_t place = 0; place < dim; ++place) {
            const bool rotates = std::binary_search(kept.begin(), kept.end(), place % half);
            const std::int64_t within = !view.by_part ? place : rotates ? rope : rope_dim + nope;
            body(head, rotates, rotates ? rope++ : nope++, (whole ? head * dim : 0) + within);
        }
    }
}

HeadNorm head_norm(const NormView& view, const AttentionShape& shape, std::int64_t heads,
                   std::span<const std::vector<std::int64_t>> pairs) {
    std::vector<float> weights(static_cast<std::size_t>(view.weight->shape[0]));
    to_float(*view.weight, 0, weights);
    const auto rope_dim = static_cast<std::int64_t>(2 * pairs.front().size());
    HeadNorm norm{view.rule.eps, std::ssize(weights) != shape.head_dim, Matrix(heads, rope_dim),
                  Matrix(heads, shape.head_dim - rope_dim)};
    for_each_weight(view, shape, heads, pairs, [&](std::int64_t head, bool rotates, std::int64_t at, std::int64_t of) {
        (rotates ? norm.rope : norm.nope)(head, at) = weights[static_cast<std::size_t>(of)] + view.rule.weight_offset;
    });
    return norm;
}

}  // namespace

Matrix HeadNorm::scales(std::int64_t tokens, const HeadColumns& rope_part, const HeadColumns& nope_part) const {
    const std::int64_t rows = heads();
    const auto dim = static_cast<double>(rope.cols() + nope.cols());
    Matrix result(tokens, whole ? 1 : rows);
    for_each_token(tokens, [&](std::int64_t token) {
        double all = 0;
        for (std::int64_t head = 0; head < rows; ++head) {
            const double sum = part_of(rope_part, token, head, rope.cols()).cast<double>().squaredNorm() +
                               part_of(nope_part, token, head, nope.cols()).cast<double>().squaredNorm();
            if (!whole) result(token, head) = static_cast<float>(1 / std::sqrt(sum / dim + eps));
            all += sum;
        }
        if (whole) {
            result(token, 0) = static_cast<float>(1 / std::sqrt(all / (dim * static_cast<double>(rows)) + eps));
        }
    });
    return result;
}

void HeadNorm::apply_part(const Matrix& scales, const Matrix& weights, const HeadColumns& part) {
    for_each_token(scales.rows(), [&](std::int64_t token) {
        for (std::int64_t head = 0; head < weights.rows(); ++head) {
            const float scale = scales(token, scales.cols() == 1 ? 0 : head);
            Row row = part_of(part, token, head, weights.cols());
            row = scale * row.cwiseProduct(weights.row(head));
        }
    });
}

void HeadNorm::apply(const Matrix& scales, const HeadColumns& rope_part, const HeadColumns& nope_part) const {
    apply_part(scales, rope, rope_part);
    apply_part(scales, nope, nope_part);
}

void HeadNorm::back(const Matrix& scales, const HeadColumns& rope_part, const HeadColumns& nope_part,
                    const HeadColumns& d_rope, const HeadColumns& d_nope) const {
    const std::int64_t together = whole ? heads() : 1;  // heads
    const auto numbers = static_cast<double>(together * (rope.cols() + nope.cols()));
    for_each_token(scales.rows(), [&](std::int64_t token) {
        for (std::int64_t first = 0; first < heads(); first += together) {
            const auto each = [&](const auto& body) {
                for (std::int64_t head = first; head < first + together; ++head) {
                    body(part_of(rope_part, token, head, rope.cols()), part_of(d_rope, token, head, rope.cols()),
                         rope.row(head));
                    body(part_of(nope_part, token, head, nope.cols()), part_of(d_nope, token, head, nope.cols()),
                         nope.row(head));
                }
            };
            double dot = 0;
            each([&](const Row& x, Row d, const auto& weight) {
                d = d.cwiseProduct(weight).eval();
                dot += x.cast<double>().dot(d.template cast<double>());
            });
            const auto scale = static_cast<double>(scales(token, whole ? 0 : first));
            const auto along = static_cast<float>(scale * scale * scale * dot / numbers);
            each([&](const Row& x, Row d, const auto&) { d = (static_cast<float>(scale) * d - along * x).eval(); });
        }
    });
}

HeadNorm HeadNorm::weight_gradient(const Matrix& scales, const HeadColumns& rope_part, const HeadColumns& nope_part,
                                   const HeadColumns& d_rope, const HeadColumns& d_nope) const {
    HeadNorm to{eps, whole, Matrix(rope.rows(), rope.cols()), Matrix(nope.rows(), nope.cols())};
    parallel_for(heads(), [&](std::int64_t head, std::vector<float>&) {
        const auto sum = [&](const HeadColumns& part, const HeadColumns& d, Eigen::Index dim) {
            Eigen::RowVectorXd all = Eigen::RowVectorXd::Zero(dim);
            for (std::int64_t token = 0; token < scales.rows(); ++token) {
                const float scale = scales(token, whole ? 0 : head);
                all += (scale * part_of(part, token, head, dim).cwiseProduct(part_of(d, token, head, dim)))
                           .template cast<double>();
            }
            return Eigen::RowVectorXf(all.cast<float>());
        };
        to.rope.row(head) = sum(rope_part, d_rope, rope.cols());
        to.nope.row(head) = sum(nope_part, d_nope, nope.cols());
    });
    return to;
}

void HeadNorm::add_to_weights(const NormView& view, const AttentionShape& shape,
                              std::span<const std::vector<std::int64_t>> pairs, float* to) const {
    for_each_weight(view, shape, heads(), pairs,
                    [&](std::int64_t head, bool rotates, std::int64_t at, std::int64_t of) {
                        to[of] += (rotates ? rope : nope)(head, at);
                    });
}

std::optional<HeadNorms> head_norms(const NormView& query, const NormView& key, const AttentionShape& shape,
                                    std::span<const std::vector<std::int64_t>> pairs) {
    if (!query) return std::nullopt;
    return HeadNorms{head_norm(query, shape, shape.num_heads, pairs), head_norm(key, shape, shape.num_kv_heads, pairs)};
}

}  // namespace mha2mla
