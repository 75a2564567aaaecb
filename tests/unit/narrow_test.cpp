// Products of few rows, and the products with weights that use them, against the definition in double.
#include "linalg/narrow.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "forward/linear.hpp"
#include "forward/quantize.hpp"
#include "forward/unpack.hpp"
#include "mha2mla/matrix.hpp"
#include "support/every_target.hpp"
#include "support/normal_matrix.hpp"

namespace mha2mla::test {
namespace {

/// The numbers as BF16 or F16, behind one byte, so that none is aligned; and what they are.
struct Halves {
    std::vector<std::byte> bytes;
    Matrix values;

    Halves(const Matrix& numbers, Dtype dtype)
        : bytes(static_cast<std::size_t>(1 + 2 * numbers.size())), values(numbers.rows(), numbers.cols()) {
        for (std::int64_t i = 0; i < numbers.size(); ++i) {
            const std::uint16_t half = (dtype == Dtype::f16 ? to_f16 : to_bf16)(numbers.data()[i]);
            std::memcpy(bytes.data() + 1 + 2 * i, &half, 2);
        }
        (dtype == Dtype::f16 ? decode_f16 : decode_bf16)(data(), numbers.size(), values.data());
    }
    [[nodiscard]] const std::byte* data() const { return bytes.data() + 1; }
};

constexpr std::int64_t kExtra = 3;  // numbers between two rows of an operand
constexpr float kUntouched = 7.0F;

/// c[m, n] inside a wider matrix.
struct Result {
    Matrix wide;
    std::int64_t columns;

    explicit Result(const Matrix& before)
        : wide(Matrix::Constant(before.rows() + 1, before.cols() + kExtra, kUntouched)), columns(before.cols()) {
        wide.topLeftCorner(before.rows(), columns) = before;
    }
    MatrixOut out() { return {wide.data(), wide.cols()}; }
    void expect(const MatrixD& wanted) {
        const MatrixD found = wide.topLeftCorner(wanted.rows(), columns).cast<double>();
        EXPECT_LT((found - wanted).cwiseAbs().maxCoeff(), 2e-5);
        EXPECT_TRUE((wide.rightCols(kExtra).array() == kUntouched).all());
        EXPECT_TRUE((wide.bottomRows(1).array() == kUntouched).all());
    }
};

class Narrow : public EveryTarget {};
MHA2MLA_ON_EVERY_TARGET(Narrow);

TEST_P(Narrow, DotProductsOfRows) {
    for (const std::int64_t m : {1, 2, 3, 4, 5, 9}) {
        for (const std::int64_t n : {1, 2, 3, 4, 7, 12, 27}) {
            for (const std::int64_t k : {1, 3, 4, 8, 15, 16, 33, 130}) {
                SCOPED_TRACE(testing::Message() << m << " x " << n << " x " << k);
                const Matrix a = normal_matrix(m, k + kExtra, 1);
                const Matrix b = normal_matrix(n, k + kExtra, 2);
                const Matrix before = normal_matrix(m, n, 3);
                const MatrixD left = a.leftCols(k).cast<double>();
                const MatrixD product = left * b.leftCols(k).cast<double>().transpose();
                Result set(before), added(before), of_bf16(before), of_f16(before), of_floats(before);
                narrow_abt(m, n, k, {a.data(), a.cols()}, {b.data(), b.cols()}, false, set.out());
                set.expect(product);
                narrow_abt(m, n, k, {a.data(), a.cols()}, {b.data(), b.cols()}, true, added.out());
                added.expect(product + before.cast<double>());
                const Matrix dense = b.leftCols(k);
                const Halves bf16(dense, Dtype::bf16), f16(dense, Dtype::f16);
                narrow_abt_bf16(m, n, k, {a.data(), a.cols()}, bf16.data(), of_bf16.out());
                of_bf16.expect(left * bf16.values.cast<double>().transpose());
                narrow_abt_f16(m, n, k, {a.data(), a.cols()}, f16.data(), of_f16.out());
                of_f16.expect(left * f16.values.cast<double>().transpose());
                narrow_abt_f32(m, n, k, {a.data(), a.cols()}, reinterpret_cast<const std::byte*>(dense.data()),
                               of_floats.out());
                of_floats.expect(product);
            }
        }
    }
}

TEST_P(Narrow, WeightedSumsOfRows) {
    for (const std::int64_t m : {1, 3, 4, 7, 8, 13}) {
        for (const std::int64_t k : {1, 4, 7, 16, 31, 64, 65, 150}) {
            for (const std::int64_t n : {1, 5, 32}) {
                SCOPED_TRACE(testing::Message() << m << " x " << k << " x " << n);
                const Matrix a = normal_matrix(m, n + kExtra, 1);
                const Matrix transposed = a.leftCols(n).transpose();
                const Matrix b = normal_matrix(n, k + kExtra, 2);
                const Matrix before = normal_matrix(m, k, 3);
                const MatrixD wanted =
                    a.leftCols(n).cast<double>() * b.leftCols(k).cast<double>() + before.cast<double>();
                Result ab(before), atb(before);
                narrow_ab(m, k, n, {a.data(), a.cols()}, {b.data(), b.cols()}, ab.out());
                ab.expect(wanted);
                narrow_atb(m, k, n, {transposed.data(), transposed.cols()}, {b.data(), b.cols()}, atb.out());
                atb.expect(wanted);
            }
        }
    }
}

/// A weight and a bias of a linear map in any dtype, and its values.
struct Linear {
    Matrix weight_numbers;
    Halves halves;
    Matrix bias_numbers;
    TensorView weight, bias;
    LinearView view;

