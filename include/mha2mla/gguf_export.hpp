#pragma once
/// A checkpoint of layout `deepseek` as one GGUF file, which llama.cpp loads.

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/block_format.hpp"
#include "mha2mla/model.hpp"
#include "mha2mla/observer.hpp"
#include "mha2mla/table.hpp"

namespace mha2mla {

/// What an engine takes the attention for.
enum class GgufForm : std::uint8_t { mla, mqa };

struct GgufFormRow {
    GgufForm form;
    std::string_view name;
    std::string_view architecture;  // general.architecture
    std::string_view what;
};
inline constexpr std::array<GgufFormRow, 2> kGgufForms = {{
    {GgufForm::mla, "mla", "deepseek2",
     "multi-head latent attention: a cache of kv-rank + rope-dim numbers; no biases, "
     "and frequencies without scaling"},
    {GgufForm::mqa, "mqa", "llama",
     "the same with the up projections multiplied into queries and outputs: twice the "
     "cache; any biases and frequencies"},
}};
static_assert(in_order(kGgufForms, &GgufFormRow::form));
[[nodiscard]] constexpr const GgufFormRow& row_of(GgufForm form) {
    return kGgufForms.at(static_cast<std::size_t>(form));
}

struct GgufExportRequest {
    BlockType type = BlockType::f16;  // of matrices; one that can be written
    GgufForm form = GgufForm::mla;
    bool overwrite = false;
};

struct GgufExportReport {
    struct Count {
        BlockType type;
        std::int64_t tensors = 0, bytes = 0;
    };
    struct Other {
        std::string tensor;
        BlockType type;
        std::string reason;
    };
    std::uint64_t bytes = 0;          // of the file
    std::int64_t cached_numbers = 0;  // per token, that llama.cpp keeps
    std::vector<Count> types;         // those that occur
    std::vector<Other> others;        // matrices of another type than asked for, and why
    std::string vocabulary;           // for people: "byte-level BPE, split as qwen2"
};

/// Writes `model` to `file`, one tensor at a time. Nothing is left of a file that was not finished.
///
/// The norm of a latent divides by √(eps + mean c²). Where a conversion made the latent vanish beside eps, only √eps
/// counts; transformers gives this norm an eps of 1e-6 and llama.cpp rms_norm_eps, so the weight of the norm is
/// multiplied by √(rms_norm_eps / 1e-6).
/// @throws Error{unsupported} for a model of another layout, or with something that the form has no place for, naming
///         it; Error{io} if the file exists and may not be overwritten, or the disk is full; Error{numeric} for a
///         weight that is not finite or that f16 does not hold.
GgufExportReport export_gguf(const Model& model, const std::filesystem::path& file, const GgufExportRequest& request,
                             Observer& observer);

}  // namespace mha2mla
