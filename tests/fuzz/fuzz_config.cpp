// A config.json, and the frequencies that follow from it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "mha2mla/error.hpp"
#include "mha2mla/model.hpp"
#include "support/temporary.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const mha2mla::test::MemoryFile file({reinterpret_cast<const char*>(data), size});
    try {
        (void)mha2mla::read_config(file.path());
    } catch (const mha2mla::Error&) {
    }
    return 0;
}
