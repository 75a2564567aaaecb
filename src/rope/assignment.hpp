#pragma once
#include <cstdint>
#include <vector>

#include "mha2mla/matrix.hpp"

namespace mha2mla {

/// The best assignment of distinct columns to rows that are added one after another: the sum of values is largest
/// (Kuhn 1955; shortest augmenting paths with potentials, so that a row costs O(rows · columns)).
class Assignment {
public:
    /// @param values of columns, by kind of row; outlives this. [kinds, columns], finite.
    explicit Assignment(const MatrixD& values);

    /// Adds a row. There may be as many as columns. @return by how much the sum grew.
    double add(std::int64_t kind);
    /// The column of each row, in the order in which they were added.
    [[nodiscard]] std::vector<std::int64_t> columns() const;
    [[nodiscard]] double sum() const { return sum_; }

private:
    const MatrixD* values_;
    std::vector<std::int64_t> kinds_;   // of each row
    std::vector<std::int64_t> row_of_;  // of each column, -1: free
    std::vector<double> row_potential_, column_potential_;
    double sum_ = 0;
};

}  // namespace mha2mla
