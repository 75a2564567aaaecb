// Bytes of a statistics file. What is accepted must be readable, and equal after writing and reading it again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "mha2mla/calibration.hpp"
#include "mha2mla/error.hpp"
#include "support/temporary.hpp"

namespace {

/// Reads all that is not read before it is needed.
void read_inputs(const mha2mla::LayerInputs& inputs) {
    for (std::int64_t layer = 0; layer < inputs.extent().layers; ++layer) {
        (void)inputs.moment(layer);
        (void)inputs.sample(layer);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const mha2mla::test::TemporaryDirectory directory;
    const mha2mla::test::MemoryFile file({reinterpret_cast<const char*>(data), size});
    mha2mla::CalibrationStats stats;
    try {
        stats = mha2mla::load_stats(file.path());
    } catch (const mha2mla::Error&) {
        return 0;
    }
    (void)stats.scores();
    if (stats.inputs != nullptr) read_inputs(*stats.inputs);
    mha2mla::Observer observer;
    if (stats.part) {
        const std::filesystem::path shards[] = {file.path()};
        try {
            const auto merged = mha2mla::merge_stats(shards);
            if (merged.inputs != nullptr) read_inputs(*merged.inputs);
        } catch (const mha2mla::Error&) {
        }
    }
    mha2mla::save_stats(directory / "again", stats, observer);
    const auto again = mha2mla::load_stats(directory / "again");
    if (again.orders != stats.orders || again.mean_key_norm != stats.mean_key_norm) std::abort();
    return 0;
}
