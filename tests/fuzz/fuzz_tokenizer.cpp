// A tokenizer.json and, after a NUL byte, a text for it. JSON has no NUL, so every tokenizer.json is also a seed.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "mha2mla/error.hpp"
#include "mha2mla/tokenizer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view input(reinterpret_cast<const char*>(data), size);
    const std::size_t end = std::min(input.find('\0'), size);
    const std::string_view text = input.substr(std::min(end + 1, size)).substr(0, 4000);
    try {
        const auto tokenizer = mha2mla::Tokenizer::parse(input.substr(0, end), "fuzz");
        const auto ids = tokenizer.encode(text, true);
        (void)tokenizer.decode(ids, false);
        (void)tokenizer.decode(ids, true);
    } catch (const mha2mla::Error&) {
    }
    return 0;
}
