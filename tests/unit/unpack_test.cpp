// Numbers of a cache unpacked, one by one against their definition.
#include "forward/unpack.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "support/every_target.hpp"

namespace mha2mla::test {
namespace {

class Unpack : public EveryTarget {};
MHA2MLA_ON_EVERY_TARGET(Unpack);

/// Value of sign, exponent and mantissa by IEEE 754, of a finite number.
double value_of(unsigned bits, int exponent_bits, int mantissa_bits) {
    const unsigned mantissa = bits & ((1U << mantissa_bits) - 1U);
    const int exponent = static_cast<int>(bits >> mantissa_bits & ((1U << exponent_bits) - 1U));
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                      : std::ldexp(mantissa + std::ldexp(1.0, mantissa_bits), exponent - bias - mantissa_bits);
    return bits >> (exponent_bits + mantissa_bits) != 0 ? -magnitude : magnitude;
}

struct Format {
    int exponent_bits, mantissa_bits;
    void (*decode)(const std::byte*, std::int64_t, float*);
};

TEST_P(Unpack, EveryFiniteNumberOf16BitsAtAnyAddress) {
    for (const auto& [exponent_bits, mantissa_bits, decode] : {Format{8, 7, decode_bf16}, Format{5, 10, decode_f16}}) {
        const unsigned infinity = ((1U << exponent_bits) - 1U) << mantissa_bits;
        std::vector<std::uint16_t> halves;
        for (unsigned bits = 0; bits < 0x10000U; ++bits) {
            if ((bits & infinity) != infinity) halves.push_back(static_cast<std::uint16_t>(bits));
        }
        std::vector<std::byte> bytes(2 * halves.size() + 1);
        std::memcpy(bytes.data() + 1, halves.data(), 2 * halves.size());
        std::vector<float> numbers(halves.size() + 1, 7.0F);
        decode(bytes.data() + 1, static_cast<std::int64_t>(halves.size()), numbers.data());
        for (std::size_t i = 0; i < halves.size(); ++i) {
            ASSERT_EQ(numbers[i], value_of(halves[i], exponent_bits, mantissa_bits)) << halves[i];
        }
        EXPECT_EQ(numbers.back(), 7.0F);
    }
}

TEST_P(Unpack, EveryLengthOf16BitsAndNothingBeyondIt) {
    std::vector<std::uint16_t> halves;
    for (unsigned i = 0; i < 40; ++i) halves.push_back(static_cast<std::uint16_t>(0x3C00U + 3 * i));
    const auto* bytes = reinterpret_cast<const std::byte*>(halves.data());
    for (std::int64_t count = 0; count < 40; ++count) {
        std::vector<float> bf16(static_cast<std::size_t>(count) + 1, 7.0F), f16 = bf16;
        decode_bf16(bytes, count, bf16.data());
        decode_f16(bytes, count, f16.data());
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
            ASSERT_EQ(bf16[i], value_of(halves[i], 8, 7));
            ASSERT_EQ(f16[i], value_of(halves[i], 5, 10));
        }
        EXPECT_EQ(bf16.back(), 7.0F);
        EXPECT_EQ(f16.back(), 7.0F);
    }
}

TEST_P(Unpack, CodesComeBackFromEveryLength) {
    constexpr float kStep = 0.37F, kOffset = -1.1F;
    for (const int bits : {8, 4, 2}) {
        for (std::int64_t count = 1; count <= 300; count += count < 140 ? 1 : 23) {
            std::vector<std::uint8_t> codes;
            for (std::int64_t i = 0; i < count; ++i) {
                codes.push_back(static_cast<std::uint8_t>((i * 37 + 11) % (1 << bits)));
            }
            std::vector<std::byte> packed(static_cast<std::size_t>(code_bytes(count, bits)));
            pack_codes(codes.data(), count, bits, packed.data());
            std::vector<float> numbers(codes.size() + 1, 7.0F);
            decode_codes(packed.data(), count, bits, kStep, kOffset, numbers.data());
            for (std::size_t i = 0; i < codes.size(); ++i) {
                ASSERT_NEAR(numbers[i], static_cast<double>(codes[i]) * kStep + kOffset, 1e-5)
                    << bits << " bits, number " << i << " of " << count;
            }
            EXPECT_EQ(numbers.back(), 7.0F);
        }
    }
}

TEST(ToBf16, RoundsToTheNearestBf16AndTiesToEven) {
    EXPECT_EQ(to_bf16(1.0F), 0x3F80);
    EXPECT_EQ(to_bf16(1.0F + 0x1p-8F), 0x3F80);            // halfway, down to the even one
    EXPECT_EQ(to_bf16(1.0F + 0x1p-7F + 0x1p-8F), 0x3F82);  // halfway, up to the even one
    EXPECT_EQ(to_bf16(1.0F + 0x1p-8F + 0x1p-20F), 0x3F81);
    EXPECT_EQ(to_bf16(-0.0F), 0x8000);
}

}  // namespace
}  // namespace mha2mla::test
