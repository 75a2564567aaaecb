// q4_k as llama.cpp's reference quantiser chooses it (without an importance matrix): each part of 32 gets the scale and
// minimum that lose least of twenty that lie side by side, errors weighted by |x| + √(mean x²). Sums are in the same
// order and precision as there, so that the blocks are the same.
#include <algorithm>
#include <array>
#include <cmath>

#include "block_formats.hpp"

namespace mha2mla {
namespace {

constexpr float kTopLevel = 15, kTopScale = 63;
using Part = std::array<float, kPartSize>;

/// To the nearest integer, halves to even, of magnitudes below 2^22.
float nearest(float value) {
    constexpr float kWhole = 0x1.8p23F;  // neighbours of this float are whole numbers
    return (value + kWhole) - kWhole;
}

/// x ≈ scale · level + minimum with minimum <= 0.
struct Fit {
    float scale = 0, minimum = 0;
};

Part weights_of(Floats x) {
    float squares = 0;
    for (const float value : x) squares += value * value;
    const float mean = std::sqrt(squares / static_cast<float>(kPartSize));
    Part weights{};
    for (std::size_t i = 0; i < kPartSize; ++i) weights.at(i) = mean + std::abs(x[i]);
    return weights;
}

void round_all(Floats x, float minimum, float factor, Part& levels) {
    for (std::size_t i = 0; i < kPartSize; ++i) {
        levels.at(i) = std::clamp(nearest(factor * (x[i] - minimum)), 0.0F, kTopLevel);
    }
}

float error_of(Floats x, const Part& weights, const Part& levels, const Fit& fit) {
    float sum = 0;
    for (std::size_t i = 0; i < kPartSize; ++i) {
        const float difference = fit.scale * levels.at(i) + fit.minimum - x[i];
        sum += weights.at(i) * (difference * difference);
    }
    return sum;
}

/// Weighted sums over a part, of which only those with levels differ between attempts.
struct Sums {
    float weights, x, levels, squares, products;
};

/// Scale and minimum of least weighted squares for given levels; nothing if all levels are equal.
bool solve(const Sums& s, Fit& fit) {
    const float determinant = s.weights * s.squares - s.levels * s.levels;
    if (!(determinant > 0)) return false;
    fit.scale = (s.weights * s.products - s.x * s.levels) / determinant;
    fit.minimum = (s.squares * s.x - s.levels * s.products) / determinant;
    if (fit.minimum > 0) fit = {s.products / s.squares, 0};
    return true;
}

Fit fit_part(Floats x) {
    const Part weights = weights_of(x);
    float low = x[0], high = x[0];
    Sums sums{weights[0], weights[0] * x[0], 0, 0, 0};
    for (std::size_t i = 1; i < kPartSize; ++i) {
        low = std::min(low, x[i]);
        high = std::max(high, x[i]);
        sums.weights += weights.at(i);
        sums.x += weights.at(i) * x[i];
    }
    low = std::min(low, 0.0F);
    if (high == low) return {0, low};

    Part levels{};
    const float first = kTopLevel / (high - low);
    Fit best{1 / first, low};
    round_all(x, low, first, levels);
    float least = error_of(x, weights, levels, best);
    constexpr int kAttempts = 20;
    for (int attempt = 0; attempt <= kAttempts; ++attempt) {
        // The minimum is that of the best fit so far.
        const float factor = (-1.0F + 0.1F * static_cast<float>(attempt) + kTopLevel) / (high - best.minimum);
        round_all(x, best.minimum, factor, levels);
        sums.levels = sums.squares = sums.products = 0;
        for (std::size_t i = 0; i < kPartSize; ++i) {
            const float weight = weights.at(i), level = levels.at(i);
            sums.levels += weight * level;
            sums.squares += weight * level * level;
            sums.products += weight * level * x[i];
        }
        Fit fit;
        if (!solve(sums, fit)) continue;
        const float error = error_of(x, weights, levels, fit);
        if (error < least) {
            least = error;
            best = fit;
        }
    }
    return best;
}

void quantize_block(Floats x, std::span<std::byte> to) {
    std::array<Fit, kParts> fits;
    float top_scale = 0, top_offset = 0;
    for (std::size_t part = 0; part < kParts; ++part) {
        Fit& fit = fits.at(part);
        fit = fit_part(x.subspan(part * kPartSize, kPartSize));
        top_scale = std::max(top_scale, fit.scale);
        top_offset = std::max(top_offset, -fit.minimum);
    }
    std::fill(to.begin(), to.end(), std::byte{0});
    const float scale = put_half(top_scale / kTopScale, to.data());
    const float offset = put_half(top_offset / kTopScale, &to[2]);
    const std::span<std::byte> scales = to.subspan(4, kPackedScales), low = to.subspan(4 + kPackedScales);
    const auto in_units = [](float value, float unit) {
        return static_cast<unsigned>(
            std::clamp(nearest((unit > 0 ? kTopScale / unit : 0.0F) * value), 0.0F, kTopScale));
    };
    for (std::size_t part = 0; part < kParts; ++part) {
        const PartScale packed{in_units(fits.at(part).scale, top_scale), in_units(-fits.at(part).minimum, top_offset)};
        pack_scale(packed, part, scales);
        const float factor = scale * static_cast<float>(packed.scale);
        const float minimum = offset * static_cast<float>(packed.minimum);
        for (std::size_t i = 0; factor != 0 && i < kPartSize; ++i) {
            const float level = std::clamp(nearest((x[part * kPartSize + i] + minimum) / factor), 0.0F, kTopLevel);
            low[part / 2 * kPartSize + i] |= static_cast<std::byte>(static_cast<unsigned>(level) << (part % 2 * 4));
        }
    }
}

}  // namespace

void quantize_q4_k(Floats values, std::span<std::byte> to) {
    constexpr std::size_t kBytes = 144;
    for (std::size_t index = 0; index < values.size() / kElementsOfParts; ++index) {
        quantize_block(values.subspan(index * kElementsOfParts, kElementsOfParts), to.subspan(index * kBytes, kBytes));
    }
}

}  // namespace mha2mla
