#pragma once
/// Tables with one row for each enumerator, which are indexed by the enumerator's value.

#include <array>
#include <cstddef>

namespace mha2mla {

/// Whether row i belongs to the enumerator of value i, for a static_assert beside the table:
///
///     static_assert(in_order(kTokenFormats, &TokenFormatRow::format));
///
/// @param key the member of a row that holds its enumerator.
template <typename Row, std::size_t rows, typename Enum>
[[nodiscard]] constexpr bool in_order(const std::array<Row, rows>& table, Enum Row::*key) {
    for (std::size_t i = 0; i < rows; ++i) {
        if (static_cast<std::size_t>(table.at(i).*key) != i) return false;
    }
    return true;
}

}  // namespace mha2mla
