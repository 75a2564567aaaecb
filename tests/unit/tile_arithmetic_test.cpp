// The loops of attention over a tile against the definition in double, in float32 and in BF16.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "forward/attend.hpp"
#include "forward/unpack.hpp"
#include "mha2mla/matrix.hpp"
#include "support/every_target.hpp"
#include "support/normal_matrix.hpp"

namespace mha2mla::test {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

float rounded_to_bf16(float number) {
    const std::uint32_t word = static_cast<std::uint32_t>(to_bf16(number)) << 16U;
    float result = 0;
    std::memcpy(&result, &word, 4);
    return result;
}

/// A matrix as an arithmetic takes it.
struct Stored {
    std::vector<std::byte> bytes;
    MatrixD values;
    std::int64_t stride;

    Stored(const TileArithmetic& arithmetic, const Matrix& numbers)
        : bytes(static_cast<std::size_t>(numbers.size() * arithmetic.number_bytes)),
          values(numbers.cast<double>()),
          stride(numbers.cols() * arithmetic.number_bytes) {
        if (arithmetic.number_bytes == 4) {
            std::memcpy(bytes.data(), numbers.data(), bytes.size());
            return;
        }
        for (std::int64_t i = 0; i < numbers.size(); ++i) {
            const std::uint16_t half = to_bf16(numbers.data()[i]);
            std::memcpy(bytes.data() + 2 * i, &half, 2);
        }
        values = numbers.unaryExpr(&rounded_to_bf16).cast<double>();
    }
    [[nodiscard]] TileIn tile() const { return {bytes.data(), stride}; }
};

class Tiles : public EveryTarget {
protected:
    /// body(arithmetic) for each that runs on the target.
    template <typename Body>
    void for_each(const Body& body) {
        {
            SCOPED_TRACE("float32");
            body(float_tiles());
        }
        if (bf16_tiles() == nullptr) return;
        SCOPED_TRACE("BF16");
        body(*bf16_tiles());
    }
};
MHA2MLA_ON_EVERY_TARGET(Tiles);

TEST_P(Tiles, LogitsOfPanels) {
    for_each([](const TileArithmetic& arithmetic) {
        for (const std::int64_t tokens : {1, 7, 8, 19}) {
            for (const std::int64_t rows : {1, 16, 21, 48}) {
                for (const std::int64_t dim : {2, 30, 64}) {
                    SCOPED_TRACE(testing::Message() << tokens << " tokens, " << rows << " rows of " << dim);
                    const std::int64_t panels = panels_of(rows);
                    const Stored tile(arithmetic, normal_matrix(tokens, dim + 4, 1));
                    const Matrix q = normal_matrix(rows, dim, 2);
                    const Stored queries(arithmetic, q);
                    const std::int64_t panel_bytes = dim * kPanelRows * arithmetic.number_bytes;
                    std::vector<std::byte> packed(static_cast<std::size_t>(panels * panel_bytes));
                    for (std::int64_t panel = 0; panel < panels; ++panel) {
                        // In two parts, as rows of different heads come.
                        const std::int64_t first = panel * kPanelRows;
                        const std::int64_t count = std::min(kPanelRows, rows - first);
                        std::byte* to = packed.data() + panel * panel_bytes;
                        const std::int64_t part = count / 3;
                        arithmetic.pack(part, dim, {q.row(first).data(), dim}, 0, to);
                        arithmetic.pack(count - part, dim, {q.row(first + part).data(), dim}, part, to);
                    }
                    const Matrix before = normal_matrix(tokens, panels * kPanelRows, 3);
                    Matrix logits = before;
                    arithmetic.panel_logits(tokens, panels, dim, tile.tile(), packed.data(), panel_bytes,
                                            {logits.data(), logits.cols()});
                    MatrixD wanted = before.cast<double>();
                    wanted.leftCols(rows) += tile.values.leftCols(dim) * queries.values.transpose();
                    EXPECT_LT((logits.cast<double>() - wanted).cwiseAbs().maxCoeff(), 2e-5);
                }
            }
        }
    });
}

TEST_P(Tiles, LogitsOfRows) {
    for_each([](const TileArithmetic& arithmetic) {
        for (const std::int64_t tokens : {1, 4, 11}) {
            for (const std::int64_t rows : {1, 3, 4, 6}) {
                for (const std::int64_t dim : {2, 16, 30, 64, 70}) {
                    SCOPED_TRACE(testing::Message() << tokens << " tokens, " << rows << " rows of " << dim);
                    const Stored tile(arithmetic, normal_matrix(tokens, dim + 4, 1));
                    const Matrix q = normal_matrix(rows, dim, 2);
                    std::vector<std::byte> converted(static_cast<std::size_t>(q.size() * arithmetic.number_bytes));
                    arithmetic.convert(q.data(), q.size(), converted.data());
                    EXPECT_EQ(converted, Stored(arithmetic, q).bytes);
                    const Matrix before = normal_matrix(tokens, rows + 2, 3);
                    Matrix logits = before;
                    arithmetic.row_logits(tokens, rows, dim, tile.tile(), converted.data(), {logits.data(), rows + 2});
                    MatrixD wanted = before.cast<double>();
                    wanted.leftCols(rows) += tile.values.leftCols(dim) * Stored(arithmetic, q).values.transpose();
                    EXPECT_LT((logits.cast<double>() - wanted).cwiseAbs().maxCoeff(), 2e-5);
                }
            }
        }
    });
}

/// Two tiles one after the other, as attention takes them: softmax of their logits and weighted sums of their values.
TEST_P(Tiles, SoftmaxAndWeightedSumsOfTwoTiles) {
    for_each([](const TileArithmetic& arithmetic) {
        // BF16 rounds weights to 8 bits, with which their sum goes.
        const double tolerance = arithmetic.number_bytes == 4 ? 2e-6 : 4e-3;
        for (const std::int64_t tokens : {1, 2, 7, 32}) {
            for (const std::int64_t rows : {1, 4, 13, 32}) {
                for (const std::int64_t dim : {6, 16, 64, 90}) {
                    SCOPED_TRACE(testing::Message() << tokens << " tokens, " << rows << " rows of " << dim);
                    const std::int64_t columns = panels_of(rows) * kPanelRows;
                    Matrix logits = 3 * normal_matrix(2 * tokens, columns, 1);
                    logits(0, 0) = -kInfinity;  // a token that the first row does not see
                    const Matrix numbers = normal_matrix(2 * tokens, dim + 8, 2);
                    std::vector<float> maximum(static_cast<std::size_t>(columns), kLowest);
                    std::vector<float> sum(static_cast<std::size_t>(columns)), factor(sum);
                    Matrix out = Matrix::Zero(rows, dim);
                    for (std::int64_t piece = 0; piece < 2; ++piece) {
                        Matrix weights = logits.middleRows(piece * tokens, tokens);
                        const bool changed = arithmetic.softmax(tokens, columns, {weights.data(), columns},
                                                                maximum.data(), sum.data(), factor.data());
                        EXPECT_EQ(changed, std::ranges::any_of(factor, [](float f) { return f != 1.0F; }));
                        for (std::int64_t row = 0; row < rows; ++row)
                            out.row(row) *= factor[static_cast<std::size_t>(row)];
                        const Stored tile(arithmetic, numbers.middleRows(piece * tokens, tokens));
                        std::vector<std::byte> scratch(tile.bytes.size() * 2 + 128);
                        const TileIn values = arithmetic.prepare_values(tokens, dim + 8, tile.tile(), scratch.data());
                        arithmetic.weigh(tokens, rows, dim, {weights.data(), columns}, values, 4, {out.data(), dim});
                    }
                    const MatrixD values = Stored(arithmetic, numbers).values.middleCols(4, dim);
                    for (std::int64_t row = 0; row < rows; ++row) {
                        const Eigen::ArrayXd column = logits.col(row).cast<double>().array();
                        if (!(column > -1e300).any()) continue;
                        const Eigen::VectorXd weights = (column - column.maxCoeff()).exp();
                        EXPECT_EQ(maximum[static_cast<std::size_t>(row)], static_cast<float>(column.maxCoeff()));
                        EXPECT_NEAR(sum[static_cast<std::size_t>(row)] / weights.sum(), 1, tolerance);
                        const Eigen::RowVectorXd wanted = weights.transpose() * values / weights.sum();
                        const Eigen::RowVectorXd found =
                            out.row(row).cast<double>() / static_cast<double>(sum[static_cast<std::size_t>(row)]);
                        EXPECT_LT((found - wanted).cwiseAbs().maxCoeff(), 2 * tolerance);
                    }
                }
            }
        }
    });
}

}  // namespace
}  // namespace mha2mla::test
