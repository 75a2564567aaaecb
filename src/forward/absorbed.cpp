#include "absorbed.hpp"

#include <algorithm>
#include <vector>

#include "../linalg/narrow.hpp"
#include "../support/parallel.hpp"

namespace mha2mla {
namespace {

/// Rows of one head as floats. @return [dim, in_features]
const float* head_rows(const LinearView& view, const UpRows& rows, std::int64_t head, std::vector<float>& scratch) {
    const auto width = static_cast<std::uint64_t>(view.in_features());
    scratch.resize(static_cast<std::size_t>(rows.dim) * width);
    to_float(*view.weight, static_cast<std::uint64_t>(rows.at.first + head * rows.at.stride) * width, scratch);
    return scratch.data();
}

}  // namespace

void absorb_queries(const LinearView& up_k, const UpRows& rows, std::int64_t tokens, MatrixIn q, float* out) {
    const std::int64_t rank = up_k.in_features();
    const std::int64_t dim = rows.dim, group = rows.group;
    parallel_for(rows.heads, [&](std::int64_t head, std::vector<float>& scratch) {
        const float* weight = head_rows(up_k, rows, head, scratch);
        for (std::int64_t token = 0; token < tokens; ++token) {
            float* to = out + (token * rows.heads + head) * group * rank;
            std::fill_n(to, group * rank, 0.0F);
            narrow_ab(group, rank, dim, {q.data + token * q.stride + head * group * dim, dim}, {weight, rank},
                      {to, rank});
        }
    });
}

void project_values(const LinearView& up_v, const UpRows& rows, std::int64_t tokens, const float* o, float* out) {
    const std::int64_t rank = up_v.in_features();
    std::vector<float> bias(static_cast<std::size_t>(up_v.out_features()));
    if (up_v.bias != nullptr) to_float(*up_v.bias, 0, bias);
    parallel_for(rows.heads, [&](std::int64_t head, std::vector<float>& scratch) {
        const float* weight = head_rows(up_v, rows, head, scratch);
        const float* bias_of_head = bias.data() + rows.at.first + head * rows.at.stride;
        for (std::int64_t token = 0; token < tokens; ++token) {
            const std::int64_t row = (token * rows.heads + head) * rows.group;
            for (std::int64_t g = 0; g < rows.group; ++g) {
                std::copy_n(bias_of_head, rows.dim, out + (row + g) * rows.dim);
            }
            narrow_abt(rows.group, rows.dim, rank, {o + row * rank, rank}, {weight, rank}, true,
                       {out + row * rows.dim, rows.dim});
        }
    });
}

}  // namespace mha2mla
