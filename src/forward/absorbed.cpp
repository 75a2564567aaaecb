#include "absorbed.hpp"

#include <algorithm>
#include <vector>

#include "../linalg/narrow.hpp"
#include "../support/parallel.hpp"

namespace mha2mla {
namespace {

/// Rows of one KV head as floats. @return [rows, in_features]
const float* head_rows(const LinearView& view, std::int64_t kv_head, std::int64_t rows, std::vector<float>& scratch) {
    const auto count = static_cast<std::size_t>(rows * view.in_features());
    scratch.resize(count);
    to_float(*view.weight, static_cast<std::uint64_t>(kv_head) * count, scratch);
    return scratch.data();
}

}  // namespace

void absorb_queries(const LinearView& up_k, std::int64_t num_kv_heads, std::int64_t tokens, MatrixIn q,
                    std::int64_t group, float* out) {
    const std::int64_t nope_dim = up_k.out_features() / num_kv_heads;
    const std::int64_t rank = up_k.in_features();
    parallel_for(num_kv_heads, [&](std::int64_t kv_head, std::vector<float>& scratch) {
        const float* weight = head_rows(up_k, kv_head, nope_dim, scratch);
        for (std::int64_t token = 0; token < tokens; ++token) {
            float* to = out + (token * num_kv_heads + kv_head) * group * rank;
            std::fill_n(to, group * rank, 0.0F);
            narrow_ab(group, rank, nope_dim, {q.data + token * q.stride + kv_head * group * nope_dim, nope_dim},
                      {weight, rank}, {to, rank});
        }
    });
}

void project_values(const LinearView& up_v, std::int64_t num_kv_heads, std::int64_t tokens, const float* o,
                    std::int64_t group, float* out) {
    const std::int64_t head_dim = up_v.out_features() / num_kv_heads;
    const std::int64_t rank = up_v.in_features();
    std::vector<float> bias(static_cast<std::size_t>(up_v.out_features()));
    if (up_v.bias != nullptr) to_float(*up_v.bias, 0, bias);
    parallel_for(num_kv_heads, [&](std::int64_t kv_head, std::vector<float>& scratch) {
        const float* weight = head_rows(up_v, kv_head, head_dim, scratch);
        for (std::int64_t token = 0; token < tokens; ++token) {
            const std::int64_t row = (token * num_kv_heads + kv_head) * group;
            for (std::int64_t g = 0; g < group; ++g) {
                std::copy_n(bias.data() + kv_head * head_dim, head_dim, out + (row + g) * head_dim);
            }
            narrow_abt(group, head_dim, rank, {o + row * rank, rank}, {weight, rank}, true,
                       {out + row * head_dim, head_dim});
        }
    });
}

}  // namespace mha2mla
