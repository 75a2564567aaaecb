// Bytes of a recipe.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "mha2mla/batch.hpp"
#include "mha2mla/error.hpp"
#include "support/temporary.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const mha2mla::RecipeSettings settings = {.convert = {{"rope", false}, {"rope-dim", false}, {"stats", true}},
                                                     .finetune = {{"text", true}, {"steps", false}},
                                                     .evaluate = {{"text", true}, {"task", false}}};
    const mha2mla::test::MemoryFile file({reinterpret_cast<const char*>(data), size});
    try {
        const auto recipe = mha2mla::read_recipe(file.path(), settings);
        for (const auto& job : recipe.jobs) {
            if (job.source.empty() || job.destination.empty()) std::abort();
        }
    } catch (const mha2mla::Error&) {
    }
    return 0;
}
