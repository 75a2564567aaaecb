// One byte that selects the format, one for the size of the vocabulary, then the bytes of a token file.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "mha2mla/error.hpp"
#include "mha2mla/token_file.hpp"
#include "support/temporary.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    const auto format = mha2mla::kTokenFormats[data[0] % mha2mla::kTokenFormats.size()].format;
    const std::int64_t vocab_size = std::int64_t{1} << data[1] % 32;
    const mha2mla::test::MemoryFile file({reinterpret_cast<const char*>(data) + 2, size - 2});
    try {
        for (const auto id : mha2mla::read_token_file(file.path(), format, vocab_size)) {
            if (id < 0 || id >= vocab_size) std::abort();
        }
    } catch (const mha2mla::Error&) {
    }
    return 0;
}
