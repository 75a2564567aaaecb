#include "quantize.hpp"

#include <Eigen/Core>
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "mha2mla/error.hpp"
#include "unpack.hpp"

namespace mha2mla {
namespace {

// Badri & Shaji (2023): the norm of the error, the weight of the quadratic term, its growth, and how often.
constexpr float kNorm = 0.7F;
constexpr float kBeta = 10.0F;
constexpr float kGrowth = 1.01F;
constexpr int kIterations = 20;

float from_f16(std::uint16_t half) {
    float value = 0;
    decode_f16(reinterpret_cast<const std::byte*>(&half), 1, &value);
    return value;
}

/// sign(x) max(0, |x| - |x|^(p-1) / β), the generalised soft threshold.
float shrink(float x, float beta) {
    const float magnitude = std::abs(x);
    if (magnitude < 1e-6F) return 0.0F;
    return std::copysign(std::max(0.0F, magnitude - std::pow(magnitude, kNorm - 1.0F) / beta), x);
}

float code_of(float x, float step, float offset, float most) {
    return std::clamp(std::nearbyint((x - offset) / step), 0.0F, most);
}

/// Alternates between the error's sparse part and the offset, until the mean error no longer falls.
float hqq_offset(const float* x, std::int64_t count, float step, float lowest, float most) {
    float offset = lowest;
    float best = lowest;
    float least = std::numeric_limits<float>::infinity();
    float beta = kBeta;
    for (int i = 0; i < kIterations; ++i, beta *= kGrowth) {
        float error = 0;
        float next = 0;
        for (std::int64_t j = 0; j < count; ++j) {
            const float code = code_of(x[j], step, offset, most);
            const float difference = x[j] - (code * step + offset);
            error += std::abs(difference);
            next += x[j] - shrink(difference, beta) - code * step;
        }
        if (error >= least) break;
        least = error;
        best = offset;
        offset = next / static_cast<float>(count);
    }
    return best;
}

}  // namespace

std::uint16_t to_f16(float value) {
    if (!(std::abs(value) < 65520.0F)) {
        throw Error(ErrorCode::numeric,
                    "a key, value or latent of " + std::to_string(value) + " does not fit the KV cache's 16-bit floats",
                    Remedy::wider_cache);
    }
    return static_cast<Eigen::half>(value).x;
}

GroupScale quantize_group(const float* x, std::int64_t count, int bits, Quantizer quantizer, std::uint8_t* codes) {
    const auto [low, high] = std::minmax_element(x, x + count);
    const auto most = static_cast<float>((1U << static_cast<unsigned>(bits)) - 1U);
    // What is stored is what the codes are made for.
    GroupScale scale{to_f16((*high - *low) / most), to_f16(*low)};
    const float step = from_f16(scale.step);
    if (step == 0.0F) {
        std::fill_n(codes, count, std::uint8_t{0});
        return scale;
    }
    if (quantizer == Quantizer::hqq) scale.offset = to_f16(hqq_offset(x, count, step, *low, most));
    const float offset = from_f16(scale.offset);
    for (std::int64_t i = 0; i < count; ++i) codes[i] = static_cast<std::uint8_t>(code_of(x[i], step, offset, most));
    return scale;
}

}  // namespace mha2mla
