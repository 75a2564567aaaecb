#pragma once
/// Checks of the library's exceptions.

#include <gtest/gtest.h>

#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/error.hpp"

namespace mha2mla::test {

/// Expects that `call` throws Error with this code, whose message is one line and contains every needle.
template <typename Callable>
void expect_error(ErrorCode code, const std::vector<std::string_view>& needles, Callable&& call,
                  const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    try {
        call();
        ADD_FAILURE_AT(file, line) << "nothing was thrown";
    } catch (const Error& error) {
        const std::string message = error.what();
        if (error.code() != code) {
            ADD_FAILURE_AT(file, line) << "error code is " << static_cast<int>(error.code()) << " instead of "
                                       << static_cast<int>(code) << ": " << message;
        }
        for (const auto needle : needles) {
            if (message.find(needle) == std::string::npos) {
                ADD_FAILURE_AT(file, line) << "no '" << needle << "' in: " << message;
            }
        }
        if (message.find_first_of("\n\r") != std::string::npos) {
            ADD_FAILURE_AT(file, line) << "more than one line: " << message;
        }
    } catch (const std::exception& error) {
        ADD_FAILURE_AT(file, line) << "not an mha2mla::Error: " << error.what();
    }
}

}  // namespace mha2mla::test
