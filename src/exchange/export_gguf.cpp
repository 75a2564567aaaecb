#include <algorithm>
#include <cmath>
#include <limits>

#include "../support/parallel.hpp"
#include "export_tensor.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/gguf_export.hpp"

namespace mha2mla {
namespace {

/// Numbers that are read, converted and written together.
constexpr std::int64_t kPiece = std::int64_t{1} << 22;
constexpr float kLargestHalf = 65504;

struct Choice {
    BlockType type;
    std::string reason;  // if it is not the one asked for
};

bool divides(BlockType type, std::int64_t row) { return row % format_of(type).elements == 0; }

/// As llama.cpp's own quantiser falls back: blocks of 256 to blocks of 32 with a bit more, and these to F16.
Choice whole_blocks(BlockType type, std::int64_t row) {
    if (divides(type, row)) return {type, ""};
    const bool smaller = type == BlockType::q4_k && divides(BlockType::q5_0, row);
    return {smaller ? BlockType::q5_0 : BlockType::f16,
            "rows of " + std::to_string(row) + " are no whole blocks of " + std::to_string(format_of(type).elements)};
}

Choice choose(const ExportTensor& tensor, BlockType asked) {
    const std::int64_t row = tensor.row_length();
    const bool four_bits = asked == BlockType::q4_0 || asked == BlockType::q4_k;
    switch (tensor.precision) {
        case Precision::f32:
            break;
        case Precision::matrix:
            return whole_blocks(asked, row);
        case Precision::head: {
            if (!four_bits) return whole_blocks(asked, row);
            Choice choice = whole_blocks(BlockType::q8_0, row);
            if (choice.reason.empty()) choice.reason = "8 bits for the logits";
            return choice;
        }
        case Precision::tiny:
            if (asked == BlockType::f32 || asked == BlockType::bf16) return {asked, ""};
            return {BlockType::f32, "its latent comes times 2^-30, which 16-bit floats and scales do not hold"};
    }
    return {BlockType::f32, ""};
}

void refuse_too_large(std::span<const float> values, const BlockFormat& format, const std::string& name) {
    if (format.type != BlockType::f16) return;
    for (const float value : values) {
        if (std::abs(value) > kLargestHalf) {
            throw Error(ErrorCode::numeric, "tensor '" + name + "' holds " + std::to_string(value) +
                                                ", which f16 does not hold; choose the type bf16 or f32");
        }
    }
}

/// Reads, converts and hands on a tensor in pieces of whole rows.
void write_tensor(const Model& model, const ExportTensor& tensor, const BlockFormat& format, std::int64_t rows,
                  const GgufSink& sink) {
    const std::int64_t width = tensor.row_length();
    const std::int64_t at_once = std::max<std::int64_t>(kPiece / width / tensor.step, 1) * tensor.step;
    std::vector<float> values;
    std::vector<std::byte> bytes;
    for (const TensorView* source : tensor.sources) model.checkpoint.will_need(*source);
    for (std::int64_t first = 0; first < rows; first += at_once) {
        const std::int64_t count = std::min(at_once, rows - first);
        values.resize(static_cast<std::size_t>(count * width));
        tensor.read(first, count, values);
        refuse_too_large(values, format, tensor.name);
        const auto row_bytes = static_cast<std::size_t>(format.bytes_of(width));
        bytes.resize(static_cast<std::size_t>(count) * row_bytes);
        parallel_for(count, [&](std::int64_t row, std::vector<float>&) {
            const auto at = static_cast<std::size_t>(row), length = static_cast<std::size_t>(width);
            format.quantize(std::span<const float>(values).subspan(at * length, length),
                            std::span(bytes).subspan(at * row_bytes, row_bytes));
        });
        sink(bytes);
    }
    for (const TensorView* source : tensor.sources) model.checkpoint.done_with(*source);
}

void refuse_others(const Model& model) {
    const std::string directory = model.checkpoint.directory().string();
    if (!model.config.latent || model.config.latent->layout != &deepseek_layout()) {
        throw Error(ErrorCode::unsupported,
                    directory + ": " +
                        (model.config.latent ? "this converted checkpoint has the layout " +
                                                   std::string(model.config.latent->layout->name)
                                             : "this checkpoint is not converted") +
                        "; GGUF has a place for the layout deepseek alone",
                    Remedy::layout_deepseek);
    }
    for (std::int64_t i = 0; i < model.config.num_hidden_layers; ++i) {
        const MlpRule& mlp = model.rules(i).mlp;
        const LayerView& layer = model.layer(i);
        if (model.rules(i).rotary.frequencies != model.rules(0).rotary.frequencies) {
            throw Error(ErrorCode::unsupported,
                        directory + ": layer " + std::to_string(i) +
                            " rotates at other frequencies than layer 0, and llama.cpp has one list for all; "
                            "convert the original with rope-frequencies engine or shared");
        }
        if (mlp.mixture.experts > 0) {
            throw Error(ErrorCode::unsupported, directory + ": layer " + std::to_string(i) + " has " +
                                                    std::to_string(mlp.mixture.experts) +
                                                    " experts, which are not exported to GGUF yet");
        }
        if (mlp.activation != Activation::silu) {
            throw Error(ErrorCode::unsupported,
                        directory + ": hidden_act in config.json must be silu for llama.cpp to compute the same");
        }
        for (const LinearView* linear : {&layer.gate, &layer.up, &layer.down}) {
            if (linear->bias == nullptr) continue;
            throw Error(ErrorCode::unsupported,
                        directory + ": llama.cpp has no place for the bias of an MLP ('" + linear->bias->name + "')");
        }
    }
}

void check_output_file(const std::filesystem::path& file, bool overwrite) {
    std::error_code ignored;
    if (std::filesystem::is_directory(file, ignored)) {
        throw Error(ErrorCode::io, file.string() + ": is a directory; give the name of a file");
    }
    if (!overwrite && std::filesystem::exists(file, ignored)) {
        throw Error(ErrorCode::io, file.string() + ": exists", Remedy::overwrite);
    }
    const auto parent = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
    if (!std::filesystem::is_directory(parent, ignored)) {
        throw Error(ErrorCode::io, "cannot write " + file.string() + ": there is no directory " + parent.string());
    }
}

void count(const GgufTensorSpec& tensor, std::vector<GgufExportReport::Count>& types) {
    auto found = std::find_if(types.begin(), types.end(), [&](const auto& row) { return row.type == tensor.type; });
    if (found == types.end()) found = types.insert(types.end(), {tensor.type});
    ++found->tensors;
    found->bytes += tensor.bytes();
}

}  // namespace

GgufExportReport export_gguf(const Model& model, const std::filesystem::path& file, const GgufExportRequest& request,
                             Observer& observer) {
    refuse_others(model);
    check_output_file(file, request.overwrite);
    ExportContent content;
    add_common(model, row_of(request.form).architecture, request.type, content);
    (request.form == GgufForm::mla ? add_mla_attention : add_mqa_attention)(model, content);
    GgufExportReport report;
    report.vocabulary = add_vocabulary(model, content.metadata, observer);
    report.cached_numbers = content.cached_numbers;

    std::vector<GgufTensorSpec> specs;
    for (const ExportTensor& tensor : content.tensors) {
        const Choice choice = choose(tensor, request.type);
        specs.push_back({tensor.name, choice.type, tensor.shape});
        count(specs.back(), report.types);
        if (!choice.reason.empty()) report.others.push_back({tensor.name, choice.type, choice.reason});
    }
    const auto total = static_cast<std::int64_t>(specs.size());
    report.bytes = write_gguf(file, content.metadata, specs, [&](std::size_t i, const GgufSink& sink) {
        observer.step("writing", static_cast<std::int64_t>(i), total);
        const std::int64_t rows = specs[i].elements() / content.tensors[i].row_length();
        write_tensor(model, content.tensors[i], format_of(specs[i].type), rows, sink);
    });
    observer.step("writing", total, total);
    return report;
}

}  // namespace mha2mla
