#pragma once
/// Names that llama.cpp has for the pre-tokenizers of byte-level vocabularies.

#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

namespace mha2mla {

/// tokenizer.ggml.pre of the pre-tokenizer in a tokenizer.json; nothing for one that llama.cpp has no name for, as far
/// as is known here. @param ignore_merges of the model: words that are tokens are not split.
[[nodiscard]] std::optional<std::string_view> pre_tokenizer_name(const nlohmann::json& pre_tokenizer,
                                                                 bool ignore_merges);

/// What a name stands for.
struct NamedPreTokenizer {
    nlohmann::json pre_tokenizer;  // as in a tokenizer.json
    bool ignore_merges = false;
    bool adds_bos = false;  // unless the file says otherwise
};
[[nodiscard]] std::optional<NamedPreTokenizer> named_pre_tokenizer(std::string_view name);

}  // namespace mha2mla
