#pragma once
#include <filesystem>

#include "mha2mla/gguf_writer.hpp"

namespace mha2mla {

/// Adds the chat templates of a checkpoint: the default one is `tokenizer.chat_template`, the one NAME
/// `tokenizer.chat_template.NAME`, and `tokenizer.chat_templates` lists the names. They are read as transformers does:
/// from chat_template.jinja and additional_chat_templates/NAME.jinja, or else chat_template.json, or else
/// tokenizer_config.json, which has one template or a list of named ones.
/// @throws Error{io} or Error{format} if such a file cannot be read.
void add_chat_templates(const std::filesystem::path& directory, GgufMetadata& metadata);

}  // namespace mha2mla