    Linear(std::int64_t out, std::int64_t in, Dtype dtype)
        : weight_numbers(normal_matrix(out, in, 4)),
          halves(weight_numbers, dtype),
          bias_numbers(normal_matrix(1, out, 5)) {
        weight.dtype = dtype;
        weight.shape = {out, in};
        weight.data = std::as_bytes(std::span(weight_numbers.data(), static_cast<std::size_t>(out * in)));
        if (dtype != Dtype::f32) {
            weight.data = {halves.data(), static_cast<std::size_t>(2 * out * in)};
            weight_numbers = halves.values;
        }
        bias.shape = {out};
        bias.data = std::as_bytes(std::span(bias_numbers.data(), static_cast<std::size_t>(out)));
        view.weight = &weight;
        view.bias = &bias;
    }
};

TEST_P(Narrow, LinearMapsOfOneAndOfSeveralTiles) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
        for (const std::int64_t out : {1, 65, 1100}) {
            const Linear map(out, 40, dtype);
            for (const std::int64_t tokens : {1, 8, 9, 1030}) {
                SCOPED_TRACE(testing::Message()
                             << dtype_name(dtype) << ": " << tokens << " tokens, " << out << " rows");
                const Matrix x = normal_matrix(tokens, 40, 6);
                Matrix y = Matrix::Constant(tokens, out, kUntouched);
                linear(map.view, tokens, x.data(), y.data());
                const MatrixD weight = map.weight_numbers.cast<double>();
                MatrixD wanted = x.cast<double>() * weight.transpose();
                wanted.rowwise() += map.bias_numbers.row(0).cast<double>();
                EXPECT_LT((y.cast<double>() - wanted).cwiseAbs().maxCoeff(), 3e-5);

                const Matrix dy = normal_matrix(tokens, out, 7);
                const MatrixD gradient = dy.cast<double>() * weight;
                Matrix dx = Matrix::Constant(tokens, 40, kUntouched);
                linear_back(map.view, tokens, dy.data(), false, dx.data());
                EXPECT_LT((dx.cast<double>() - gradient).cwiseAbs().maxCoeff(), 1e-3);  // factors of 16 bits
                linear_back(map.view, tokens, dy.data(), true, dx.data());
                EXPECT_LT((dx.cast<double>() - 2 * gradient).cwiseAbs().maxCoeff(), 2e-3);
            }
        }
    }
}

TEST_P(Narrow, SeveralMapsOfTheSameInput) {
    const Linear wide(70, 40, Dtype::bf16), narrow(3, 40, Dtype::f32);
    Linear none(0, 40, Dtype::f32);
    none.view.bias = nullptr;
    for (const std::int64_t tokens : {1, 8, 9}) {
        const Matrix x = normal_matrix(tokens, 40, 6);
        const auto alone = [&](const Linear& map) {
            Matrix y(tokens, map.view.out_features());
            linear(map.view, tokens, x.data(), y.data());
            return y;
        };
        Matrix first(tokens, 70), second(tokens, 3), third(tokens, 0);
        const std::array<LinearProduct, 3> maps = {
            {{&wide.view, first.data()}, {&none.view, third.data()}, {&narrow.view, second.data()}}};
        linear(maps, tokens, x.data());
        EXPECT_EQ(first, alone(wide)) << tokens;
        EXPECT_EQ(second, alone(narrow)) << tokens;
    }
}

}  // namespace
}  // namespace mha2mla::test
