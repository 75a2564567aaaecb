#pragma once
/// The exception type of the library.

#include <stdexcept>
#include <string>
#include <string_view>

namespace mha2mla {

enum class ErrorCode {
    usage,        ///< arguments that are invalid or contradict each other (exit code 2)
    io,           ///< a file is missing, unreadable or not writable, or the disk is full
    format,       ///< a file violates its format, or two files disagree
    unsupported,  ///< valid input that this version cannot process
    numeric,      ///< weights or results that are not finite, or a decomposition that failed
    interrupted,  ///< the Observer asked to stop (exit code 130)
};

/// `what()` is one line: what is wrong, where (file, tensor, key), and what to do next. Control characters, which can
/// only come from names in a file, are replaced by '?'.
class Error : public std::runtime_error {
public:
    Error(ErrorCode code, std::string_view message) : std::runtime_error(one_line(message)), code_(code) {}
    [[nodiscard]] ErrorCode code() const noexcept { return code_; }

private:
    static std::string one_line(std::string_view message) {
        std::string line(message);
        for (char& c : line) {
            if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
        }
        return line;
    }
    ErrorCode code_;
};

}  // namespace mha2mla
