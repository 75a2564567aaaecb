// Bytes of a safetensors file.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "mha2mla/checkpoint.hpp"
#include "mha2mla/error.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        const auto header = mha2mla::validate(std::as_bytes(std::span(data, size)), "fuzz");
        std::uint64_t position = 0;
        for (const auto& entry : header.entries) {
            if (entry.begin != position || entry.end < entry.begin) std::abort();
            if (entry.end - entry.begin != mha2mla::byte_count(entry.dtype, entry.shape)) std::abort();
            position = entry.end;
        }
        if (header.data_start + position != size) std::abort();
    } catch (const mha2mla::Error&) {
    }
    return 0;
}
