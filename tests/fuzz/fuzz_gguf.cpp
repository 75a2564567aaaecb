// Bytes of a GGUF file, as far as `import` reads it before it writes.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "exchange/import_parts.hpp"
#include "mha2mla/error.hpp"
#include "support/temporary.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto bytes = std::as_bytes(std::span(data, size));
    try {
        for (const auto& tensor : mha2mla::parse_gguf(bytes, "fuzz").tensors) {
            if (tensor.data.data() < bytes.data() || tensor.data.size() > bytes.size()) std::abort();
            if (tensor.data.data() + tensor.data.size() > bytes.data() + bytes.size()) std::abort();
        }
    } catch (const mha2mla::Error&) {
        return 0;
    }
    try {
        const mha2mla::test::MemoryFile memory({reinterpret_cast<const char*>(data), size});
        const mha2mla::GgufFile file(memory.path());
        mha2mla::Observer observer;
        (void)mha2mla::imported_tokenizer(file, observer);
        const auto& architecture = mha2mla::architecture_of(file);
        const auto shape = mha2mla::shape_of(file, architecture);
        (void)mha2mla::imported_config(file, architecture, shape);
        (void)mha2mla::imported_tensors(file, architecture, shape);
    } catch (const mha2mla::Error&) {
    }
    return 0;
}
