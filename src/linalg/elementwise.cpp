#include "elementwise.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "instruction_set.hpp"
#include "vectors.hpp"

namespace mha2mla {
namespace {

template <int kBytes>
struct Loops : VectorLoops<kBytes> {
    using Base = VectorLoops<kBytes>;
    using Base::kLanes, Base::load, Base::store, Base::exp;
    using typename Base::Floats;
    using Halves = VectorOf<float, kBytes / 2>;
    using Doubles = VectorOf<double, kBytes>;

    /// The first `count` lanes; the others become `rest`.
    MHA2MLA_INLINE void load_some(const float* from, std::int64_t count, float rest, Floats& to) {
        to = Floats{} + rest;
        for (std::int64_t i = 0; i < count; ++i) to[i] = from[i];
    }
    MHA2MLA_INLINE void store_some(const Floats& from, std::int64_t count, float* to) {
        for (std::int64_t i = 0; i < count; ++i) to[i] = from[i];
    }

    MHA2MLA_INLINE void exp_in_place(float* x, std::int64_t count) {
        Floats v;
        std::int64_t i = 0;
        for (; i + kLanes <= count; i += kLanes) {
            load(x + i, v);
            exp(v);
            store(v, x + i);
        }
        if (i == count) return;
        load_some(x + i, count - i, 0.0F, v);
        exp(v);
        store_some(v, count - i, x + i);
    }

    MHA2MLA_INLINE float softmax_piece(float* row, std::int64_t count, float& maximum, float& sum) {
        constexpr float kNothing = -std::numeric_limits<float>::infinity();
        const std::int64_t whole = count - count % kLanes;
        Floats v;
        Floats top = Floats{} + maximum;
        for (std::int64_t i = 0; i < whole; i += kLanes) {
            load(row + i, v);
            top = v > top ? v : top;
        }
        if (whole < count) {
            load_some(row + whole, count - whole, kNothing, v);
            top = v > top ? v : top;
        }
        const float before = maximum;
        for (std::int64_t i = 0; i < kLanes; ++i) maximum = top[i] > maximum ? top[i] : maximum;
        Floats total = {};
        for (std::int64_t i = 0; i < whole; i += kLanes) {
            load(row + i, v);
            v = v - maximum;
            exp(v);
            total = total + v;
            store(v, row + i);
        }
        if (whole < count) {
            load_some(row + whole, count - whole, kNothing, v);
            v = v - maximum;
            exp(v);
            total = total + v;
            store_some(v, count - whole, row + whole);
        }
        const float factor = before == maximum ? 1.0F : std::exp(before - maximum);
        sum *= factor;
        for (std::int64_t i = 0; i < kLanes; ++i) sum += total[i];
        return factor;
    }

    MHA2MLA_INLINE void silu_multiply(float* gate, const float* up, std::int64_t count) {
        Floats g, u;
        for (std::int64_t i = 0; i < count; i += kLanes) {
            const std::int64_t lanes = std::min(kLanes, count - i);
            if (lanes == kLanes) {
                load(gate + i, g);
                load(up + i, u);
            } else {
                load_some(gate + i, lanes, 0.0F, g);
                load_some(up + i, lanes, 0.0F, u);
            }
            Floats e = -g;
            exp(e);
            g = g / (e + 1.0F) * u;
            if (lanes == kLanes) {
                store(g, gate + i);
            } else {
                store_some(g, lanes, gate + i);
            }
        }
    }

    MHA2MLA_INLINE void rms_norm_row(const float* x, const float* weight, double eps, std::int64_t count, float* out) {
        Doubles squares = {};
        Halves half;
        std::int64_t i = 0;
        for (; i + kLanes / 2 <= count; i += kLanes / 2) {
            std::memcpy(&half, x + i, sizeof half);
            const Doubles value = __builtin_convertvector(half, Doubles);
            squares = squares + value * value;
        }
        double sum = 0;
        for (; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
        for (std::int64_t lane = 0; lane < kLanes / 2; ++lane) sum += squares[lane];
        const auto factor = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(count) + eps));
        for (i = 0; i < count; ++i) out[i] = x[i] * factor * weight[i];
    }
};

/// One row per instruction set.
struct Kernels {
    void (*exp_in_place)(float*, std::int64_t);
    float (*softmax_piece)(float*, std::int64_t, float&, float&);
    void (*silu_multiply)(float*, const float*, std::int64_t);
    void (*rms_norm_row)(const float*, const float*, double, std::int64_t, float*);
};

#define MHA2MLA_KERNELS(name, bytes, target)                                                                   \
    target void name##_exp(float* x, std::int64_t count) { Loops<bytes>::exp_in_place(x, count); }             \
    target float name##_softmax(float* row, std::int64_t count, float& maximum, float& sum) {                  \
        return Loops<bytes>::softmax_piece(row, count, maximum, sum);                                          \
    }                                                                                                          \
    target void name##_silu(float* gate, const float* up, std::int64_t count) {                                \
        Loops<bytes>::silu_multiply(gate, up, count);                                                          \
    }                                                                                                          \
    target void name##_norm(const float* x, const float* weight, double eps, std::int64_t count, float* out) { \
        Loops<bytes>::rms_norm_row(x, weight, eps, count, out);                                                \
    }                                                                                                          \
    constexpr Kernels name = {name##_exp, name##_softmax, name##_silu, name##_norm}

MHA2MLA_KERNELS(kBaseline, 16, );
#if defined(__x86_64__)
MHA2MLA_KERNELS(kAvx2, 32, MHA2MLA_AVX2);
const Kernels& best() { return has_avx2() ? kAvx2 : kBaseline; }
#else
const Kernels& best() { return kBaseline; }
#endif

}  // namespace

void exp_in_place(float* x, std::int64_t count) { best().exp_in_place(x, count); }
float softmax_piece(float* row, std::int64_t count, float& maximum, float& sum) {
    return best().softmax_piece(row, count, maximum, sum);
}
void silu_multiply(float* gate, const float* up, std::int64_t count) { best().silu_multiply(gate, up, count); }
void rms_norm_row(const float* x, const float* weight, double eps, std::int64_t count, float* out) {
    best().rms_norm_row(x, weight, eps, count, out);
}

}  // namespace mha2mla
