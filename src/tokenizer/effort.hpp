#pragma once
/// What a tokenizer may make of one text: limits in proportion to the text, whatever tokenizer.json says.

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace mha2mla {

/// The allowance of one call of Tokenizer::encode() or decode().
class Effort {
public:
    /// For a text of this size: all that is made of it may have 16 times its bytes and 1 MiB more, and regular
    /// expressions may take 256 steps per byte and 2^24 more beyond those that are free (see regex.cpp).
    explicit Effort(std::size_t text_bytes)
        : bytes_(16 * text_bytes + (std::size_t{1} << 20)),
          steps_((std::uint64_t{text_bytes} << 8) + (std::uint64_t{1} << 24)) {}

    /// Checks the size of a text that a step of the tokenizer makes. @throws Error{unsupported}, which names the step.
    void check_size(std::size_t bytes, std::string_view step) const {
        if (bytes > bytes_) fail(step);
    }
    /// The same for a text that is finished, and what it takes from the allowance.
    void take_text(std::size_t bytes, std::string_view step);
    /// Takes steps of a regular expression. @return whether they were left.
    [[nodiscard]] bool take_steps(std::uint64_t steps) {
        if (steps > steps_) return false;
        steps_ -= steps;
        return true;
    }

private:
    [[noreturn]] static void fail(std::string_view step);

    std::size_t bytes_;
    std::uint64_t steps_;
};

}  // namespace mha2mla
