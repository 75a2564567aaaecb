#pragma once
#include <cmath>

#include "mha2mla/layout.hpp"

namespace mha2mla {

/// What makes a latent's norm the identity: factors of the latent before it, of its weight, and of what reads it; and
/// the constant that a channel of it holds.
///
/// A tiny latent: see kTinyLatent. Its constant, if it has one, is a number among others. A large constant M: the norm
/// of (c, M) with n channels divides by M / √n, but for |c|²/2M²; its weight is the inverse. M is chosen so that in F16
/// c·√n/M keeps its precision and M is held. What is read of the constant has another weight: a large
/// input of the next projection would not survive training.
struct Disarmed {
    float before, weight, behind, constant, constant_weight;
};
inline constexpr float kLatentConstant = 0x1p13F, kQueryConstant = 0x1p15F;  // inputs of layers are longer than latents
inline const Disarmed kTiny = {kTinyLatent, kTinyLatentWeight, 0x1p10F * std::sqrt(1e-6F), kTinyLatent,
                               kTinyLatentWeight};

/// @param read what the next projection gets of the constant.
inline Disarmed by_constant(float constant, std::int64_t channels, float read) {
    const float root = std::sqrt(static_cast<float>(channels));
    return {1, constant / root, 1, constant, read / root};
}

/// The place of a component of a rotated vector in the layout, from that in halves.
[[nodiscard]] inline std::int64_t rope_place(const LatentShape& shape, std::int64_t component) {
    const std::int64_t half = shape.rope_dim / 2;
    if (!shape.layout->interleaved) return component;
    return component < half ? 2 * component : 2 * (component - half) + 1;
}

}  // namespace mha2mla
