// One byte that says how much is wanted, then the bytes of a text: plain, JSON Lines, packed by gzip or zstd.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "mha2mla/error.hpp"
#include "mha2mla/text_source.hpp"
#include "support/temporary.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const auto model = mha2mla::Model::open(MHA2MLA_EXAMPLES_DIR "/kjv-1.8M");
    if (size < 1) return 0;
    const mha2mla::test::MemoryFile file({reinterpret_cast<const char*>(data) + 1, size - 1});
    mha2mla::TextSource source;
    source.text = file.path();
    if ((data[0] & 1U) != 0) source.field = "text";
    const std::int64_t most = data[0] >> 1U;
    try {
        const auto ids = mha2mla::load_tokens(source, model, most);
        if (std::ssize(ids) > most) std::abort();
        for (const auto id : ids) {
            if (id < 0 || id >= model.config.vocab_size) std::abort();
        }
    } catch (const mha2mla::Error&) {
    }
    return 0;
}
