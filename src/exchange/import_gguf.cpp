#include <algorithm>

#include "../checkpoint/config_json.hpp"
#include "../checkpoint/destination.hpp"
#include "../checkpoint/exchange.hpp"
#include "../model/read_config.hpp"
#include "import_parts.hpp"
#include "mha2mla/checkpoint_writer.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/gguf_import.hpp"

namespace mha2mla {
namespace {

/// Numbers that are converted and written together.
constexpr std::int64_t kPieceOfImport = std::int64_t{1} << 22;

/// What matrices are stored as, where one float type is enough for all; F16 where some are quantised, whose scales are.
Dtype own_dtype(const std::vector<ImportedTensor>& tensors) {
    bool f32 = false, bf16 = false, other = false;
    for (const ImportedTensor& tensor : tensors) {
        if (tensor.from->shape.size() < 2) continue;
        const BlockType type = tensor.from->format->type;
        (type == BlockType::f32 ? f32 : type == BlockType::bf16 ? bf16 : other) = true;
    }
    if (bf16) return Dtype::bf16;
    return f32 && !other ? Dtype::f32 : Dtype::f16;
}

void write_vector(const ImportedTensor& tensor, Dtype dtype, CheckpointWriter& writer) {
    std::vector<float> values(static_cast<std::size_t>(tensor.from->row_length())), moved(values.size());
    tensor.from->read_row(0, values);
    for (std::size_t i = 0; i < values.size(); ++i) {
        moved[i] = values[static_cast<std::size_t>(tensor.source_row(static_cast<std::int64_t>(i)))] - tensor.offset;
    }
    writer.write(tensor.name, from_floats(moved, dtype, tensor.name));
}

void write_matrix(const ImportedTensor& tensor, Dtype dtype, CheckpointWriter& writer) {
    const std::int64_t width = tensor.from->row_length(), rows = tensor.from->rows();
    const std::int64_t at_once = std::max<std::int64_t>(kPieceOfImport / width, 1);
    std::vector<float> values;
    std::uint64_t offset = 0;
    for (std::int64_t first = 0; first < rows; first += at_once) {
        const std::int64_t count = std::min(at_once, rows - first);
        values.resize(static_cast<std::size_t>(count * width));
        for (std::int64_t row = 0; row < count; ++row) {
            tensor.from->read_row(
                tensor.source_row(first + row),
                std::span(values).subspan(static_cast<std::size_t>(row * width), static_cast<std::size_t>(width)));
        }
        const std::vector<std::byte> bytes = from_floats(values, dtype, tensor.name);
        writer.write_part(tensor.name, offset, bytes);
        offset += bytes.size();
    }
}

void check_places(const std::filesystem::path& file, const std::filesystem::path& directory, bool overwrite) {
    std::error_code ignored;
    const std::string name = file.filename().string();
    const bool replaced = is_weight_file(name) || name.ends_with(".json") || name.ends_with(".jinja");
    if (replaced && std::filesystem::equivalent(std::filesystem::absolute(file).parent_path(), directory, ignored)) {
        throw Error(ErrorCode::usage, file.string() + ": would be replaced by the output; choose another directory");
    }
    if (overwrite) {
        check_output_directory(directory, true);
    } else {
        check_new_output(directory);
    }
}

}  // namespace

GgufImportReport import_gguf(const std::filesystem::path& file, const std::filesystem::path& directory,
                             const GgufImportRequest& request, Observer& observer) {
    check_places(file, directory, request.overwrite);
    const GgufFile source(file);
    const ImportedArchitecture& architecture = architecture_of(source);
    const ImportedShape shape = shape_of(source, architecture);
    nlohmann::ordered_json config = imported_config(source, architecture, shape);
    (void)read_config(config, file.string());  // refuses what no model can be
    const std::vector<ImportedTensor> tensors = imported_tensors(source, architecture, shape);
    const Dtype dtype = request.dtype.value_or(own_dtype(tensors));
    config["torch_dtype"] = config_dtype(dtype);
    const ImportedTokenizer tokenizer = imported_tokenizer(source, observer);

    const DestinationLock lock(directory);
    check_places(file, directory, request.overwrite);  // again: another process may have been at it
    if (request.overwrite) lock.forget_unfinished();
    std::vector<TensorSpec> specs;
    for (const ImportedTensor& tensor : tensors) specs.push_back({tensor.name, dtype, tensor.from->shape});
    CheckpointWriter::Options options;
    options.max_shard_bytes = request.max_shard_bytes;
    options.overwrite = true;  // the directory has the lock; what else it may have was checked
    CheckpointWriter writer(directory, std::move(specs), options);
    const auto total = static_cast<std::int64_t>(tensors.size());
    for (std::int64_t i = 0; i < total; ++i) {
        observer.step("writing", i, total);
        const ImportedTensor& tensor = tensors[static_cast<std::size_t>(i)];
        try {
            (tensor.from->shape.size() == 1 ? write_vector : write_matrix)(tensor, dtype, writer);
        } catch (const Error& error) {
            if (error.code() == ErrorCode::numeric) throw error.with_prefix(file.string() + ": ");
            throw;
        }
        source.file().done_with(tensor.from->data);
    }
    writer.add_file("config.json", config_text(config));
    for (const auto& [name, content] : {std::pair{"tokenizer.json", &tokenizer.tokenizer},
                                        {"tokenizer_config.json", &tokenizer.tokenizer_config},
                                        {"chat_template.jinja", &tokenizer.chat_template}}) {
        if (!content->empty()) writer.add_file(name, *content);
    }
    writer.commit();
    observer.step("writing", total, total);
    return {std::string(architecture.name), tokenizer.what, dtype, total, writer.total_bytes()};
}

}  // namespace mha2mla
