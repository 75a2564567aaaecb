#include "assignment.hpp"

#include <limits>

#include "mha2mla/error.hpp"

namespace mha2mla {

Assignment::Assignment(const MatrixD& values)
    : values_(&values),
      row_of_(static_cast<std::size_t>(values.cols()), -1),
      column_potential_(static_cast<std::size_t>(values.cols()), 0.0) {}

double Assignment::add(std::int64_t kind) {
    const std::size_t count = row_of_.size();
    if (kinds_.size() == count) throw Error(ErrorCode::usage, "more rows than columns to assign");
    kinds_.push_back(kind);
    row_potential_.push_back(0);
    // Costs are negative values, reduced by potentials: never below zero for rows that are in, and zero where assigned.
    const auto reduced = [&](std::size_t row, std::size_t column) {
        return -(*values_)(kinds_[row], static_cast<Eigen::Index>(column)) - row_potential_[row] -
               column_potential_[column];
    };
    constexpr double kFar = std::numeric_limits<double>::infinity();
    std::vector<double> distance(count, kFar);
    std::vector<std::int64_t> before(count, -1);  // the column whose row reached this one; -1: the new row
    std::vector<bool> done(count, false);
    std::vector<std::size_t> path;  // columns that are done, in order
    std::int64_t at = -1;
    std::size_t row = kinds_.size() - 1;
    double so_far = 0;
    while (true) {
        double least = kFar;
        std::size_t nearest = 0;
        for (std::size_t column = 0; column < count; ++column) {
            if (done[column]) continue;
            const double length = so_far + reduced(row, column);
            if (length < distance[column]) {
                distance[column] = length;
                before[column] = at;
            }
            if (distance[column] < least) {
                least = distance[column];
                nearest = column;
            }
        }
        so_far = least;
        at = static_cast<std::int64_t>(nearest);
        if (row_of_[nearest] < 0) break;
        done[nearest] = true;
        path.push_back(nearest);
        row = static_cast<std::size_t>(row_of_[nearest]);
    }
    row_potential_.back() += so_far;
    for (const std::size_t column : path) {
        row_potential_[static_cast<std::size_t>(row_of_[column])] += so_far - distance[column];
        column_potential_[column] -= so_far - distance[column];
    }
    while (at >= 0) {
        const std::int64_t previous = before[static_cast<std::size_t>(at)];
        row_of_[static_cast<std::size_t>(at)] =
            previous < 0 ? static_cast<std::int64_t>(kinds_.size()) - 1 : row_of_[static_cast<std::size_t>(previous)];
        at = previous;
    }
    sum_ -= so_far;
    return -so_far;
}

std::vector<std::int64_t> Assignment::columns() const {
    std::vector<std::int64_t> result(kinds_.size());
    for (std::size_t column = 0; column < row_of_.size(); ++column) {
        if (row_of_[column] >= 0) {
            result[static_cast<std::size_t>(row_of_[column])] = static_cast<std::int64_t>(column);
        }
    }
    return result;
}

}  // namespace mha2mla
