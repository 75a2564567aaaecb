#pragma once
#include <cstddef>
#include <string>

#include "mha2mla/error.hpp"

namespace mha2mla {

/// Before two texts are compared in a time that is the product of their lengths, which is seconds at most.
/// @throws Error{format}
inline void check_work(std::size_t prediction, std::size_t answer, const char* what) {
    constexpr std::size_t kMost = 1'000'000'000;
    if (answer == 0 || prediction <= kMost / answer) return;
    throw Error(ErrorCode::format, "a prediction of " + std::to_string(prediction) + " " + what + " and an answer of " +
                                       std::to_string(answer) + " are too long to compare");
}

}  // namespace mha2mla
