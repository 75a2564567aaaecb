#include "elementwise.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "linalg/elementwise.cpp"
#include <hwy/foreach_target.h>

#include "vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mha2mla {
namespace HWY_NAMESPACE {
namespace {

// Eight at a time at most: sums of rows are the same with AVX2 and AVX-512.
using Floats = hn::CappedTag<float, 8>;
constexpr Floats kFloats;
constexpr std::int64_t kLanes = hn::MaxLanes(kFloats);

/// The first `count` lanes; the others become `rest`.
hn::Vec<Floats> load_some(const float* from, std::int64_t count, float rest) {
    float lanes[kLanes];
    std::fill_n(lanes, kLanes, rest);
    std::copy_n(from, count, lanes);
    return hn::LoadU(kFloats, lanes);
}
void store_some(hn::Vec<Floats> from, std::int64_t count, float* to) {
    float lanes[kLanes];
    hn::StoreU(from, kFloats, lanes);
    std::copy_n(lanes, count, to);
}

void exp_in_place(float* x, std::int64_t count) {
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) hn::StoreU(exp(kFloats, hn::LoadU(kFloats, x + i)), kFloats, x + i);
    if (i < count) store_some(exp(kFloats, load_some(x + i, count - i, 0.0F)), count - i, x + i);
}

float softmax_piece(float* row, std::int64_t count, float& maximum, float& sum) {
    constexpr float kNothing = -std::numeric_limits<float>::infinity();
    const std::int64_t whole = count - count % kLanes;
    auto top = hn::Set(kFloats, maximum);
    for (std::int64_t i = 0; i < whole; i += kLanes) top = hn::Max(hn::LoadU(kFloats, row + i), top);
    if (whole < count) top = hn::Max(load_some(row + whole, count - whole, kNothing), top);
    const float before = maximum;
    float lanes[kLanes];
    hn::StoreU(top, kFloats, lanes);
    for (const float lane : lanes) maximum = lane > maximum ? lane : maximum;
    const auto all = hn::Set(kFloats, maximum);
    auto total = hn::Zero(kFloats);
    for (std::int64_t i = 0; i < whole; i += kLanes) {
        const auto v = exp(kFloats, hn::Sub(hn::LoadU(kFloats, row + i), all));
        total = hn::Add(total, v);
        hn::StoreU(v, kFloats, row + i);
    }
    if (whole < count) {
        const auto v = exp(kFloats, hn::Sub(load_some(row + whole, count - whole, kNothing), all));
        total = hn::Add(total, v);
        store_some(v, count - whole, row + whole);
    }
    const float factor = before == maximum ? 1.0F : std::exp(before - maximum);
    sum *= factor;
    hn::StoreU(total, kFloats, lanes);
    for (const float lane : lanes) sum += lane;
    return factor;
}

double log_sum_exp(const float* x, std::int64_t count) {
    constexpr float kNothing = -std::numeric_limits<float>::infinity();
    constexpr std::int64_t kBlock = 8 * kLanes;  // whose sum float32 holds well enough
    auto largest = hn::Set(kFloats, kNothing);
    const std::int64_t whole = count - count % kLanes;
    for (std::int64_t i = 0; i < whole; i += kLanes) largest = hn::Max(hn::LoadU(kFloats, x + i), largest);
    if (whole < count) largest = hn::Max(load_some(x + whole, count - whole, kNothing), largest);
    float lanes[kLanes];
    hn::StoreU(largest, kFloats, lanes);
    float top = kNothing;
    for (const float lane : lanes) top = lane > top ? lane : top;
    const auto all = hn::Set(kFloats, top);
    double sum = 0;
    for (std::int64_t first = 0; first < count; first += kBlock) {
        const std::int64_t end = std::min(count, first + kBlock);
        auto total = hn::Zero(kFloats);
        std::int64_t i = first;
        for (; i + kLanes <= end; i += kLanes) {
            total = hn::Add(total, exp(kFloats, hn::Sub(hn::LoadU(kFloats, x + i), all)));
        }
        if (i < end) total = hn::Add(total, exp(kFloats, hn::Sub(load_some(x + i, end - i, kNothing), all)));
        hn::StoreU(total, kFloats, lanes);
        for (const float lane : lanes) sum += static_cast<double>(lane);
    }
    return static_cast<double>(top) + std::log(sum);
}

void silu_multiply(float* gate, const float* up, std::int64_t count) {
    const auto result = [](auto g, auto u) HWY_ATTR {
        return hn::Mul(hn::Div(g, hn::Add(exp(kFloats, hn::Neg(g)), hn::Set(kFloats, 1.0F))), u);
    };
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        hn::StoreU(result(hn::LoadU(kFloats, gate + i), hn::LoadU(kFloats, up + i)), kFloats, gate + i);
    }
    if (i == count) return;
    store_some(result(load_some(gate + i, count - i, 0.0F), load_some(up + i, count - i, 0.0F)), count - i, gate + i);
}

void rms_norm_row(const float* x, const float* weight, double eps, std::int64_t count, float* out) {
    const hn::Repartition<double, Floats> doubles;
    const hn::Rebind<float, decltype(doubles)> halves;
    constexpr std::int64_t kDoubles = kLanes / 2;
    auto squares = hn::Zero(doubles);
    std::int64_t i = 0;
    for (; i + kDoubles <= count; i += kDoubles) {
        const auto v = hn::PromoteTo(doubles, hn::LoadU(halves, x + i));
        squares = hn::MulAdd(v, v, squares);
    }
    double sum = 0;
    for (; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
    double lanes[kDoubles];
    hn::StoreU(squares, doubles, lanes);
    for (const double lane : lanes) sum += lane;
    const auto factor = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(count) + eps));
    for (i = 0; i < count; ++i) out[i] = x[i] * factor * weight[i];
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mha2mla
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mha2mla {

HWY_EXPORT(exp_in_place);
HWY_EXPORT(softmax_piece);
HWY_EXPORT(log_sum_exp);
HWY_EXPORT(silu_multiply);
HWY_EXPORT(rms_norm_row);

void exp_in_place(float* x, std::int64_t count) { HWY_DYNAMIC_DISPATCH(exp_in_place)(x, count); }
double log_sum_exp(const float* x, std::int64_t count) { return HWY_DYNAMIC_DISPATCH(log_sum_exp)(x, count); }
float softmax_piece(float* row, std::int64_t count, float& maximum, float& sum) {
    return HWY_DYNAMIC_DISPATCH(softmax_piece)(row, count, maximum, sum);
}
void silu_multiply(float* gate, const float* up, std::int64_t count) {
    HWY_DYNAMIC_DISPATCH(silu_multiply)(gate, up, count);
}
void rms_norm_row(const float* x, const float* weight, double eps, std::int64_t count, float* out) {
    HWY_DYNAMIC_DISPATCH(rms_norm_row)(x, weight, eps, count, out);
}

}  // namespace mha2mla
#endif
